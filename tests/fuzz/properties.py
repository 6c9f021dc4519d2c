"""What holds for any input. Hypothesis tries them in `test_fuzz.py`, a fuzzer guided by coverage in `make fuzz`."""

import errno
import io
import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from beray.exceptions import ArchiveRefused, EventTooLarge
from beray.protocol.sse import EventStreamDecoder, ServerSentEvent
from beray.server.errors import Refused
from beray.server.work_dirs.paths import parse_new_path, parse_path, wire_path
from beray.server.work_dirs.work_dir import WorkDir
from beray.unzip import extract_zip_safely

SMALL_EVENT_BYTES = 40
ARCHIVE_BYTES = 1 << 20
ARCHIVE_ENTRIES = 64
SECRET = b"SECRET"

T = TypeVar("T")


def check_event_stream(stream: bytes, cuts: Sequence[int]) -> None:
    """However it is cut, a stream decodes as the standard says; and too large an event is the only error."""
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    chunks = [stream[start:end] for start, end in pairwise(edges)]
    decoder = EventStreamDecoder()

    events = [event for chunk in chunks for event in decoder.feed(chunk)]

    assert events == standard_events(stream)
    small = EventStreamDecoder(max_event_bytes=SMALL_EVENT_BYTES)
    with suppress(EventTooLarge):
        for event in (event for chunk in chunks for event in small.feed(chunk)):
            assert len(event.raw_data) <= SMALL_EVENT_BYTES


def standard_events(stream: bytes) -> list[ServerSentEvent]:
    """The standard's algorithm, as it is written there ("Interpreting an event stream")."""
    *lines, _ = re.split(rb"\r\n|\n|\r", stream.removeprefix(b"\xef\xbb\xbf"))
    events, data, type_, id_ = [], [], b"", b""
    for line in lines:
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if line == b"":
            if data:
                events.append(ServerSentEvent(id_, type_ or b"message", b"\n".join(data)))
            data, type_ = [], b""
        elif field == b"data":
            data.append(value)
        elif field == b"event":
            type_ = value
        elif field == b"id" and b"\0" not in value:
            id_ = value
    return events


def make_hostile_work_dir(folder: Path) -> WorkDir:
    """A work_dir with links out, a FIFO, and names that are no text."""
    (folder / "outside").mkdir()
    (folder / "outside" / "secret").write_bytes(SECRET)
    work = folder / "work"
    (work / "a" / "b").mkdir(parents=True)
    for name in ("f", "a/f", "a/b/f", "é", "..."):
        (work / name).write_bytes(b"inside")
    with open(os.fsencode(work) + b"/\xff", "wb") as file:
        file.write(b"inside")
    for name, goal in (
        ("o", "../outside"),
        ("s", "../outside/secret"),
        ("l", "a/f"),
        ("r", "/"),
        ("c", "c"),
        ("d", "."),
    ):
        (work / name).symlink_to(goal)
    os.mkfifo(work / "p")
    return WorkDir(work, owner=None)


def check_path(path: str, work_dir: WorkDir) -> None:
    """A path leads to something in the work_dir, or is refused by a 4xx; what the system says never comes out raw."""
    parts = _or_refused(lambda: parse_path(path))
    if parts is not None:
        assert all(part not in {b"", b".", b".."} and b"/" not in part and b"\0" not in part for part in parts)
        assert parse_path(wire_path(parts)) == parts
    new = _or_refused(lambda: parse_new_path(path))
    assert new is None or new == parts
    for use in (_read, _list, _zip, _begin_to_write):
        seen = _or_refused(lambda use=use: use(work_dir, path))
        assert seen is None or (parts is not None and SECRET not in seen and b"secret" not in seen)


def _or_refused(call: Callable[[], T]) -> T | None:
    try:
        return call()
    except Refused as refused:
        if not 400 <= refused.status_code < 500:
            raise
        for language in ("zh", "en"):
            refused.detail(language).encode()
        return None


def _read(work_dir: WorkDir, path: str) -> bytes:
    return work_dir.read_bytes(path, limit=100)


def _list(work_dir: WorkDir, path: str) -> bytes:
    return repr(work_dir.tree(path)).encode()


def _zip(work_dir: WorkDir, path: str) -> bytes:
    return b"".join(entry.open().read_at(0, 100) for entry in work_dir.walk([path]) if not entry.is_folder)


def _begin_to_write(work_dir: WorkDir, path: str) -> bytes:
    with work_dir.begin_write(path, limit_bytes=0):
        return b""


def check_archive(archive: bytes, folder: Path) -> None:
    """Unpacking makes plain files and folders in the target, within the bounds, or nothing at all."""
    target = folder / "target"
    try:
        written = extract_zip_safely(io.BytesIO(archive), target, max_bytes=ARCHIVE_BYTES, max_entries=ARCHIVE_ENTRIES)
    except (ArchiveRefused, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG:
            raise
        assert list(folder.iterdir()) == []
        return
    found = list(target.rglob("*"))
    assert list(folder.iterdir()) == [target]
    assert not any(path.is_symlink() for path in found)
    assert sorted(written) == sorted(path for path in found if path.is_file())
    assert sum(path.stat().st_size for path in written) <= ARCHIVE_BYTES
    assert len(found) <= ARCHIVE_ENTRIES
    shutil.rmtree(target)
