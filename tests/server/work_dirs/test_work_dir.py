import fcntl
import hashlib
import multiprocessing
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from beray.server.errors import Refused
from beray.server.work_dirs import upload as upload_module
from beray.server.work_dirs.work_dir import WorkDir, WorkDirs
from tests.support.small_disk import SmallDisk

UID = 61234


def refusal_of(work: Callable[[], object]) -> str:
    with pytest.raises(Refused) as refused:
        work()
    return refused.value.code


def test_written_file_is_read_back(work_dir: WorkDir) -> None:
    written = work_dir.write_bytes("a/b/c.txt", b"hello")

    assert (written.path, written.size, written.is_new) == ("a/b/c.txt", 5, True)
    assert written.sha256 == hashlib.sha256(b"hello").hexdigest()
    assert work_dir.read_bytes("a/b/c.txt") == b"hello"
    assert work_dir.read_bytes("a/b/c.txt", offset=1, limit=3) == b"ell"
    assert work_dir.read_bytes("a/b/c.txt", offset=9) == b""
    with work_dir.open_file("./a//b/c.txt") as file:
        assert (file.size, file.etag) == (5, written.etag)


def test_another_content_has_another_etag(work_dir: WorkDir) -> None:
    first = work_dir.write_bytes("x", b"1")

    second = work_dir.write_bytes("x", b"2")

    assert (first.is_new, second.is_new) == (True, False)
    assert first.etag != second.etag


def test_replaced_file_keeps_its_permissions_but_no_set_id_bits(work_dir: WorkDir) -> None:
    work_dir.write_bytes("run.sh", b"1")
    (work_dir.path / "run.sh").chmod(0o4755)

    work_dir.write_bytes("run.sh", b"2")

    assert stat.S_IMODE((work_dir.path / "run.sh").stat().st_mode) == 0o755


def test_link_that_stays_inside_is_followed_for_reading(work_dir: WorkDir) -> None:
    work_dir.write_bytes("real/data.txt", b"data")
    (work_dir.path / "folder").symlink_to("real")
    (work_dir.path / "real" / "again").symlink_to("../folder/./data.txt")
    (work_dir.path / "loop").symlink_to("loop")

    assert work_dir.read_bytes("folder/data.txt") == b"data"
    assert work_dir.read_bytes("folder/again") == b"data"
    assert refusal_of(lambda: work_dir.read_bytes("loop")) == "invalid_path"


def test_removing_a_link_leaves_its_target(work_dir: WorkDir, outside: Path) -> None:
    (work_dir.path / "file").symlink_to(outside)
    (work_dir.path / "folder").symlink_to(outside.parent)

    work_dir.remove("file")
    work_dir.remove("folder/")

    assert list(work_dir.path.iterdir()) == []
    assert outside.read_text() == "SECRET"


def test_paths_through_a_file_are_refused(work_dir: WorkDir) -> None:
    work_dir.write_bytes("file", b"x")

    assert refusal_of(lambda: work_dir.read_bytes("file/x")) == "file_not_found"
    assert refusal_of(lambda: work_dir.write_bytes("file/x", b"")) == "not_a_directory"
    assert refusal_of(lambda: work_dir.tree("file")) == "not_a_directory"
    assert refusal_of(lambda: work_dir.remove("file/x")) == "file_not_found"


def test_folder_is_not_overwritten_and_the_work_dir_not_removed(work_dir: WorkDir) -> None:
    work_dir.write_bytes("folder/file", b"x")

    assert refusal_of(lambda: work_dir.write_bytes("folder", b"")) == "path_is_directory"
    assert refusal_of(lambda: work_dir.write_bytes(".", b"")) == "invalid_path"
    assert refusal_of(lambda: work_dir.remove(".")) == "invalid_path"
    assert work_dir.read_bytes("folder/file") == b"x"


@pytest.mark.needs("root")
def test_what_a_root_server_writes_belongs_to_the_task(work_dirs: WorkDirs) -> None:
    work_dir = work_dirs.create(2, owner=UID)

    work_dir.write_bytes("a/b/c.txt", b"x")

    for path in (".", "a", "a/b", "a/b/c.txt"):
        status = (work_dir.path / path).stat()
        assert (status.st_uid, status.st_gid) == (UID, UID)
    assert stat.S_IMODE(work_dir.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(work_dir.path.parent.stat().st_mode) == 0o711
    assert stat.S_IMODE(work_dirs.root.stat().st_mode) == 0o711
    output = work_dirs.output_dir(2).stat()
    assert (output.st_uid, stat.S_IMODE(output.st_mode)) == (0, 0o700)


def test_layout_does_not_depend_on_the_umask(work_dirs: WorkDirs) -> None:
    previous = os.umask(0o077)
    try:
        work_dir = work_dirs.create(1, owner=None)
        work_dir.write_bytes("file", b"")
    finally:
        os.umask(previous)

    modes = [stat.S_IMODE(path.stat().st_mode) for path in (work_dirs.root, work_dir.path.parent, work_dir.path)]
    assert modes == [0o711, 0o711, 0o700]
    assert stat.S_IMODE((work_dir.path / "file").stat().st_mode) == 0o644


def test_upload_is_unseen_until_it_is_committed(work_dir: WorkDir) -> None:
    work_dir.write_bytes("x", b"old")

    with work_dir.begin_write("x", limit_bytes=10) as upload, work_dir.begin_write("new/y", limit_bytes=10):
        upload.write(b"ne")
        upload.write(b"w")
        assert work_dir.read_bytes("x") == b"old"
        assert [node["path"] for node in work_dir.tree()] == ["x"]
        upload.commit()

    assert work_dir.read_bytes("x") == b"new"
    assert os.listdir(work_dir.path) == ["x"]


def test_upload_goes_on_where_the_kernel_wrote_a_part(work_dir: WorkDir, monkeypatch: pytest.MonkeyPatch) -> None:
    def writev(descriptor: int, buffers: Sequence[bytes]) -> int:
        return os.write(descriptor, b"".join(buffers)[:3])

    monkeypatch.setattr(upload_module.os, "writev", writev)

    with work_dir.begin_write("x", limit_bytes=100) as upload:
        upload.write(b"abcd", bytearray(b"e"), b"", b"fghijkl")
        upload.write()
        upload.commit()

    assert work_dir.read_bytes("x") == b"abcdefghijkl"


@contextmanager
def without_nameless_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a file system that has no O_TMPFILE (9p, NFS)."""
    with monkeypatch.context() as patch:
        patch.setattr(upload_module.os, "O_TMPFILE", os.O_WRONLY | os.O_DIRECTORY)
        yield


def test_upload_works_where_there_are_no_nameless_files(work_dir: WorkDir, monkeypatch: pytest.MonkeyPatch) -> None:
    with without_nameless_files(monkeypatch):
        first = work_dir.write_bytes("a/x", b"1")
        second = work_dir.write_bytes("a/x", b"2")
        with work_dir.begin_write("a/x", limit_bytes=10) as upload:
            upload.write(b"3")
            assert len(os.listdir(work_dir.path)) == 2  # the temporary file is there, but shown nowhere
            assert [node["path"] for node in work_dir.tree()] == ["a"]
            assert list(work_dir.snapshot()) == ["a/x"]
            assert [entry.path for entry in work_dir.walk()] == ["a", "a/x"]

    assert (first.is_new, second.is_new) == (True, False)
    assert work_dir.read_bytes("a/x") == b"2"
    assert os.listdir(work_dir.path) == ["a"]


def test_upload_over_the_limit_leaves_the_old_content(work_dir: WorkDir) -> None:
    work_dir.write_bytes("x", b"old")

    with work_dir.begin_write("x", limit_bytes=4) as upload:
        upload.write(b"1234")
        assert refusal_of(lambda: upload.write(b"5")) == "upload_too_large"

    assert work_dir.read_bytes("x") == b"old"


def test_condition_is_asked_with_the_etag_that_is_there(work_dir: WorkDir) -> None:
    asked: list[str | None] = []

    def refuse(etag: str | None) -> bool:
        asked.append(etag)
        return False

    first = work_dir.write_bytes("x", b"old")
    for path in ("x", "nothing"):
        with work_dir.begin_write(path, limit_bytes=4) as upload:
            assert refusal_of(lambda upload=upload: upload.commit(refuse)) == "precondition_failed"

    assert asked == [first.etag, None]
    assert work_dir.read_bytes("x") == b"old"


def test_two_writers_with_one_expectation_do_not_both_win(work_dir: WorkDir) -> None:
    """While one commit has checked and not yet renamed, another may not check."""
    start = work_dir.write_bytes("x", b"0").etag
    other_asked = threading.Event()
    seen: list[str | None] = []

    def other_condition(etag: str | None) -> bool:
        seen.append(etag)
        other_asked.set()
        return etag == start

    def other_commit() -> None:
        with suppress(Refused), work_dir.begin_write("x", limit_bytes=9) as upload:
            upload.write(b"other")
            upload.commit(other_condition)

    other = threading.Thread(target=other_commit)

    def first_condition(etag: str | None) -> bool:
        other.start()
        assert not other_asked.wait(0.5)
        return etag == start

    with work_dir.begin_write("x", limit_bytes=9) as upload:
        upload.write(b"first")
        first = upload.commit(first_condition)
    other.join(30)

    assert seen == [first.etag]
    assert work_dir.read_bytes("x") == b"first"


def _fill_a_little_disk(path: Path, outcome: "multiprocessing.Queue[str]") -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    work_dir = WorkDir(path, owner=None)
    try:
        work_dir.write_bytes("x", b"n" * 5000)
    except Refused as refused:
        outcome.put(f"{refused.code} {refused.status_code}")


def test_disk_that_takes_no_more_leaves_the_old_content(work_dir: WorkDir) -> None:
    work_dir.write_bytes("x", b"old")
    context = multiprocessing.get_context("spawn")
    outcome: multiprocessing.Queue[str] = context.Queue()
    child = context.Process(target=_fill_a_little_disk, args=(work_dir.path, outcome))

    child.start()
    said = outcome.get(timeout=60)
    child.join(60)

    assert said == "disk_full 507"
    assert work_dir.read_bytes("x") == b"old"
    assert os.listdir(work_dir.path) == ["x"]


@pytest.mark.needs("tmpfs")
def test_the_last_free_space_is_not_written(service_dir: Path) -> None:
    """A twentieth of a disk as small as this."""
    with SmallDisk(service_dir / "least", size_bytes=20 << 20) as disk:
        work_dir = WorkDir(disk.seen_at, owner=None, min_free_bytes=1 << 30)
        work_dir.write_bytes("most", bytes(16 << 20))
        with work_dir.begin_write("rest", limit_bytes=1 << 30) as upload:
            upload.write(bytes(3200 << 10))

            with pytest.raises(Refused) as refused:
                upload.write(b"x")

        assert refused.value.code == "disk_full"
        assert sorted(os.listdir(disk.seen_at)) == ["most"]
    (service_dir / "least").rmdir()


def test_missing_work_dir_is_no_task(work_dirs: WorkDirs) -> None:
    assert refusal_of(lambda: work_dirs.get(9, owner=None)) == "task_not_found"
    work_dirs.create(9, owner=None).write_bytes("x", b"kept")
    assert work_dirs.create(9, owner=None).read_bytes("x") == b"kept"
    assert work_dirs.get(9, owner=None).read_bytes("x") == b"kept"


def test_work_dir_made_by_several_at_once_is_made_once(work_dirs: WorkDirs) -> None:
    errors: list[OSError] = []

    def make(number: int) -> None:
        try:
            work_dirs.create(3, owner=None).write_bytes(f"f{number}", b"x")
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert errors == []
    assert sorted(work_dirs.get(3, owner=None).snapshot()) == [f"f{number}" for number in range(8)]


def test_work_dir_is_not_made_while_another_process_makes_it(work_dirs: WorkDirs) -> None:
    """A folder renamed over one that is in use would lose what has just been written there."""
    folder = work_dirs.create(3, owner=None).path.parent
    (folder / "work").rmdir()
    made = threading.Event()

    def make() -> None:
        work_dirs.create(3, owner=None)
        made.set()

    thread = threading.Thread(target=make)
    other = os.open(folder, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    thread.start()
    assert not made.wait(0.5)
    (folder / "work").mkdir()
    os.close(other)
    thread.join(30)

    assert sorted(os.listdir(folder)) == ["output", "work"]


def test_work_dir_deleted_meanwhile_is_refused(work_dirs: WorkDirs) -> None:
    work_dir = work_dirs.create(9, owner=None)
    work_dirs.delete(9)

    for work in (
        lambda: work_dir.read_bytes("x"),
        lambda: work_dir.write_bytes("x", b""),
        lambda: work_dir.tree(),
        lambda: work_dir.walk(),
        lambda: work_dir.snapshot(),
    ):
        assert refusal_of(work) == "file_not_found"


@pytest.mark.needs("user")
def test_file_closed_to_the_server_is_refused_with_the_remedy(work_dir: WorkDir) -> None:
    work_dir.write_bytes("x", b"1")
    (work_dir.path / "x").chmod(0)

    assert refusal_of(lambda: work_dir.read_bytes("x")) == "file_not_permitted"
