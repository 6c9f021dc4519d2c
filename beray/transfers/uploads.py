"""Files to a task's work_dir: sent piece by piece, hashed while they are sent, proven by the server's answer.

A body's `__iter__` blocks and is what an HTTP library without an event loop takes. One with an event loop calls
`restart` and `next_piece` in a thread and `report` on the loop, which is all that `__iter__` does.
"""

import hashlib
import io
import mimetypes
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO, Final, cast

from beray.exceptions import NetworkError, UploadDamaged
from beray.protocol import calls, flows
from beray.protocol.effects import Conditions, Do, Flow
from beray.protocol.responses import value_of
from beray.protocol.types import UploadAnswer

UPLOAD_CHUNK_BYTES: Final = 256 * 1024
"""A body is handed to the socket in pieces of this size, since one `sendall` must end within the connect timeout."""

Progress = Callable[[int, int | None], object]
"""Called with the bytes that are done and those that there are in all (None: not known). It is called for each piece,
by whoever transfers, so it must be quick; what it raises ends the transfer."""

Content = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO

_HEX_SHA256: Final = 64


class UploadBody:
    """A body that is read while it is sent.

    Args:
        source: Opened for reading bytes; read from where it stands now.
        progress: Told of each piece once the next one is asked for.
        name: What errors call it.

    Attributes:
        size: Its bytes, where they are known before.
        failure: What went wrong with the source itself, whatever the HTTP library made of it.
        deadline: When `__iter__` gives up, by `time.monotonic`.
    """

    size: int | None = None
    deadline: float | None = None

    def __init__(self, source: BinaryIO, *, progress: Progress | None = None, name: str = "") -> None:
        self._source = source
        self._read = getattr(source, "read1", source.read)  # of a pipe what is there, without waiting for a full piece
        self._progress = progress
        self._name = name or str(getattr(source, "name", "content"))
        self._sent = 0
        self._hash = hashlib.sha256()
        self.failure: Exception | None = None

    def __iter__(self) -> Iterator[bytes]:
        self.restart()
        while piece := self.next_piece():
            yield piece
            self.report()
            if self.deadline is not None and monotonic() >= self.deadline:
                raise TimeoutError("the deadline has passed")

    @property
    def sha256(self) -> str:
        """Hex digest of what has been read since the last `restart`."""
        return self._hash.hexdigest()

    def restart(self) -> None:
        """Begin at the start. Blocking."""
        self._sent = 0
        self._hash = hashlib.sha256()

    def next_piece(self) -> bytes:
        """The next bytes, none at the end. Blocking.

        Raises:
            UploadDamaged: The source can't be read.
        """
        try:
            piece = self._read(self._wanted())
        except OSError as error:
            raise self._failed(f"{self._name} could not be read: {error}", error) from error
        if not isinstance(piece, bytes | bytearray):
            raise self._failed(f"{self._name} does not give bytes; open it in binary mode, blocking", None)
        self._hash.update(piece)
        self._sent += len(piece)
        return bytes(piece)

    def report(self) -> None:
        """Tell the progress. An OSError of the callback would be taken for one of the network, so it is wrapped.

        Raises:
            UploadDamaged: The callback raised an OSError, such as that of a closed terminal.
        """
        if self._progress is None:
            return
        try:
            self._progress(self._sent, self.size)
        except OSError as error:
            raise self._failed(f"the progress of {self._name} could not be told: {error}", error) from error

    def _wanted(self) -> int:
        return UPLOAD_CHUNK_BYTES

    def _failed(self, message: str, cause: Exception | None) -> UploadDamaged:
        self.failure = UploadDamaged(message)
        self.failure.__cause__ = cause
        return self.failure


class SeekableBody(UploadBody):
    """A body of a known size that can be sent again: from its start each time it is gone through."""

    size: int

    def __init__(self, source: BinaryIO, *, progress: Progress | None = None, name: str = "") -> None:
        super().__init__(source, progress=progress, name=name)
        self._start = source.tell()
        self.size = source.seek(0, os.SEEK_END) - self._start

    def __len__(self) -> int:
        return self.size

    def restart(self) -> None:
        """Go back to where the source stood. Blocking."""
        super().restart()
        self._source.seek(self._start)

    def next_piece(self) -> bytes:
        """The next bytes; never more in all than the file had when this body was made."""
        piece = super().next_piece()
        if not piece and self._sent < self.size:
            raise self._failed(f"{self._name} became shorter while it was sent; send it again", None)
        return piece

    def _wanted(self) -> int:
        return min(UPLOAD_CHUNK_BYTES, self.size - self._sent)


def upload_file(
    task_id: int,
    path: str,
    content: Content,
    conditions: Conditions,
    *,
    content_type: str | None = None,
    progress: Progress | None = None,
) -> Flow[UploadAnswer]:
    """Write a file of the work_dir (`BeRayClient.upload_file`)."""
    kind = _content_type(path, content) if content_type is None else content_type
    if isinstance(content, str):
        content = content.encode("utf-8")
    if isinstance(content, bytes | bytearray | memoryview):
        data = bytes(content)
        if len(data) > UPLOAD_CHUNK_BYTES:
            body = SeekableBody(io.BytesIO(data), progress=progress)
            return (yield from _upload(task_id, path, body, conditions, content_type=kind))
        return (yield from _upload_at_once(task_id, path, data, conditions, content_type=kind, progress=progress))
    if isinstance(content, os.PathLike):
        source = yield Do(partial(Path(content).open, "rb"))
        try:
            body = yield Do(partial(_body_of, source, progress))
            return (yield from _upload(task_id, path, body, conditions, content_type=kind))
        finally:
            source.close()
    if not _is_binary_file(content):
        raise TypeError(
            "content must be bytes, str, a path or a file opened for reading bytes; "
            f"got {type(content).__name__}, which is none of them"
        )
    body = yield Do(partial(_body_of, content, progress))
    return (yield from _upload(task_id, path, body, conditions, content_type=kind))


def _upload_at_once(
    task_id: int, path: str, data: bytes, conditions: Conditions, *, content_type: str, progress: Progress | None
) -> Flow[UploadAnswer]:
    """Send what is small as it is."""
    call = calls.upload_file(task_id, path, data, content_type=content_type)
    answer = value_of((yield from flows.request(call, conditions)))
    _check(answer, hashlib.sha256(data).hexdigest(), path)
    if progress is not None:
        progress(len(data), len(data))
    return cast(UploadAnswer, answer)


def _upload(
    task_id: int, path: str, body: UploadBody, conditions: Conditions, *, content_type: str
) -> Flow[UploadAnswer]:
    is_repeatable = isinstance(body, SeekableBody)
    call = calls.upload_file(task_id, path, body, content_type=content_type, is_repeatable=is_repeatable)
    try:
        answer = value_of((yield from flows.request(call, conditions)))
    except NetworkError:
        if body.failure is not None:  # the connection was cut by us
            raise body.failure from body.failure.__cause__
        raise
    _check(answer, body.sha256, path)
    if body.size in (0, None):
        body.report()  # no piece has told that this is the end
    return cast(UploadAnswer, answer)


def _check(answer: Any, sha256: str, path: str) -> None:
    """Compare what the server says it has; one that says nothing is believed."""
    stored = answer.get("sha256") if isinstance(answer, dict) else None
    if isinstance(stored, str) and len(stored) == _HEX_SHA256 and stored.lower() != sha256:
        raise UploadDamaged(
            f"{path} was damaged on its way: its SHA-256 is {sha256} here and {stored} on the server. Upload it again."
        )


def _body_of(source: BinaryIO, progress: Progress | None) -> UploadBody:
    if _is_seekable(source):
        return SeekableBody(source, progress=progress)
    return UploadBody(source, progress=progress)


def _is_seekable(source: Any) -> bool:
    return hasattr(source, "seekable") and bool(source.seekable())


def _is_binary_file(content: Any) -> bool:
    return hasattr(content, "read") and not hasattr(content, "encoding")  # isinstance misses tempfile's wrappers


def _content_type(path: str, content: object) -> str:
    guessed, _ = mimetypes.guess_type(path)
    if guessed is not None:
        return guessed
    return "text/plain; charset=utf-8" if isinstance(content, str) else "application/octet-stream"
