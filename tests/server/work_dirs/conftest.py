from collections.abc import Iterator
from pathlib import Path

import pytest

from beray.server.work_dirs.work_dir import WorkDir, WorkDirs


@pytest.fixture
def work_dirs(tmp_path: Path) -> WorkDirs:
    return WorkDirs(tmp_path / "tasks")


@pytest.fixture
def work_dir(work_dirs: WorkDirs) -> WorkDir:
    return work_dirs.create(1, owner=None)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file that no path may lead to."""
    secret = tmp_path / "outside" / "secret.txt"
    secret.parent.mkdir()
    secret.write_text("SECRET")
    return secret


@pytest.fixture(autouse=True)
def no_descriptor_is_left_open(tmp_path: Path) -> Iterator[None]:
    """Whatever a test does, nothing below its folder stays open."""
    yield
    assert open_descriptors(tmp_path) == []


def open_descriptors(folder: Path) -> list[str]:
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:  # the one that lists them
            continue
        if target.startswith(str(folder)):
            links.append(target)
    return links
