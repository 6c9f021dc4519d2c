"""A command's output on its way to three readers: people (live, capped), the model (head and tail), the log (whole)."""

import codecs
import logging
from collections import deque
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import IO, Final

from beray.server.events.log import NewEvent
from beray.server.sandbox.base import StreamName
from beray.server.work_dirs.outputs import cut_name, log_name

MODEL_BYTES: Final = 16_000
HEAD_BYTES: Final = MODEL_BYTES // 4  # errors come at the end, hence the larger tail
SHOWN_BYTES: Final = 1 << 20  # a call's output people are shown live; the rest is in the log
EVENT_CHARACTERS: Final = 8 * 1024  # one event stays small enough for a proxy's usual buffer
LOG_BYTES: Final = 16 << 20  # a log is for people, and the disk is everybody's

_CONTINUATION: Final = bytes(range(0x80, 0xC0))  # the further bytes of a UTF-8 character

log = logging.getLogger("beray.agent")


class HeadAndTail:
    """The beginning and the end of a text of any length, in bounded memory."""

    def __init__(self, *, head_bytes: int = HEAD_BYTES, most_bytes: int = MODEL_BYTES) -> None:
        self._head_bytes = head_bytes
        self._tail_bytes = most_bytes - head_bytes
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self.size = 0

    def add(self, piece: bytes) -> None:
        """Append `piece`."""
        self.size += len(piece)
        room = self._head_bytes - len(self._head)
        if room > 0:
            self._head += piece[:room]
            piece = piece[room:]
        if piece:
            self._tail.append(piece)
            self._tail_size += len(piece)
        while self._tail and self._tail_size - len(self._tail[0]) >= self._tail_bytes:
            self._tail_size -= len(self._tail.popleft())

    @property
    def is_cut(self) -> bool:
        """Whether something is missing from `text`."""
        return self.size > self._head_bytes + self._tail_bytes

    def text(self, remedy: str = "use head, tail or grep to see them") -> str:
        """Head and tail, with a marker between them, which tells the remedy, if something is missing."""
        tail = b"".join(self._tail)[-self._tail_bytes :] if self._tail else b""
        omitted = self.size - len(self._head) - len(tail)
        if omitted == 0:
            return (bytes(self._head) + tail).decode("utf-8", "replace")
        whole_head, whole_tail = _without_begun(bytes(self._head)), _without_ended(tail)
        omitted += len(self._head) - len(whole_head) + len(tail) - len(whole_tail)
        head_text, tail_text = whole_head.decode("utf-8", "replace"), whole_tail.decode("utf-8", "replace")
        return f"{head_text}\n[… {omitted} bytes left out here; {remedy} …]\n{tail_text}"


def _without_begun(head: bytes) -> bytes:
    """`head` without the character that its cut left begun."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(head)
    begun, _ = decoder.getstate()
    return head[: len(head) - len(begun)]


def _without_ended(tail: bytes) -> bytes:
    """`tail` without the further bytes of a character that its cut left without a beginning."""
    return tail[:3].lstrip(_CONTINUATION) + tail[3:]


class LiveOutput:
    """Turns pieces of one call's output into `tool.output` events, up to the cap.

    Bytes are decoded per stream and incrementally, for a chunk may end inside a character; control bytes stay data.
    """

    def __init__(self, call_id: str) -> None:
        self._call_id = call_id
        self._decoders = {name: codecs.getincrementaldecoder("utf-8")("replace") for name in ("stdout", "stderr")}
        self._shown = 0
        self.truncated = False

    def decode(self, stream: StreamName, piece: bytes, *, is_last: bool = False) -> str:
        """The text of `piece` that may still be shown."""
        if self.truncated:
            return ""
        room = SHOWN_BYTES - self._shown
        self._shown += len(piece)
        self.truncated = len(piece) > room
        return self._decoders[stream].decode(piece[:room], is_last)

    def events(self, group: list[tuple[StreamName, str]]) -> list[NewEvent]:
        """The events for pieces of text, none larger than EVENT_CHARACTERS."""
        return [
            self._event(stream, text[start : start + EVENT_CHARACTERS])
            for stream, text in group
            for start in range(0, len(text), EVENT_CHARACTERS)
        ]

    def cut_event(self) -> NewEvent:
        """Says that what follows is not shown."""
        return self._event("stdout", "", truncated=True)

    def _event(self, stream: StreamName, delta: str, *, truncated: bool = False) -> NewEvent:
        return NewEvent(
            "tool.output", {"call_id": self._call_id, "stream": stream, "delta": delta, "truncated": truncated}
        )


class OutputLog:
    """The whole output of a call as a file, made at the first byte; `close` when done.

    Pieces are put in as they come. They are written by `flush`, which blocks and may be called from several threads:
    whoever waits for one may be cancelled, and the thread goes on.
    """

    def __init__(self, folder: str, call_id: str) -> None:
        self._path = Path(folder) / log_name(call_id)
        self._cut_path = Path(folder) / cut_name(call_id)
        self._file: IO[bytes] | None = None
        self._room = LOG_BYTES
        self._waiting: deque[bytes] = deque()
        self._writing = Lock()
        self.is_full = False
        """Nothing more is kept."""

    def put(self, piece: bytes) -> None:
        """Add what was printed."""
        if not self.is_full:
            self._waiting.append(piece)

    def write(self, piece: bytes) -> None:
        """Add what was printed, and write it."""
        self.put(piece)
        self.flush()

    def flush(self) -> None:
        """Write what waits, up to LOG_BYTES. What the disk doesn't take is left out: no command fails for its log."""
        with self._writing:
            self._write_waiting()

    def _write_waiting(self) -> None:
        pieces = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if self.is_full or not pieces:
            return
        try:
            self._append(pieces)
        except OSError as error:
            log.warning("the output of a call is not kept whole", extra={"path": str(self._path), "why": str(error)})
            self._cut()

    def _append(self, pieces: list[bytes]) -> None:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("wb")
        for piece in pieces:
            self._file.write(piece[: self._room])
            if len(piece) > self._room:
                self._cut()
                break
            self._room -= len(piece)
        self._file.flush()

    def _cut(self) -> None:
        """Keep nothing more, and leave a mark that says so to whoever reads it."""
        self.is_full = True
        with suppress(OSError):  # of a full disk, too
            self._cut_path.touch()

    def close(self) -> None:
        """Write what waits, and close the file, if there is one. Blocks, also while another thread still writes."""
        with self._writing:
            self._write_waiting()
            self.is_full = True
            if self._file is not None:
                with suppress(OSError):  # what could not be written is tried once more, and was told
                    self._file.close()
