"""Watches the streams of tasks, over crashes of the server too, and remembers every frame that anybody saw."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import requests

STALLED_SECONDS = 60.0


class Witness:
    """One user's watchers: a stream and a thread for each task."""

    def __init__(self) -> None:
        self.frames: dict[tuple[int, int], bytes] = {}
        """What was seen, by task and `seq`."""
        self.ended: set[int] = set()
        """Tasks whose `task.finished` was seen."""
        self.faults: list[str] = []
        self.repeated = 0
        """How many of them were seen again."""
        self._last: dict[int, int] = {}
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []

    @property
    def count(self) -> int:
        """Different events seen."""
        return len(self.frames)

    def watch(self, url: str, token: str, task_id: int, *, from_start: bool = False) -> None:
        """Watch the task in a thread until its stream ends or breaks off; after the last event seen, or all again."""
        after = 0 if from_start else self._last.get(task_id, 0)
        thread = threading.Thread(target=self._watch, args=(url, token, task_id, after), daemon=True)
        self._threads.append(thread)
        thread.start()

    def join(self) -> None:
        """Wait for the end of all streams."""
        for thread in self._threads:
            thread.join(STALLED_SECONDS)
            assert not thread.is_alive(), "a stream did not end"
        self._threads.clear()

    def wait_for(self, look: Callable[[], bool], *, what: str) -> None:
        """Wait for something that events or `note` bring about."""
        with self._changed:
            assert self._changed.wait_for(look, STALLED_SECONDS), f"waited in vain for {what}; {self.count} events seen"

    def note(self) -> None:
        """Have who waits look again."""
        with self._changed:
            self._changed.notify_all()

    def _watch(self, url: str, token: str, task_id: int, after: int) -> None:
        try:
            for frame in read_frames(url, token, task_id, after=after):
                after += 1
                self._see(task_id, after, frame)
        except requests.RequestException:
            pass  # the server was killed

    def _see(self, task_id: int, expected: int, frame: bytes) -> None:
        seq = seq_of(frame)
        with self._changed:
            if seq != expected:
                self.faults.append(f"task {task_id}: {seq} came where {expected} was due")
            seen_before = (task_id, seq) in self.frames
            if self.frames.setdefault((task_id, seq), frame) != frame:
                self.faults.append(f"task {task_id}: {seq} is another event: {self.frames[task_id, seq]!r}, {frame!r}")
            self._last[task_id] = max(seq, self._last.get(task_id, 0))
            if b"\nevent: task.finished\n" in frame:
                self.ended.add(task_id)
            self.repeated += seen_before
            self._changed.notify_all()


def read_frames(url: str, token: str, task_id: int, *, after: int = 0) -> Iterator[bytes]:
    """The bytes of each event of the task's stream, until it ends.

    Raises:
        requests.RequestException: It broke off.
    """
    headers = {"Authorization": f"Bearer {token}", "Last-Event-ID": str(after)}
    with requests.get(
        f"{url}/api/v1/tasks/{task_id}/stream", headers=headers, stream=True, timeout=STALLED_SECONDS
    ) as answer:
        answer.raise_for_status()
        rest = b""
        for chunk in answer.iter_content(None):
            *frames, rest = (rest + chunk).split(b"\n\n")
            yield from (frame for frame in frames if frame.startswith(b"id: "))


def seq_of(frame: bytes) -> int:
    return int(frame[4 : frame.index(b"\n")])


def event_of(frame: bytes) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(frame[frame.index(b"\ndata: ") + 7 :])
    return event
