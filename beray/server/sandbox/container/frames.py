"""What the server and process 1 of a container tell each other over the container's standard input and output.

A frame is one byte of kind, four bytes of length (big-endian) and the content. The server sends `JOB`, any number of
`STDIN`, `INPUT` if the command's descriptor 0 is to be a pipe, `REPORT` if its descriptor 3 is to be read, then
`BEGIN`; after that `ROOM` and `STOP`, and `STDIN` for the pipe, an empty one to close it. Its end of file means that it
is gone. Process 1 sends `OUT` and `ERR`, never more than it was told there is room for but at the end, at most one
`REPORT`, and `TOLD`: the messages of a supervisor (`guard.wire.Message`), the last of which is the last frame: the
server then hangs up, and process 1 ends. Of the pipe it sends `ROOM` for what the command has taken, within the same
window, and an empty `STDIN` when nobody reads it any more.
"""

import struct
from collections.abc import Iterator

JOB, STDIN, INPUT, BEGIN, ROOM, STOP = b"J", b"I", b"P", b"B", b"C", b"K"
OUT, ERR, REPORT, TOLD = b"O", b"E", b"R", b"M"

PIECE_BYTES = 64 * 1024
"""Most that a frame of output, of standard input or of a report holds."""
WINDOW_BYTES = 256 * 1024
"""What of each stream may be on its way; less would make a loud command wait for each answer."""

_HEADER = struct.Struct(">cI")
_ROOM = struct.Struct(">cI")


class BadFrame(Exception):
    """What came is no frame: something else writes to the container's output."""


def frame(kind: bytes, content: bytes = b"") -> bytes:
    """One frame as bytes."""
    return _HEADER.pack(kind, len(content)) + content


def room_frame(stream: bytes, size: int) -> bytes:
    """So many bytes more of this stream (`OUT` or `ERR`; of process 1: `STDIN`) may come."""
    return frame(ROOM, _ROOM.pack(stream, size))


def read_room(content: bytes) -> tuple[bytes, int]:
    """The reverse of `room_frame`'s content."""
    stream, size = _ROOM.unpack(content)
    return stream, size


class FrameReader:
    """Cuts a stream of bytes into frames.

    Args:
        most: Longest content that is taken, bytes.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Kind and content of each frame that is whole by now.

        Raises:
            BadFrame: A frame is longer than any is.
        """
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            kind, size = _HEADER.unpack_from(self._buffer)
            if size > self._most:
                raise BadFrame(f"a frame of {size} bytes")
            end = _HEADER.size + size
            if len(self._buffer) < end:
                return
            content = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            yield kind, content
