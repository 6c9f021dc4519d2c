"""Attack 29: a command swaps a folder, and a file, for links that lead out, while the server is asked for them.

The same loop also reads the way everybody writes it first: check the path, then open it. That it leaks proves the race.
"""

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.server.files.files_server import TaskFiles, entries, run_files_server

SECONDS = 10.0
MOST_SECONDS = 60.0  # on a crowded machine the attacker is met less often
LEAST = 20  # how often each call must have met the attacker in each of its two states
NAIVE_READS = 50  # for each round of calls; they are faster, and seldom leak

SECRET = "SECRET"
OUTSIDE = {"data": SECRET, "planted": "kept", "secret-name": SECRET}

FLIP = """
import ctypes, os, sys
folder, outside = sys.argv[1:]
os.chdir(folder)
os.mkdir("real")
for name in ("real/data", "file"):
    with open(name, "w") as opened:
        opened.write("inside")
os.symlink(outside, "folder-link")
os.symlink(outside + "/data", "file-link")
exchange = ctypes.CDLL(None).renameat2
AT_FDCWD, EXCHANGE = -100, 2
print("ready", flush=True)
while True:  # each name is in turn the real thing and the link out, without a moment in which it is neither
    exchange(AT_FDCWD, b"real", AT_FDCWD, b"folder-link", EXCHANGE)
    exchange(AT_FDCWD, b"file", AT_FDCWD, b"file-link", EXCHANGE)
"""


@contextmanager
def flipping(folder: Path, outside: Path) -> Iterator[None]:
    with subprocess.Popen(
        [sys.executable, "-c", FLIP, str(folder), str(outside)], stdout=subprocess.PIPE, text=True
    ) as attacker:
        try:
            assert attacker.stdout is not None
            assert attacker.stdout.readline() == "ready\n"
            yield
            assert attacker.poll() is None
        finally:
            attacker.kill()


def naive_read(folder: Path, path: str) -> str:
    place = folder / path
    try:
        if not Path(os.path.realpath(place)).is_relative_to(os.path.realpath(folder)):
            return "refused"
        return "LEAK" if place.read_text() == SECRET else "done"
    except OSError:
        return "refused"


def outcome(answer: requests.Response) -> str:
    """`done`, `refused`, or what must not be."""
    if 400 <= answer.status_code < 500:
        return "refused"
    if not answer.ok:
        return f"FAULT {answer.status_code}"
    if answer.headers["content-type"] == "application/zip":
        return _outcome_of_zip(answer.content)
    leaks = SECRET in answer.text or "secret-name" in answer.text
    return "LEAK" if leaks else "done"


def _outcome_of_zip(archive: bytes) -> str:
    """One that met a link has left it out."""
    found = entries(archive)
    if SECRET.encode() in found.values() or any("secret-name" in name for name in found):
        return "LEAK"
    return "done" if "real/data" in found else "refused"


@pytest.mark.timeout(180)
def test_attack_29_swapped_folder_or_file_leaks_nothing(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    for name, content in OUTSIDE.items():
        (outside / name).write_text(content)
    seen: Counter[tuple[str, str]] = Counter()
    with run_files_server(tmp_path / "work_dirs") as server:
        task = server.make_task()
        with flipping(task.folder, outside):
            begun = time.monotonic()
            while not is_enough(seen, time.monotonic() - begun):
                attack(task, seen)

    print(dict(sorted(seen.items())))
    assert {what for _, what in seen if what.startswith("FAULT")} == set()
    assert [call for call, what in seen if what == "LEAK"] == ["naive"]
    assert {path.name: path.read_text() for path in outside.iterdir()} == OUTSIDE
    assert [call for call in calls(seen) if min(seen[call, "done"], seen[call, "refused"]) < LEAST] == []


def attack(task: TaskFiles, seen: Counter[tuple[str, str]]) -> None:
    """Make every call once, and count how each ended."""
    for number in range(NAIVE_READS):
        seen["naive", naive_read(task.folder, ("real/data", "file")[number % 2])] += 1
    answers = {
        "GET in the folder": task.get("real/data"),
        "GET the file": task.get("file"),
        "GET a range": task.get("file", {"Range": "bytes=0-2"}),
        "PUT": task.put("real/planted", b"x"),
        "list": task.tree("real"),
        "ZIP": task.zip(),
        "ZIP of the folder": task.zip("real/data"),
        "DELETE": task.delete("real/planted"),
    }
    for call, answer in answers.items():
        seen[call, outcome(answer)] += 1


def calls(seen: Counter[tuple[str, str]]) -> set[str]:
    return {call for call, _ in seen}


def is_enough(seen: Counter[tuple[str, str]], seconds: float) -> bool:
    if seconds < SECONDS:
        return False
    has_met = all(min(seen[call, "done"], seen[call, "refused"]) >= LEAST for call in calls(seen))
    return seconds > MOST_SECONDS or (has_met and seen["naive", "LEAK"] > 0)
