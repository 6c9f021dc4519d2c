"""What a folder takes on the disk."""

import os
import stat
from pathlib import Path

from beray.server.work_dirs.usage import measure
from beray.server.work_dirs.work_dir import WorkDir

KIB = 1024


def test_every_file_counts_with_what_it_takes_on_the_disk(tmp_path: Path) -> None:
    empty = measure(tmp_path)
    (tmp_path / "a").write_bytes(b"x" * 100 * KIB)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b").write_bytes(b"x" * 50 * KIB)
    (tmp_path / "hole").touch()
    os.truncate(tmp_path / "hole", 1 << 40)

    assert 150 * KIB <= measure(tmp_path) - empty < 200 * KIB


def test_file_of_two_names_counts_once_and_links_lead_nowhere(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "big").write_bytes(b"x" * 1000 * KIB)
    (inside / "one").write_bytes(b"x" * 100 * KIB)
    os.link(inside / "one", inside / "two")
    (inside / "link").symlink_to(outside / "big")
    (inside / "folder").symlink_to(outside)
    os.mkfifo(inside / "fifo")

    assert 100 * KIB <= measure(inside) < 150 * KIB


def test_depth_hides_nothing(tmp_path: Path) -> None:
    """Deeper than any path can name."""
    top = os.open(tmp_path, os.O_RDONLY)
    here = os.dup(top)
    for _ in range(1500):
        os.mkdir("deeper", dir_fd=here)
        below = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    file = os.open("treasure", os.O_WRONLY | os.O_CREAT, dir_fd=here)
    os.write(file, b"x" * 1000 * KIB)
    for descriptor in (file, here, top):
        os.close(descriptor)

    assert measure(tmp_path) >= 1000 * KIB

    work_dir = WorkDir(tmp_path, owner=None)
    work_dir.remove("deeper")  # pytest cleans up by recursion


def test_folders_closed_by_a_slip_of_chmod_hide_nothing(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "inner"
    unsearched = tmp_path / "unsearched"
    for folder in (inner, unsearched):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(b"x" * 1000 * KIB)
    modes = {inner: 0, inner.parent: 0o311, unsearched: 0o644}
    for folder, mode in modes.items():
        folder.chmod(mode)

    assert measure(tmp_path) >= 2000 * KIB

    if os.geteuid() != 0:  # root sees into them as they are
        modes = {folder: mode | 0o500 for folder, mode in modes.items()}
    assert {folder: stat.S_IMODE(folder.stat().st_mode) for folder in modes} == modes
    assert len((inner / "file").read_bytes()) == 1000 * KIB


def test_folder_that_is_not_there_takes_nothing(tmp_path: Path) -> None:
    assert measure(tmp_path / "none") == 0
