import io
import os
import shutil
import stat
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest

from beray.server.files import zipstream
from beray.server.files.zipstream import ZipPieces
from beray.server.work_dirs import listing
from beray.server.work_dirs.work_dir import WorkDir
from tests.server.files.files_server import FilesServer, TaskFiles, code_of, entries
from tests.support.waiting import wait_until


def fill(task: TaskFiles) -> None:
    for path, content in (
        ("images/a.png", b"png"),
        ("images/b/c.txt", b"c"),
        ("results/summary.txt", b"sum"),
        ("z", b""),
    ):
        task.put(path, content)
    (task.folder / "empty").mkdir()


EVERYTHING = {
    "empty/": b"",
    "images/": b"",
    "images/a.png": b"png",
    "images/b/": b"",
    "images/b/c.txt": b"c",
    "results/": b"",
    "results/summary.txt": b"sum",
    "z": b"",
}


def test_zip_of_everything_has_names_of_the_work_dir(task: TaskFiles) -> None:
    fill(task)

    answer = task.zip()

    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == f'attachment; filename="task_{task.id}.zip"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert entries(answer.content) == EVERYTHING
    assert list(entries(answer.content)) == list(EVERYTHING)


@pytest.mark.parametrize("body", [b"", b"  ", b"{}", b'{"paths": null}', b'{"paths": []}', b'{"paths": ["."]}'])
@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
def test_nothing_named_means_everything(task: TaskFiles, body: bytes, content_type: str) -> None:
    fill(task)

    answer = task.request("POST", "download", data=body, headers={"Content-Type": content_type})

    assert entries(answer.content) == EVERYTHING


def test_named_files_and_folders_come_once(task: TaskFiles) -> None:
    fill(task)
    images = {name: content for name, content in EVERYTHING.items() if name.startswith("images/")}

    assert task.unzip("results/summary.txt", "images/") == images | {"results/summary.txt": b"sum"}
    assert task.unzip("images/", "images", "./images//", "images/b/c.txt") == images
    assert task.unzip("images/b/c.txt") == {"images/b/c.txt": b"c"}
    assert task.unzip("images", ".") == EVERYTHING
    assert task.unzip("empty") == {"empty/": b""}


def test_browser_gets_the_same_by_a_link(task: TaskFiles) -> None:
    fill(task)

    named = task.request("GET", "download", params={"path": ["z", "empty/"]})

    assert entries(named.content) == {"z": b"", "empty/": b""}
    assert entries(task.request("GET", "download").content) == EVERYTHING


def test_one_missing_path_is_an_error_and_no_archive(task: TaskFiles) -> None:
    fill(task)

    answer = task.zip("z", "results/nothing.txt")

    assert (answer.status_code, code_of(answer)) == (404, "file_not_found")
    assert "results/nothing.txt" in answer.json()["detail"]
    assert code_of(task.zip("z", "../x")) == "invalid_path"
    assert code_of(task.zip("z", "")) == "invalid_path"


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"1", b'{"paths": "x"}', b'{"paths": [1]}', b'{"paths": [null]}', b'{"paths": ["\\ud800"]}', b"\xff"],
)
def test_wrong_body_is_refused(task: TaskFiles, body: bytes) -> None:
    answer = task.request("POST", "download", data=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == 422
    assert code_of(answer) in {"validation_error", "invalid_path"}


def test_too_many_paths_are_refused(task: TaskFiles) -> None:
    assert code_of(task.zip(*["x"] * 10_001)) == "too_many_files"


def test_zip_keeps_modes_and_times_but_no_set_id_bits(task: TaskFiles) -> None:
    task.put("run.sh", b"#!/bin/sh")
    (task.folder / "run.sh").chmod(0o4755)
    os.utime(task.folder / "run.sh", (1_700_000_000, 1_700_000_000))
    task.put("old", b"")
    os.utime(task.folder / "old", (0, 0))
    task.put("far", b"")
    os.utime(task.folder / "far", (2**33, 2**33))

    with zipfile.ZipFile(io.BytesIO(task.zip().content)) as archive:
        mode = archive.getinfo("run.sh").external_attr >> 16

        assert (stat.S_ISREG(mode), stat.S_IMODE(mode)) == (True, 0o755)
        assert archive.getinfo("run.sh").date_time == (2023, 11, 14, 22, 13, 20)
        assert archive.getinfo("old").date_time[0] == 1980
        assert archive.getinfo("far").date_time[0] <= 2107


def test_names_can_not_climb_out_on_any_system(task: TaskFiles) -> None:
    for raw in (b"..\\..\\evil", b"C:evil", b"a\nb", b"caf\xe9", b"caf\xea", "中文 é.txt".encode(), b"a_b"):
        with open(os.fsencode(task.folder) + b"/" + raw, "w"):
            pass

    names = list(task.unzip())

    assert sorted(names) == sorted([".._.._evil", "C_evil", "a_b", "a_b (2)", "caf_", "caf_ (2)", "中文 é.txt"])


def test_what_is_in_a_folder_goes_by_the_name_the_folder_was_given(task: TaskFiles) -> None:
    """Else `a_` would be a file and a folder, which no program can unpack."""
    (task.folder / "a\n").write_bytes(b"file")
    (task.folder / "a_" / "b\n").mkdir(parents=True)
    (task.folder / "a_" / "b\n" / "c").write_bytes(b"inside")

    assert task.unzip() == {"a_": b"file", "a_ (2)/": b"", "a_ (2)/b_/": b"", "a_ (2)/b_/c": b"inside"}


def test_archive_is_the_same_each_time(task: TaskFiles) -> None:
    fill(task)

    assert task.zip().content == task.zip().content


@pytest.mark.parametrize("name", ["text.txt", "packed.png", "noise.bin"])
def test_content_of_any_kind_survives(task: TaskFiles, name: str) -> None:
    content = b"line of text\n" * 100_000 if name == "text.txt" else os.urandom(700_000)
    task.put(name, content)

    answer = task.zip()

    assert entries(answer.content) == {name: content}
    assert (len(answer.content) < len(content) / 10) == (name == "text.txt")


def test_files_are_packed_at_level_1_or_left_as_they_are(work_dir: WorkDir) -> None:
    """Level 6 would cost five times as much; what is called a picture is not even tried."""
    content = b"".join(b"%d lines of text\n" % number for number in range(20_000))
    (work_dir.path / "a.txt").write_bytes(content)
    (work_dir.path / "a.png").write_bytes(content)

    with zipfile.ZipFile(io.BytesIO(drain(ZipPieces(work_dir.walk())))) as archive:
        sizes = {info.filename: info.compress_size for info in archive.infolist()}

    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    assert sizes["a.txt"] == len(packer.compress(content) + packer.flush())
    assert sizes["a.png"] >= len(content)


def test_other_programs_can_read_it(task: TaskFiles, tmp_path: Path) -> None:
    fill(task)
    (tmp_path / "x.zip").write_bytes(task.zip().content)

    tested = subprocess.run(
        [*(["unzip", "-t"] if shutil.which("unzip") else (sys.executable, "-m", "zipfile", "-t")), "x.zip"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert tested.returncode == 0, tested.stdout + tested.stderr


def drain(pieces: ZipPieces) -> bytes:
    collected = b""
    while (piece := pieces.next()) is not None:
        collected += piece
    pieces.close()
    return collected


@pytest.fixture
def work_dir(tmp_path: Path) -> WorkDir:
    (tmp_path / "work").mkdir()
    return WorkDir(tmp_path / "work", owner=None)


def test_archive_of_large_files_uses_the_64_bit_form(work_dir: WorkDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real 4 GiB file takes too long here; the standard library's limit is lowered instead."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 100_000)
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 3)
    contents = {f"f{number}": os.urandom(size) for number, size in enumerate((10, 200_000, 99_000, 10, 10))}
    for name, content in contents.items():
        (work_dir.path / name).write_bytes(content)

    archive = drain(ZipPieces(work_dir.walk()))

    assert entries(archive) == contents
    assert b"PK\x06\x06" in archive  # the 64-bit end record


def test_a_walk_among_what_is_left_out_pauses(work_dir: WorkDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else one archive of many such names would hold a thread for seconds."""
    monkeypatch.setattr(listing, "STEP_NAMES", 10)
    for number in range(100):
        os.mkfifo(work_dir.path / f"fifo{number:03}")
    (work_dir.path / "last").write_text("x")
    pieces = ZipPieces(work_dir.walk())

    pauses = 0
    while (piece := pieces.next()) == b"":
        pauses += 1
    assert piece is not None

    assert pauses >= 10
    assert entries(piece + drain(pieces)) == {"last": b"x"}


def test_too_many_entries_cut_the_archive(work_dir: WorkDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "WALK_ENTRIES", 5)
    monkeypatch.setattr(zipstream, "PIECE_BYTES", 1)
    for number in range(6):
        (work_dir.path / f"f{number}").touch()
    pieces = ZipPieces(work_dir.walk())

    with pytest.raises(Exception, match="more than 5 files"):
        drain(pieces)
    pieces.close()


def test_archive_is_made_no_faster_than_it_is_taken(files_server: FilesServer, task: TaskFiles) -> None:
    """A client that reads nothing keeps the server at the first file, in bounded memory."""
    for number in range(4):
        (task.folder / f"f{number}").write_bytes(os.urandom(12 << 20))

    with task.session.post(f"{task.url}/download", stream=True, timeout=30) as answer:
        assert answer.raw.read(4) == b"PK\x03\x04"
        assert [path for path in files_server.open_descriptors() if path.endswith("/f3")] == []
        answer.raw.read()

    wait_until(lambda: not files_server.open_descriptors(), what="closed files")


def test_thousands_of_names_that_become_one_are_numbered_at_once() -> None:
    """By a count of comparisons, not by the clock: each name may be tried against few that were given."""
    names, tries = zipstream._Names(), 0

    class Counted(set[str]):
        def __contains__(self, name: object) -> bool:
            nonlocal tries
            tries += 1
            return super().__contains__(name)

    names._given = Counted()
    controls = [chr(code) for code in range(1, 32)]
    given = [names.give(f"a{first}{second}", is_folder=False) for first in controls for second in controls]

    assert len(set(given)) == len(given) == 961
    assert given[:3] == ["a__", "a__ (2)", "a__ (3)"]
    assert tries < 3 * len(given)
