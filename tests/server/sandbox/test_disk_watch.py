"""What a supervisor finds when it looks at a task's folders."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from beray.server.sandbox.guard.disk import DiskLimits, DiskWatch
from tests.support.small_disk import SmallDisk

MIB = 1 << 20


def watch(*folders: Path, most: int = 100 * MIB, before: int | None = None, free: int = 0) -> DiskWatch:
    return DiskWatch([str(folder) for folder in folders], DiskLimits(most, before, free))


def is_over(watched: DiskWatch) -> bool:
    """Look until a walk that is due is at its end. Whether one is, free space says: the disk must be the test's."""
    while not watched.is_over():
        if watched.pause_seconds != 0.025:  # no walk is under way
            return False
    return True


@pytest.fixture
def disk(service_dir: Path) -> Iterator[SmallDisk]:
    with SmallDisk(service_dir / "floor", size_bytes=60 * MIB) as disk:
        yield disk
    (service_dir / "floor").rmdir()


def test_both_folders_count_and_a_file_counts_once(tmp_path: Path) -> None:
    for name in ("work", "home"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(bytes(2 * MIB))
    os.link(tmp_path / "work" / "file", tmp_path / "work" / "again")
    os.truncate(tmp_path / "work" / "file", 3 * MIB)  # a hole
    (tmp_path / "work" / "loop").symlink_to("/")

    used = watch(tmp_path / "work", tmp_path / "home").measure()

    assert used is not None
    assert 4 * MIB <= used < 4.2 * MIB


def test_every_name_of_a_file_counts_as_a_block(tmp_path: Path) -> None:
    """Else a task could have any number of them, and every walk would take as long."""
    (tmp_path / "file").touch()
    for number in range(1000):
        os.link(tmp_path / "file", tmp_path / str(number))

    used = watch(tmp_path).measure()

    assert used is not None
    assert used > 1000 * 4096


@pytest.mark.needs("tmpfs")
def test_what_was_there_before_is_no_fault_of_the_command(disk: SmallDisk) -> None:
    (disk.seen_at / "big").write_bytes(bytes(2 * MIB))
    watched = watch(disk.seen_at, most=MIB)

    assert not is_over(watched)
    (disk.seen_at / "more").write_bytes(bytes(17 * MIB))  # the file system has lost enough to look again

    assert is_over(watched)


@pytest.mark.needs("tmpfs")
def test_growth_is_seen_by_the_free_space(disk: SmallDisk) -> None:
    watched = watch(disk.seen_at, most=10 * MIB, before=0)

    assert not is_over(watched)
    (disk.seen_at / "big").write_bytes(bytes(20 * MIB))
    assert is_over(watched)
    (disk.seen_at / "big").unlink()

    used = watched.measure()
    assert used is not None
    assert used < MIB


def test_a_folder_that_hides_its_files_counts_as_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too deep to be opened; one that may not be read is the same to it."""
    monkeypatch.setattr("beray.server.sandbox.guard.disk._DEEPEST", 3)
    (tmp_path / "a/b/c/d/e").mkdir(parents=True)

    used = watch(tmp_path, most=10 * MIB).measure()

    assert used is not None
    assert used > 10 * MIB


def test_a_folder_that_is_gone_holds_nothing(tmp_path: Path) -> None:
    watched = watch(tmp_path / "gone", most=MIB)

    assert not is_over(watched)
    assert watched.measure() == 0


@pytest.mark.needs("tmpfs")
def test_the_last_free_space_is_left_alone(disk: SmallDisk) -> None:
    """Of a disk as small as this, a twentieth. Who takes it is over its limit, not who was there before."""
    idle, work = disk.seen_at / "idle", disk.seen_at / "work"
    idle.mkdir()
    work.mkdir()
    bystander = watch(idle, before=0, free=512 * MIB)
    greedy = watch(work, before=0, free=512 * MIB)

    (work / "half").write_bytes(bytes(30 * MIB))
    assert not is_over(greedy)
    (work / "rest").write_bytes(bytes(28 * MIB))

    assert is_over(greedy)
    assert not is_over(bystander)
