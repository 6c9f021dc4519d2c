"""A command swaps a folder for a link that leads out, as fast as it can, while the server goes through it."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from beray.server.errors import Refused
from beray.server.work_dirs.work_dir import WorkDir

SECONDS = 1.0
LEAST = 30  # how often the attacker must have been met in each of its two states for a race to be proven

FLIP = """
import ctypes, os, sys
folder, outside = sys.argv[1:]
os.chdir(folder)
os.mkdir("real"); open("real/data", "w").write("inside")
os.symlink(outside, "link")
libc = ctypes.CDLL(None)
AT_FDCWD, EXCHANGE = -100, 2
print("ready", flush=True)
while True:  # "real" is in turn the folder and the link out, without a moment in which it is neither
    libc.renameat2(AT_FDCWD, b"real", AT_FDCWD, b"link", EXCHANGE)
"""


@pytest.fixture
def flipping(work_dir: WorkDir, outside: Path) -> Iterator[WorkDir]:
    """`real/data` says "inside", or leads to the secret."""
    (outside.parent / "data").write_text("SECRET")
    with subprocess.Popen(
        [sys.executable, "-c", FLIP, str(work_dir.path), str(outside.parent)], stdout=subprocess.PIPE, text=True
    ) as attacker:
        assert attacker.stdout is not None
        assert attacker.stdout.readline() == "ready\n"
        yield work_dir
        attacker.kill()


def count_reads(read: Callable[[], str], *, is_enough: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    seen: dict[str, int] = {}
    deadline = time.monotonic() + 20 * SECONDS
    end = time.monotonic() + SECONDS
    while time.monotonic() < end or (not is_enough(seen) and time.monotonic() < deadline):
        for _ in range(50):
            content = read()
            seen[content] = seen.get(content, 0) + 1
    return seen


def naive_read(work_dir: WorkDir) -> str:
    """Check the name, then open it: what everybody writes first."""
    path = work_dir.path / "real" / "data"
    try:
        if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(work_dir.path)):
            return "refused"
        return path.read_text()
    except OSError:
        return "refused"


def confined_read(work_dir: WorkDir) -> str:
    try:
        return work_dir.read_bytes("real/data").decode()
    except Refused:
        return "refused"


def test_naive_check_of_names_leaks_here(flipping: WorkDir) -> None:
    """The control: if this does not leak, the test below proves nothing."""
    seen = count_reads(lambda: naive_read(flipping), is_enough=lambda seen: "SECRET" in seen)

    assert seen.get("SECRET", 0) > 0


def test_confined_reads_leak_nothing(flipping: WorkDir) -> None:
    seen = count_reads(
        lambda: confined_read(flipping),
        is_enough=lambda seen: min(seen.get("inside", 0), seen.get("refused", 0)) >= LEAST,
    )

    assert set(seen) == {"inside", "refused"}
    assert min(seen.values()) >= LEAST


def test_confined_writes_removes_and_lists_touch_nothing_outside(flipping: WorkDir, outside: Path) -> None:
    def touch() -> str:
        try:
            flipping.write_bytes("real/planted", b"x")
            nodes = flipping.tree("real")
            assert "secret.txt" not in {node["name"] for node in nodes}
            assert "real/secret.txt" not in [entry.path for entry in flipping.walk(["real"])]
            flipping.remove("real/planted")
        except Refused:
            return "refused"
        return "done"

    seen = count_reads(touch, is_enough=lambda seen: len(seen) == 2)

    assert set(seen) == {"done", "refused"}
    assert sorted(entry.name for entry in outside.parent.iterdir()) == ["data", "secret.txt"]
