import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest

from beray import ArchiveRefused, extract_zip_safely
from beray.client import BeRayClient
from tests.support.archives import archive_of, names_of


def unpack(archive: bytes, target: Path, **options: float) -> list[str]:
    """The files below the target, as they were told."""
    written = extract_zip_safely(io.BytesIO(archive), target, **options)
    return [path.relative_to(target).as_posix() for path in written]


def below(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


def test_download_of_a_task_is_unpacked_as_it_is_in_the_work_dir(client: BeRayClient, tmp_path: Path) -> None:
    task_id = client.create_task("`true`", hold=True)["id"]
    contents = {
        "a.txt": b"",
        "目录/é 1.md": "中".encode(),
        "deep/er/noise": os.urandom(300_000),
        "zeros": bytes(1 << 20),
    }
    for path, content in contents.items():
        client.upload_file(task_id, path, content)
    (tmp_path / "task.zip").write_bytes(client.download_files_as_zip(task_id).content)

    written = extract_zip_safely(tmp_path / "task.zip", tmp_path / "new" / "folder")

    folder = tmp_path / "new" / "folder"
    assert {path.relative_to(folder).as_posix() for path in written} == set(contents)
    assert {name: content for name, content in below(folder).items() if content is not None} == contents
    assert sorted(os.listdir(tmp_path)) == ["new", "task.zip"]


def test_files_and_folders_get_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").mkdir()
    (tmp_path / "usual" / "file").touch()
    unpack(archive_of(("set-id", b""), ("folder/x", b""), mode=0o106777), tmp_path / "t")

    for made, usual in (
        ("t", "usual"),
        ("t/folder", "usual"),
        ("t/set-id", "usual/file"),
        ("t/folder/x", "usual/file"),
    ):
        assert (tmp_path / made).stat().st_mode == (tmp_path / usual).stat().st_mode


def test_folder_that_is_there_is_added_to(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_bytes(b"old")

    assert unpack(archive_of(("a/new", b"n"), ("b/", b""), ("c/d", b"d")), tmp_path) == ["a/new", "c/d"]

    expected = {"a": None, "a/old": b"old", "a/new": b"n", "b": None, "c": None, "c/d": b"d"}
    assert below(tmp_path) == expected


def test_file_that_is_there_is_kept_unless_it_may_be_overwritten(tmp_path: Path) -> None:
    archive = archive_of(("first", b"new"), ("x", b"new"))
    (tmp_path / "x").write_bytes(b"old")

    with pytest.raises(ArchiveRefused, match="'x' would be written where something is already") as refused:
        unpack(archive, tmp_path)

    assert (refused.value.reason, refused.value.entry) == ("exists", "x")
    assert below(tmp_path) == {"x": b"old"}
    assert unpack(archive, tmp_path, overwrite=True) == ["first", "x"]
    assert below(tmp_path) == {"first": b"new", "x": b"new"}


@pytest.mark.parametrize(("there", "comes"), [("x/", "x"), ("x", "x/"), ("x", "x/y")])
def test_file_and_folder_do_not_replace_each_other(tmp_path: Path, there: str, comes: str) -> None:
    (tmp_path / "x").mkdir() if there.endswith("/") else (tmp_path / "x").write_bytes(b"")
    before = below(tmp_path)

    with pytest.raises(ArchiveRefused) as refused:
        unpack(archive_of((comes, b"")), tmp_path, overwrite=True)

    assert refused.value.reason == "exists"
    assert below(tmp_path) == before


def test_file_that_can_not_be_put_in_its_place_takes_the_others_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "there").mkdir()
    replace = Path.replace

    def fail_at_last(source: Path, place: Path) -> Path:
        if place.name == "y" and "there" in place.parts:
            raise PermissionError(13, "Permission denied", str(place))
        return replace(source, place)

    monkeypatch.setattr(Path, "replace", fail_at_last)

    with pytest.raises(PermissionError):
        unpack(names_of(["a", "b/c", "there/y"]), tmp_path)

    assert below(tmp_path) == {"there": None}


def test_target_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(NotADirectoryError):
        unpack(names_of(["a"]), tmp_path / "file")


def test_target_may_be_reached_by_a_link_of_the_callers(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    extract_zip_safely(io.BytesIO(names_of(["a"])), tmp_path / "link")

    assert below(tmp_path / "real") == {"a": b"x"}


def test_archive_may_have_a_head_of_its_own_and_hold_archives(tmp_path: Path) -> None:
    inner = names_of(f"f{number}" for number in range(100))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("inner.zip", inner)

    assert unpack(b"#!/bin/sh\n" + buffer.getvalue(), tmp_path / "t", max_entries=1) == ["inner.zip"]
    assert (tmp_path / "t" / "inner.zip").read_bytes() == inner


def test_empty_archive_makes_an_empty_folder(tmp_path: Path) -> None:
    assert unpack(archive_of(), tmp_path / "t") == []
    assert below(tmp_path) == {"t": None}


def test_file_that_was_given_stays_open_and_one_that_can_not_seek_is_an_error(tmp_path: Path) -> None:
    file = io.BytesIO(names_of(["a"]))
    extract_zip_safely(file, tmp_path / "t")
    assert not file.closed

    end, other = os.pipe()
    os.close(other)
    with open(end, "rb") as stream, pytest.raises(ValueError, match="can seek"):
        extract_zip_safely(stream, tmp_path / "t")


def test_refusal_survives_pickling() -> None:
    error = ArchiveRefused("'a'\nis a link.", reason="link", entry="a\n")

    again = pickle.loads(pickle.dumps(error))

    assert (str(again), again.reason, again.entry) == ("The archive was not unpacked: 'a' is a link.", "link", "a\n")
