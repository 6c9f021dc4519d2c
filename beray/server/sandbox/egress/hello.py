"""The first thing a TLS client says: which host it wants. Does no I/O.

Many hosts share an address (content delivery networks), where this name decides who is talked to; without a look at it,
one allowed host would open its neighbours. It is in clear text (RFC 8446 4.1.2, RFC 6066 3); nothing else is looked at.
"""

from beray.server.sandbox.egress.allowlist import DEFAULT_PORT
from beray.server.sandbox.egress.request import Refusal, Target

HELLO_BYTES = 1 << 16  # post-quantum keys make them 2 KiB; a single record may have 16
RECORDS_MOST = 16  # one is usual; browsers cut it into a few. It bounds how often the same bytes are looked at
REFUSED_ALERT = bytes([21, 3, 3, 0, 2, 2, 112])  # fatal: unrecognized_name

_CONTENT_TYPES = range(20, 25)
_HANDSHAKE, _CLIENT_HELLO = 22, 1
_SERVER_NAME, _ENCRYPTED_HELLO = 0, 0xFE0D


def is_for(target: Target, received: bytes) -> bool:
    """Whether a connection's first bytes are for the target; False: more are needed to tell.

    What does not begin as TLS is carried to the ports an operator has named, but not to the usual one of https.

    Raises:
        Refusal: They are not.
    """
    if not received:
        return False
    if received[0] not in _CONTENT_TYPES:
        if target.port == DEFAULT_PORT:
            raise Refusal(403, f"Only TLS is carried to port {DEFAULT_PORT}")
        return True
    try:
        hello = _read_hello(received)
    except (IndexError, ValueError) as error:
        raise Refusal(403, "The TLS connection does not begin as it should") from error
    if hello is None:
        if len(received) > HELLO_BYTES:
            raise Refusal(403, "The TLS connection does not begin as it should")
        return False
    names, is_encrypted = hello
    if is_encrypted:
        raise Refusal(403, "The TLS connection hides its host (Encrypted Client Hello)")
    if names != [target.host.encode()]:
        raise Refusal(403, f"The TLS connection is for another host than {target.host}")
    return True


class _Bytes:
    """Reads from the front; what would go past the end is a ValueError."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._content)

    def take(self, size: int) -> bytes:
        taken = self._content[self._at : self._at + size]
        if len(taken) < size:
            raise ValueError("cut")
        self._at += size
        return taken

    def take_rest(self) -> bytes:
        return self.take(len(self._content) - self._at)

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def block(self, size: int) -> "_Bytes":
        """What follows a length of `size` bytes."""
        return _Bytes(self.take(self.number(size)))


def _read_hello(received: bytes) -> tuple[list[bytes], bool] | None:
    """The names asked for, in lower case, and whether another hello is hidden inside; None: not whole yet."""
    message = _first_message(received)
    if message is None:
        return None
    hello = _Bytes(message)
    hello.take(2 + 32)  # version, random
    for size in (1, 2, 1):  # session, ciphers, compression
        hello.block(size)
    extensions = hello.block(2) if hello else _Bytes(b"")
    names: list[bytes] = []
    is_encrypted = False
    while extensions:
        kind, content = extensions.number(2), extensions.block(2)
        is_encrypted = is_encrypted or kind == _ENCRYPTED_HELLO
        if kind == _SERVER_NAME:
            names += _read_names(content.block(2))
    return names, is_encrypted


def _read_names(entries: _Bytes) -> list[bytes]:
    names = []
    while entries:
        entries.take(1)  # its kind: there is but one
        names.append(entries.block(2).take_rest().lower())
    return names


def _first_message(received: bytes) -> bytes | None:
    """The ClientHello, which may be cut over several records; None: not whole yet."""
    message = b""
    at = 0
    for _ in range(RECORDS_MOST):
        if len(received) < at + 5:
            return None
        size = int.from_bytes(received[at + 3 : at + 5], "big")
        if received[at] != _HANDSHAKE or received[at + 1] != 3 or size == 0:
            raise ValueError("no handshake")
        if len(received) < at + 5 + size:
            return None
        message += received[at + 5 : at + 5 + size]
        at += 5 + size
        if message[0] != _CLIENT_HELLO:
            raise ValueError("no ClientHello")
        end = 4 + int.from_bytes(message[1:4], "big")
        if len(message) >= 4 and len(message) >= end:
            return message[4:end]
    raise ValueError("too many records")
