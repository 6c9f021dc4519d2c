"""Folders: what is listed, judged and left out. How a file goes is in `test_downloads.py` and `test_uploads.py`."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beray.client import BeRayClient
from beray.exceptions import FolderRefused, NotFoundError, ProtocolError
from beray.transfers import folders, names
from beray.transfers.folders import files_below, place_below
from tests.support.loopback import Answer, Exchange, LoopbackServer, Received, reply

Node = dict[str, Any]


def file(name: str, content: bytes = b"x") -> Node:
    return {"name": name, "path": f"/elsewhere/{name}", "type": "file", "size": len(content)}


def folder(name: str, *children: Node, **fields: Any) -> Node:
    return {"name": name, "path": name, "type": "directory", "size": 0, "children": list(children), **fields}


class Tree:
    """A server of a tree: each listing and file by its path, as the test says."""

    def __init__(self, peer: LoopbackServer) -> None:
        self.peer = peer
        self.listings: dict[str, list[Node]] = {}
        self.files: dict[str, bytes] = {}
        self.cut: set[str] = set()
        peer.always(self.answer)

    def answer(self, exchange: Exchange) -> None:
        asked = self.peer.received[-1]
        self._answer_of(asked)(exchange)

    def _answer_of(self, asked: Received) -> Answer:
        path = asked.query["path"][0]
        if asked.path.endswith("/tree"):
            is_cut = path in self.cut and "limit" not in asked.query
            return reply(200, self.listings[path], {"BeRay-Truncated": "true"} if is_cut else {})
        return reply(200, self.files[path]) if path in self.files else reply(404, {"detail": path})

    def listed(self) -> list[tuple[str, bool]]:
        """What was listed, and whether alone."""
        trees = [one for one in self.peer.received if one.path.endswith("/tree")]
        return [(one.query["path"][0], "depth" in one.query) for one in trees]


@pytest.fixture
def tree(peer: LoopbackServer) -> Tree:
    return Tree(peer)


def below(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# down


def test_folder_comes_with_all_that_is_below(tree: Tree, peer_client: BeRayClient, tmp_path: Path) -> None:
    link = {"name": "link", "path": "out/link", "type": "symlink", "size": 3}
    tree.listings["out"] = [folder("deep", file("b", b"22")), folder("empty"), file("a", b"1"), link]
    tree.files = {"out/a": b"1", "out/deep/b": b"22"}
    told: list[tuple[int, int | None]] = []

    written = peer_client.download_dir(1, "out/", tmp_path / "here", progress=lambda *now: told.append(now))

    assert written == [tmp_path / "here" / "a", tmp_path / "here" / "deep" / "b"]
    assert below(tmp_path / "here") == {"a": b"1", "deep/b": b"22"}
    assert (tmp_path / "here" / "empty").is_dir()
    assert told == sorted(told)
    assert told[-1] == (3, 3)


def test_list_that_was_cut_is_asked_for_again_where_it_was(
    tree: Tree, peer_client: BeRayClient, tmp_path: Path
) -> None:
    tree.listings["."] = [folder("a", file("1"), truncated=True), folder("b", truncated=True), file("c")]
    tree.listings["a"] = [file("1"), file("2"), {**folder("n"), "children": None}]
    tree.listings["a/n"] = [file("3")]
    tree.listings["b"] = [file("4")]
    tree.cut = {"b"}
    tree.files = {"a/1": b"1", "a/2": b"2", "a/n/3": b"3", "b/4": b"4", "c": b"5"}

    peer_client.download_dir(1, ".", tmp_path)

    assert below(tmp_path) == tree.files
    assert tree.listed() == [(".", False), ("a", False), ("b", False), ("b", True), ("a/n", False)]


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([file("..")], "name"),
        ([file("../evil")], "name"),
        ([file("/etc/passwd")], "name"),
        ([file("a/b")], "name"),
        ([file("")], "name"),
        ([file(".")], "name"),
        ([file("a\\..\\b")], "name"),
        ([file("C:evil")], "name"),
        ([file("a\0b")], "name"),
        ([file("\x1b[2J")], "name"),
        ([file("x" * 256)], "name"),
        ([folder("..", file("evil"))], "name"),
        ([file("a"), file("a")], "duplicate"),
        ([file("a"), folder("a", file("b"))], "duplicate"),
        ([file("README"), file("readme")], "duplicate"),
        ([file("é"), file("é")], "duplicate"),
        ([folder("A", file("x")), folder("a", file("y"))], "duplicate"),
    ],
)
def test_name_that_could_do_harm_stops_all_before_the_first_byte(
    tree: Tree, peer_client: BeRayClient, tmp_path: Path, nodes: list[Node], reason: str
) -> None:
    tree.listings["."] = [file("first"), *nodes]

    with pytest.raises(FolderRefused) as error:
        peer_client.download_dir(1, ".", tmp_path / "here")

    assert error.value.reason == reason
    assert [one.path for one in tree.peer.received if one.path.endswith("/content")] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("depth", [129, 400])
def test_folders_too_deep_are_refused(tree: Tree, peer_client: BeRayClient, tmp_path: Path, depth: int) -> None:
    nested = file("x")
    for _ in range(depth):
        nested = folder("d", nested)
    tree.listings["."] = [nested]

    with pytest.raises(FolderRefused):
        peer_client.download_dir(1, ".", tmp_path / "here")


def test_server_that_never_ends_its_folders_is_left(
    tree: Tree, peer_client: BeRayClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "_MAX_DEPTH", 8)

    class Endless(dict[str, list[Node]]):
        def __missing__(self, path: str) -> list[Node]:
            return [folder("d", truncated=True)]

    tree.listings = Endless()

    with pytest.raises(FolderRefused, match="folders deep"):
        peer_client.download_dir(1, ".", tmp_path / "here")


def test_number_of_entries_is_bounded(
    tree: Tree, peer_client: BeRayClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "MAX_ENTRIES", 3)
    tree.listings["."] = [file(str(number)) for number in range(4)]

    with pytest.raises(FolderRefused) as error:
        peer_client.download_dir(1, ".", tmp_path / "here")

    assert error.value.reason == "too_many_files"


def test_folder_with_more_than_a_server_lists_is_refused(
    peer: LoopbackServer, peer_client: BeRayClient, tmp_path: Path
) -> None:
    peer.always(reply(200, [file("a")], {"BeRay-Truncated": "true"}))

    with pytest.raises(FolderRefused) as error:
        peer_client.download_dir(1, ".", tmp_path / "here")

    assert error.value.reason == "too_many_files"
    assert len(peer.received) == 2


@pytest.mark.parametrize("answer", [{"a": 1}, [1], [{"name": "a"}], [{**file("a"), "size": -1}], [{"type": "file"}]])
def test_list_of_another_form_is_no_list(
    peer: LoopbackServer, peer_client: BeRayClient, tmp_path: Path, answer: Any
) -> None:
    peer.always(reply(200, answer))

    with pytest.raises(ProtocolError):
        peer_client.download_dir(1, ".", tmp_path / "here")


@pytest.mark.parametrize("plant", ["link to a folder", "link to nowhere", "file"])
def test_something_else_on_the_way_is_refused(tree: Tree, peer_client: BeRayClient, tmp_path: Path, plant: str) -> None:
    here, outside = tmp_path / "here", tmp_path / "outside"
    here.mkdir()
    outside.mkdir()
    {
        "link to a folder": lambda: (here / "d").symlink_to(outside),
        "link to nowhere": lambda: (here / "d").symlink_to(tmp_path / "new"),
        "file": lambda: (here / "d").write_text("mine"),
    }[plant]()
    tree.listings["."] = [folder("d", file("x"))]
    tree.files = {"d/x": b"evil"}

    with pytest.raises(FolderRefused) as error:
        peer_client.download_dir(1, ".", here, overwrite=True)

    assert error.value.reason == ("exists" if plant == "file" else "link")
    assert list(outside.iterdir()) == []
    assert not (tmp_path / "new").exists()


def test_file_that_is_there_already_ends_the_work_unless_it_may_be_replaced(
    tree: Tree, peer_client: BeRayClient, tmp_path: Path
) -> None:
    (tmp_path / "b").write_text("mine")
    tree.listings["."] = [file("a"), file("b"), file("c")]
    tree.files = dict.fromkeys("abc", b"x")

    with pytest.raises(FileExistsError):
        peer_client.download_dir(1, ".", tmp_path)
    after_refusal = below(tmp_path)
    peer_client.download_dir(1, ".", tmp_path, overwrite=True)

    assert after_refusal == {"a": b"x", "b": b"mine"}
    assert below(tmp_path) == tree.files


def test_file_that_went_meanwhile_is_told_and_what_came_stays(
    tree: Tree, peer_client: BeRayClient, tmp_path: Path
) -> None:
    tree.listings["."] = [file("a"), file("b")]
    tree.files = {"a": b"x"}

    with pytest.raises(NotFoundError):
        peer_client.download_dir(1, ".", tmp_path)

    assert below(tmp_path) == {"a": b"x"}


NAMES = st.one_of(
    st.text(max_size=12),
    st.lists(st.sampled_from(["..", ".", "", "a", "/", "\\", "C:", "\0", "CON", "b "]), max_size=4).map("/".join),
)


@settings(max_examples=300, deadline=None)
@given(path=NAMES, is_folder=st.booleans())
def test_no_name_leads_out_of_the_folder(tmp_path_factory: pytest.TempPathFactory, path: str, is_folder: bool) -> None:
    root = (tmp_path_factory.getbasetemp() / "confined").resolve()
    root.mkdir(exist_ok=True)

    try:
        place = place_below(root, path, is_folder=is_folder)
    except FolderRefused:
        return

    assert place.parent.resolve().is_relative_to(root)
    assert place != root
    assert Path(os.path.normpath(place)) == place


# up


@pytest.fixture
def local(tmp_path: Path) -> Path:
    root = tmp_path / "local"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "b.txt").write_bytes(b"22")
    (root / "sub" / "a.txt").write_bytes(b"1")
    (root / "sub" / "deep" / "图.bin").write_bytes(b"")
    return root


def test_folder_goes_up_file_by_file_in_order(peer: LoopbackServer, peer_client: BeRayClient, local: Path) -> None:
    peer.always(reply(201, {"message": "ok"}))
    told: list[tuple[int, int | None]] = []

    answers = peer_client.upload_dir(1, local, "in/", progress=lambda *now: told.append(now))

    assert [one.query["path"] for one in peer.received] == [["in/b.txt"], ["in/sub/a.txt"], ["in/sub/deep/图.bin"]]
    assert [one.body for one in peer.received] == [b"22", b"1", b""]
    assert answers == [{"message": "ok"}] * 3
    assert told[-1] == (3, 3)
    assert told == sorted(told)


def test_links_within_the_folder_are_what_they_lead_to(local: Path) -> None:
    (local / "link").symlink_to("sub/a.txt")
    (local / "folder").symlink_to("sub")
    os.mkfifo(local / "pipe")

    assert [entry.path for entry in files_below(local)] == ["b.txt", "link", "sub/a.txt", "sub/deep/图.bin"]


@pytest.mark.parametrize("to", ["/etc/passwd", "../secret", "nowhere", "loop", ".."])
def test_link_that_leads_out_or_nowhere_stops_all_before_the_first_byte(
    peer: LoopbackServer, peer_client: BeRayClient, local: Path, to: str
) -> None:
    (local.parent / "secret").write_text("secret")
    (local / "loop").symlink_to(to)

    with pytest.raises(FolderRefused) as error:
        peer_client.upload_dir(1, local)

    assert (error.value.reason, error.value.path) == ("link", "loop")
    assert peer.received == []


@pytest.mark.parametrize("name", [b"\xff.txt", b"a\nb", b"a\\b"])
def test_name_that_a_work_dir_can_not_have_stops_all_before_the_first_byte(
    peer: LoopbackServer, peer_client: BeRayClient, local: Path, name: bytes
) -> None:
    with open(os.fsencode(local) + b"/" + name, "wb"):
        pass

    with pytest.raises(FolderRefused) as error:
        peer_client.upload_dir(1, local)

    assert error.value.reason == "name"
    str(error.value).encode()
    assert peer.received == []


def test_number_of_files_to_upload_is_bounded(
    peer_client: BeRayClient, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "MAX_ENTRIES", 5)

    with pytest.raises(FolderRefused) as error:
        peer_client.upload_dir(1, local)

    assert error.value.reason == "too_many_files"


@pytest.mark.parametrize(
    ("make", "kind"), [(lambda path: None, FileNotFoundError), (lambda path: path.write_text(""), NotADirectoryError)]
)
def test_what_is_no_folder_is_the_callers_own_error(
    peer_client: BeRayClient, tmp_path: Path, make: Callable[[Path], Any], kind: type[OSError]
) -> None:
    make(tmp_path / "x")

    with pytest.raises(kind):
        peer_client.upload_dir(1, tmp_path / "x")
