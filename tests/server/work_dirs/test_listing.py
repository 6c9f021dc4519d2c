import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from beray.protocol.types import FileNode
from beray.server.work_dirs import listing
from beray.server.work_dirs.listing import TREE_DEPTH, compare
from beray.server.work_dirs.work_dir import WorkDir
from tests.server.work_dirs.test_removal import make_deep


def names(nodes: list[FileNode]) -> list[str]:
    return [node["name"] for node in nodes]


def test_tree_shows_folders_first_then_names(work_dir: WorkDir) -> None:
    for path in ("b.txt", "a.txt", "z/1.txt", "y/deep/2.txt", "中.txt"):
        work_dir.write_bytes(path, b"12")
    (work_dir.path / "link").symlink_to("/etc")
    (work_dir.path / "empty").mkdir()

    tree = work_dir.tree()

    assert names(tree) == ["empty", "y", "z", "a.txt", "b.txt", "link", "中.txt"]
    assert [node["type"] for node in tree] == ["directory"] * 3 + ["file", "file", "symlink", "file"]
    assert tree[0].get("children") == []
    assert tree[1].get("children", [])[0].get("children", [])[0]["path"] == "y/deep/2.txt"
    assert tree[3]["size"] == 2
    assert "children" not in tree[3]
    assert "children" not in tree[5]
    assert tree[3]["modified_at"].endswith("Z")
    assert "truncated" not in json.dumps(tree)


def test_subtree_has_paths_of_the_work_dir(work_dir: WorkDir) -> None:
    work_dir.write_bytes("a/b/c.txt", b"")

    assert [node["path"] for node in work_dir.tree("a/b/")] == ["a/b/c.txt"]


def test_depth_cuts_folders_and_says_so(work_dir: WorkDir) -> None:
    work_dir.write_bytes("a/b/c.txt", b"")

    (top,) = work_dir.tree(depth=1)
    assert (top.get("children"), top.get("truncated")) == ([], True)
    (top,) = work_dir.tree(depth=2)
    assert "truncated" not in top
    assert [child.get("truncated") for child in top.get("children", [])] == [True]


def test_limit_keeps_what_is_near_the_top(work_dir: WorkDir) -> None:
    for number in range(5):
        work_dir.write_bytes(f"a/f{number}", b"")
    work_dir.write_bytes("z.txt", b"")

    tree = work_dir.list_tree(limit=4)

    assert names(tree.nodes) == ["a", "z.txt"]
    assert not tree.is_truncated
    assert names(tree.nodes[0].get("children", [])) == ["f0", "f1"]
    assert tree.nodes[0].get("truncated") is True
    assert work_dir.list_tree(limit=1).is_truncated


def test_tree_deeper_than_json_can_be_is_cut(work_dir: WorkDir) -> None:
    make_deep(work_dir.path, 300)

    text = json.dumps(work_dir.tree(depth=10_000))
    work_dir.remove("deep")  # pytest cleans up by recursion

    assert text.count('"children"') == TREE_DEPTH
    assert text.count('"truncated": true') == 1


def test_huge_folder_is_listed_in_bounds(work_dir: WorkDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "FOLDER_ENTRIES", 50)
    for number in range(60):
        (work_dir.path / f"f{number}").touch()

    tree = work_dir.list_tree()

    assert len(tree.nodes) == 50
    assert tree.is_truncated


@pytest.mark.parametrize("seconds", [-(2**40), 0, 2**33, 2**40])
def test_file_with_an_impossible_time_is_listed(work_dir: WorkDir, seconds: int) -> None:
    work_dir.write_bytes("x", b"")
    os.utime(work_dir.path / "x", (seconds, seconds))  # the file system may keep the nearest it can

    (node,) = work_dir.tree()

    assert len(node["modified_at"]) == len("2026-01-01T00:00:00.000Z")


def test_names_that_are_no_text_are_listed_and_can_be_opened(work_dir: WorkDir) -> None:
    raw = b'caf\xe9 \xff"\r\n\xee\xbe\x80.txt'
    with open(os.fsencode(work_dir.path) + b"/" + raw, "w") as file:
        file.write("content")

    (node,) = json.loads(json.dumps(work_dir.tree(), ensure_ascii=False).encode())

    assert work_dir.read_bytes(node["path"]) == b"content"
    assert list(work_dir.snapshot()) == [node["path"]]
    work_dir.remove(node["path"])
    assert work_dir.tree() == []


def test_snapshots_tell_what_changed(work_dir: WorkDir) -> None:
    for path in ("same", "a/changed", "a/gone", "rewritten"):
        work_dir.write_bytes(path, b"1")
    before = work_dir.snapshot()

    work_dir.write_bytes("a/changed", b"22")
    work_dir.write_bytes("rewritten", b"2")
    work_dir.write_bytes("b/new", b"333")
    work_dir.remove("a/gone")
    changes = compare(before, work_dir.snapshot())

    assert [(change.path, change.change, change.size) for change in changes] == [
        ("a/changed", "modified", 2),
        ("a/gone", "deleted", 0),
        ("b/new", "created", 3),
        ("rewritten", "modified", 1),
    ]


def test_incomplete_snapshots_claim_nothing_uncertain(work_dir: WorkDir) -> None:
    for number in range(5):
        work_dir.write_bytes(f"f{number}", b"")
    full, cut = work_dir.snapshot(), work_dir.snapshot(limit=2)

    assert (full.is_complete, cut.is_complete, len(cut)) == (True, False, 2)
    assert compare(full, cut) == []
    assert compare(cut, full) == []


def walked(work_dir: WorkDir, *paths: str) -> list[str]:
    return [entry.path for entry in work_dir.walk(paths)]


def test_walk_meets_everything_once_in_order(work_dir: WorkDir) -> None:
    for path in ("b/2", "b/1", "a", "b/c/3", "b-", "b0"):
        work_dir.write_bytes(path, b"")

    assert walked(work_dir) == ["a", "b", "b/1", "b/2", "b/c", "b/c/3", "b-", "b0"]
    assert walked(work_dir, "b/c", "b/", "./b", "a", "b/1") == ["a", "b", "b/1", "b/2", "b/c", "b/c/3"]
    assert walked(work_dir, "b/1", ".") == walked(work_dir)


def test_walk_that_is_dropped_leaves_nothing_open(work_dir: WorkDir) -> None:
    work_dir.write_bytes("a/b/c", b"")

    walk = work_dir.walk()
    entries: Any = iter(walk)
    next(entries)
    next(entries)
    entries.close()
    walk.close()


def test_walk_gives_the_content_of_links_inside_and_leaves_out_the_rest(work_dir: WorkDir, outside: Path) -> None:
    work_dir.write_bytes("real/data", b"data")
    (work_dir.path / "link").symlink_to("real/data")
    (work_dir.path / "out").symlink_to(outside)
    (work_dir.path / "gone").symlink_to("nothing")
    (work_dir.path / "around").symlink_to(".")
    os.mkfifo(work_dir.path / "fifo")

    walk = work_dir.walk()
    found = {entry.path: None if entry.is_folder else entry.open().read_at(0, 100) for entry in walk}

    assert found == {"link": b"data", "real": None, "real/data": b"data"}
    assert walk.left_out == 4


@pytest.mark.parametrize("kind", ["files", "fifos"])
def test_listing_reads_no_more_than_it_may_however_little_it_shows(
    work_dir: WorkDir, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand folders of a hundred thousand entries each would else keep a thread for many minutes."""
    monkeypatch.setattr(listing, "READ_ENTRIES", 50)
    mode = 0o644 | (stat.S_IFREG if kind == "files" else stat.S_IFIFO)
    for folder in range(8):
        (work_dir.path / f"d{folder}").mkdir()
        for number in range(20):
            os.mknod(work_dir.path / f"d{folder}" / f"f{number}", mode)
    reads = 0
    real_stat = os.stat

    def counted(name: bytes, **options: Any) -> os.stat_result:
        nonlocal reads
        reads += isinstance(name, bytes)
        return real_stat(name, **options)

    monkeypatch.setattr(listing.os, "stat", counted)

    tree = work_dir.list_tree()
    assert reads <= 50 + 1  # the top folder itself
    assert [node.get("truncated", False) for node in tree.nodes] == [False] * 2 + [True] * 6

    reads = 0
    assert not work_dir.snapshot().is_complete
    assert reads <= 50

    reads = 0
    assert [len(node["children"]) for node in work_dir.list_tree(limit=8).nodes] == [0] * 8
    assert reads == 8 + 1
