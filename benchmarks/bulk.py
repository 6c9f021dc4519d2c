"""What moves many bytes at once: one blocking socket a request, which reads or writes as fast as it can."""

import socket
from collections.abc import Callable, Iterable
from typing import Final

BUFFER_BYTES: Final = 1 << 20
TIMEOUT_SECONDS: Final = 30.0
LAST_CHUNK: Final = b"0\r\n\r\n"

Take = Callable[[memoryview], object]
"""Is given each piece of a body as it is on the wire; it must be done with it when it returns."""


def _ignore(piece: memoryview) -> None:
    pass


def ask(address: tuple[str, int], head: str, *, body: Iterable[memoryview] = (), take: Take = _ignore) -> int:
    """Send a request (`head` without its blank line) and read the answer; the bytes of its body on the wire.

    Raises:
        RuntimeError: It is no success, or the connection ended before the body did.
    """
    with socket.create_connection(address, timeout=TIMEOUT_SECONDS) as connection:
        connection.sendall(f"{head}\r\n\r\n".encode())
        for piece in body:
            connection.sendall(piece)
        return _Answer(connection, take).read()


class _Answer:
    """One answer; the connection is of no use for another."""

    def __init__(self, connection: socket.socket, take: Take) -> None:
        self._connection = connection
        self._take = take
        self._view = memoryview(bytearray(BUFFER_BYTES))
        self._tail = b""
        self._size = 0

    def read(self) -> int:
        head, begun = self._read_head()
        length = _content_length(head)
        self._note(begun)
        while self._size < length if length is not None else self._tail != LAST_CHUNK:
            self._note(self._receive())
        return self._size

    def _read_head(self) -> tuple[bytes, memoryview]:
        got = b""
        while b"\r\n\r\n" not in got:
            got += self._receive()
        head, _, begun = got.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 2"):
            raise RuntimeError(f"no success: {got[:300]!r}")
        return head.lower(), memoryview(begun)

    def _receive(self) -> memoryview:
        count = self._connection.recv_into(self._view)
        if count == 0:
            raise RuntimeError(f"the connection ended after {self._size} bytes of the body")
        return self._view[:count]

    def _note(self, piece: memoryview) -> None:
        self._size += len(piece)
        self._tail = (self._tail + bytes(piece[-len(LAST_CHUNK) :]))[-len(LAST_CHUNK) :]
        self._take(piece)


def _content_length(head: bytes) -> int | None:
    """None: the body is chunked."""
    if head.startswith(b"http/1.1 204"):
        return 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    return None


def unchunked(wire: bytes) -> bytes:
    """What a chunked body says."""
    pieces, at = [], 0
    while True:
        line_end = wire.index(b"\r\n", at)
        size = int(wire[at:line_end], 16)
        if size == 0:
            return b"".join(pieces)
        pieces.append(wire[line_end + 2 : line_end + 2 + size])
        at = line_end + 2 + size + 2
