import os
import subprocess
import sys
from pathlib import Path

import pytest

from beray.server.work_dirs.removal import open_own_folder
from beray.server.work_dirs.work_dir import WorkDir, WorkDirs

DEEP = 1100  # its path is longer than the kernel takes, and deeper than descriptors or recursion go
UID = 61235


def make_deep(folder: Path, levels: int) -> None:
    """Nested folders, each with an unreadable file in it."""
    program = """
import os, sys
os.chdir(sys.argv[1])
for _ in range(int(sys.argv[2])):
    open("file", "w").close(); os.chmod("file", 0)
    os.mkdir("deep"); os.chdir("deep")
"""
    subprocess.run([sys.executable, "-c", program, str(folder), str(levels)], check=True, timeout=60)


def make_hostile(folder: Path, outside: Path) -> None:
    """Everything that makes a removal stumble or reach too far."""
    (folder / "file-link").symlink_to(outside)
    (folder / "folder-link").symlink_to(outside.parent)
    (folder / "up").symlink_to("../../..")
    os.mkfifo(folder / "fifo")
    os.mkdir(os.fsencode(folder) + b"/bad \xff\n name")
    closed = folder / "closed" / "inner"
    closed.mkdir(parents=True)
    (closed / "file").write_text("x")
    closed.chmod(0)
    closed.parent.chmod(0o500)
    make_deep(folder, DEEP)


def test_hostile_work_dir_is_deleted_and_nothing_else(work_dirs: WorkDirs, outside: Path) -> None:
    make_hostile(work_dirs.create(1, owner=None).path, outside)
    other = work_dirs.create(11, owner=None)
    other.write_bytes("x", b"other")

    work_dirs.delete(1)

    assert os.listdir(work_dirs.root) == ["11"]
    assert other.read_bytes("x") == b"other"
    assert outside.read_text() == "SECRET"


def test_hostile_folder_is_removed_by_its_path(work_dir: WorkDir, outside: Path) -> None:
    (work_dir.path / "folder").mkdir()
    make_hostile(work_dir.path / "folder", outside)
    work_dir.write_bytes("kept", b"x")

    work_dir.remove("folder/")

    assert os.listdir(work_dir.path) == ["kept"]
    assert outside.read_text() == "SECRET"


def test_deleting_twice_or_nothing_is_fine(work_dirs: WorkDirs) -> None:
    work_dirs.delete(1)
    work_dirs.create(1, owner=None)
    work_dirs.delete(1)
    work_dirs.delete(1)

    assert os.listdir(work_dirs.root) == []


@pytest.mark.needs("root")
def test_folder_to_be_emptied_is_taken_from_its_owner(work_dir: WorkDir) -> None:
    """So that a command of the task that still runs can't add to it."""
    (work_dir.path / "folder").mkdir()
    os.chown(work_dir.path / "folder", UID, UID)

    parent = os.open(work_dir.path, os.O_RDONLY)
    os.close(open_own_folder(b"folder", parent))
    os.close(parent)

    status = (work_dir.path / "folder").stat()
    assert (status.st_uid, status.st_mode & 0o777) == (0, 0o700)
