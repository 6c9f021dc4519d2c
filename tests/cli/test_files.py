"""`files ls|get|put|zip|cat`."""

import json
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from beray.cli.exits import CliError
from beray.cli.transfer import Target
from tests.support.command_line import CommandLine, OnTerminal
from tests.support.fake_server import FakeServer
from tests.support.scripts import HELLO_WORLD

BYTES = bytes(range(256)) * 20_000  # 5 MB: several chunks, and a progress bar
FILES = {"hello.py": b"print('hi')\n", "out/data.bin": BYTES, "out/deep/中文.txt": "好".encode()}


@pytest.fixture(autouse=True)
def task_with_files(fake: FakeServer) -> None:
    fake.add(HELLO_WORLD, files=dict(FILES))


def downloaded(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_are_listed_with_their_sizes(beray: CommandLine) -> None:
    assert beray("files", "ls", "42").out.splitlines() == [
        "      12 B  hello.py",
        "         -  out/",
        "    5.1 MB  out/data.bin",
        "         -  out/deep/",
        "       3 B  out/deep/中文.txt",
    ]
    assert beray("files", "ls", "42", "out/deep").out == "       3 B  out/deep/中文.txt\n"
    assert [node["name"] for node in json.loads(beray("files", "ls", "42", "--json").out)] == ["hello.py", "out"]


def test_file_is_downloaded_byte_for_byte_under_its_name(beray: CommandLine, home: Path) -> None:
    ended = beray("files", "get", "42", "out/data.bin")

    assert ended.status == 0
    assert (home / "data.bin").read_bytes() == BYTES
    assert [path.name for path in home.iterdir() if path.name.startswith(".")] == []


def test_downloaded_file_has_the_usual_mode(beray: CommandLine, home: Path) -> None:
    beray("files", "get", "42", "hello.py")

    umask = os.umask(0o022)
    os.umask(umask)
    assert stat.S_IMODE((home / "hello.py").stat().st_mode) == 0o666 & ~umask


def test_folder_is_downloaded_with_all_in_it(beray: CommandLine, home: Path) -> None:
    ended = beray("files", "get", "42", "out", "-o", "here")

    assert ended.status == 0
    assert downloaded(home / "here") == {"out/data.bin": BYTES, "out/deep/中文.txt": "好".encode()}


def test_several_files_go_into_the_named_folder(beray: CommandLine, home: Path) -> None:
    ended = beray("files", "get", "42", "hello.py", "out/deep/中文.txt", "-o", "here")

    assert ended.status == 0
    assert downloaded(home / "here") == {"hello.py": b"print('hi')\n", "中文.txt": "好".encode()}


def test_destination_can_name_the_file(beray: CommandLine, home: Path) -> None:
    assert beray("files", "get", "42", "hello.py", "-o", "renamed.py").status == 0
    assert beray("files", "get", "42", "hello.py", "-o", "new/").status == 0

    assert (home / "renamed.py").read_bytes() == FILES["hello.py"]
    assert (home / "new" / "hello.py").read_bytes() == FILES["hello.py"]


def test_existing_file_is_kept_unless_forced(beray: CommandLine, home: Path) -> None:
    (home / "hello.py").write_text("mine")

    refused = beray("files", "get", "42", "hello.py")
    kept = (home / "hello.py").read_text()
    forced = beray("files", "get", "-f", "42", "hello.py")

    assert (refused.status, kept) == (6, "mine")
    assert "-f" in refused.err
    assert forced.status == 0
    assert (home / "hello.py").read_bytes() == FILES["hello.py"]


def test_file_that_is_there_with_the_same_content_is_left(beray: CommandLine, home: Path) -> None:
    assert beray("files", "get", "42", "out", "-o", "here").status == 0
    (home / "here" / "out" / "deep" / "中文.txt").unlink()

    assert beray("files", "get", "42", "out", "-o", "here").status == 0

    assert downloaded(home / "here") == {"out/data.bin": BYTES, "out/deep/中文.txt": "好".encode()}


def test_folder_is_taken_for_one_though_one_of_its_name_is_here(beray: CommandLine, home: Path) -> None:
    (home / "out").mkdir()
    (home / "hello.py").mkdir()

    assert beray("files", "get", "42", "out").status == 0
    refused = beray("files", "get", "42", "hello.py")

    assert (home / "out" / "data.bin").read_bytes() == BYTES
    assert (refused.status, "hello.py" in refused.err) == (6, True)
    assert list((home / "hello.py").iterdir()) == []


def test_tree_of_a_hostile_server_is_not_downloaded(beray: CommandLine, fake: FakeServer, home: Path) -> None:
    fake.add(HELLO_WORLD, files={"../planted": b"x", "fine": b"y"})

    refused = beray("files", "get", "43", ".", "-o", "here")

    assert refused.status == 1
    assert not (home / "planted").exists()
    assert downloaded(home) == {}


def test_folder_with_a_link_that_leads_out_is_not_uploaded(beray: CommandLine, fake: FakeServer, home: Path) -> None:
    (home / "folder").mkdir()
    (home / "folder" / "a.txt").write_text("a")
    (home / "folder" / "secret").symlink_to("/etc/passwd")

    refused = beray("files", "put", "42", "folder")

    assert (refused.status, "'secret' is a link" in refused.err) == (1, True)
    assert fake.tasks[42].files.keys() == FILES.keys()


def test_link_in_the_way_is_neither_followed_nor_replaced(beray: CommandLine, home: Path) -> None:
    (home / "elsewhere").write_text("precious")
    (home / "hello.py").symlink_to(home / "elsewhere")

    assert beray("files", "get", "42", "hello.py").status == 6
    assert beray("files", "get", "-f", "42", "hello.py").status == 0

    assert (home / "elsewhere").read_text() == "precious"
    assert not (home / "hello.py").is_symlink()


def test_stdout_gets_the_bytes_alone(beray: CommandLine) -> None:
    process = beray.popen("files", "get", "42", "out/data.bin", "-o", "-")
    out, err = process.communicate(timeout=60)

    assert (out, err, process.returncode) == (BYTES, b"", 0)


def test_cat_prints_bytes_on_a_pipe_and_harmless_text_on_a_terminal(
    beray: CommandLine, on_terminal: Callable[..., OnTerminal], fake: FakeServer
) -> None:
    fake.tasks[42].files["evil.txt"] = b"a\x1b[2Jb\n"

    terminal = on_terminal("files", "cat", "42", "evil.txt")

    assert beray("files", "cat", "42", "evil.txt").out == "a\x1b[2Jb\n"
    assert terminal.end() == 0
    assert terminal.raw == b"ab\r\n"


def test_missing_file_is_not_found_and_nothing_is_left(beray: CommandLine, home: Path) -> None:
    before = sorted(home.rglob("*"))

    ended = beray("files", "get", "42", "nowhere.txt")

    assert ended.status == 5
    assert "beray files ls" in ended.err
    assert sorted(home.rglob("*")) == before


def test_big_download_shows_a_bar_on_a_terminal(on_terminal: Callable[..., OnTerminal]) -> None:
    terminal = on_terminal("files", "get", "42", "out/data.bin")

    assert terminal.end() == 0
    assert "█" in terminal.shown
    assert "5.1 MB" in terminal.shown


def test_archive_holds_everything(beray: CommandLine, home: Path) -> None:
    assert beray("files", "zip", "42").status == 0
    again = beray("files", "zip", "42")

    with zipfile.ZipFile(home / "task-42.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == FILES
    assert again.status == 6


def test_archive_is_unpacked(beray: CommandLine, home: Path) -> None:
    ended = beray("files", "zip", "42", "-x", "here")

    assert ended.status == 0
    assert downloaded(home / "here") == FILES
    assert "out/deep/中文.txt → " in ended.err
    assert [path.name for path in home.iterdir() if path.suffix == ".zip"] == []


def test_archive_does_not_replace_files_unless_forced(beray: CommandLine, home: Path) -> None:
    (home / "hello.py").write_bytes(b"mine")

    refused = beray("files", "zip", "42", "-x", ".")

    assert (refused.status, downloaded(home)["hello.py"]) == (6, b"mine")
    assert "hello.py" in refused.err
    assert "-f" in refused.err
    assert not (home / "out").exists()
    assert beray("files", "zip", "42", "-x", ".", "-f").status == 0
    assert (home / "hello.py").read_bytes() == FILES["hello.py"]


def test_archive_that_would_leave_the_folder_is_not_unpacked(beray: CommandLine, fake: FakeServer, home: Path) -> None:
    fake.add(HELLO_WORLD, files={"../planted": b"x"})

    refused = beray("files", "zip", "43", "-x", "here")

    assert refused.status == 1
    assert "leads out of the folder" in refused.err
    assert "beray files get" in refused.err
    assert not (home / "planted").exists()
    assert not (home / "here").exists()


def test_archive_is_either_kept_or_unpacked(beray: CommandLine) -> None:
    assert beray("files", "zip", "42", "-x", "here", "-o", "there.zip").status == 2


def test_archive_does_not_go_to_a_terminal(on_terminal: Callable[..., OnTerminal]) -> None:
    terminal = on_terminal("files", "zip", "42", "-o", "-")

    assert terminal.end() == 2
    assert "redirect" in terminal.shown


def test_uploads_of_files_and_folders(beray: CommandLine, fake: FakeServer, home: Path) -> None:
    (home / "folder").mkdir()
    (home / "folder" / "a.txt").write_text("a")
    (home / "b.bin").write_bytes(BYTES)

    assert beray("files", "put", "42", "b.bin").status == 0
    assert beray("files", "put", "42", "b.bin", "in/").status == 0
    assert beray("files", "put", "42", "b.bin", "c.bin").status == 0
    assert beray("files", "put", "42", "folder", "renamed").status == 0
    assert beray("files", "put", "42", "folder").status == 0

    added = {name: content for name, content in fake.tasks[42].files.items() if name not in FILES}
    assert added == {"b.bin": BYTES, "in/b.bin": BYTES, "c.bin": BYTES, "renamed/a.txt": b"a", "folder/a.txt": b"a"}


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", "..", "", "a\0b"])
def test_name_from_a_hostile_server_never_leaves_the_folder(tmp_path: Path, path: str) -> None:
    with pytest.raises(CliError):
        Target(tmp_path / "here", can_overwrite=True).place(path)


def test_link_inside_the_folder_does_not_lead_out_of_it(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "way-out").symlink_to(tmp_path)

    with pytest.raises(CliError):
        Target(tmp_path / "here", can_overwrite=True).place("way-out/evil")
