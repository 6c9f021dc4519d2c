"""What a client of the proxy asks for, read strictly: the bytes are a hostile command's. Does no I/O."""

import re
from dataclasses import dataclass

from beray.server.sandbox.egress.allowlist import AllowList, is_host_name, parse_port

HEAD_BYTES = 8192  # clients send some hundred; servers commonly take 8 KiB
_END = b"\r\n\r\n"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f\x7f]*")
_VERSION = re.compile(r"HTTP/1\.[01]")


class Refusal(Exception):
    """The request is not carried out; the text is one line for the one who asked.

    Attributes:
        status: 400 (malformed), 403 (not allowed), 408 (not sent), 502 or 504 (the host could not be reached).
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status

    @property
    def is_failure(self) -> bool:
        """It was allowed, but could not be done."""
        return self.status >= 500


@dataclass(frozen=True)
class Target:
    """Where a client wants to go; `host` is a host name in lower case."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def split_head(received: bytes) -> tuple[str, bytes] | None:
    """The head of a request, and what has come after it; None when it is not whole yet.

    Raises:
        Refusal: It never will be.
    """
    head, end, rest = received.partition(_END)
    if b"\n" in head.replace(b"\r\n", b"") or len(head) > HEAD_BYTES:
        raise Refusal(400, "The request's head is malformed or too long")
    if not end:
        return None
    return head.decode("latin-1"), rest


def parse_connect(head: str) -> Target:
    """The target of a `CONNECT`.

    Raises:
        Refusal: It is malformed, another method, or names something else than a host.
    """
    line, *headers = head.split("\r\n")
    method, target = _parse_line(line)
    if not all(map(_HEADER.fullmatch, headers)):
        raise Refusal(400, "A header is malformed")
    if method != "CONNECT":
        raise Refusal(403, "Only CONNECT is carried: use https, not http")
    host, _, port_text = target.rpartition(":")
    port = parse_port(port_text)
    if port is None or not host:
        raise Refusal(400, "CONNECT needs a host and a port")
    host = host.lower()
    if not is_host_name(host):
        raise Refusal(403, "Only full host names are carried, in ASCII: no addresses, user names or dots at the end")
    return Target(host, port)


def _parse_line(line: str) -> tuple[str, str]:
    parts = line.split(" ")
    is_printable = not re.search(r"[\x00-\x1f\x7f]", line)
    if len(parts) != 3 or not is_printable or not _TOKEN.fullmatch(parts[0]) or not _VERSION.fullmatch(parts[2]):
        raise Refusal(400, "The request line is malformed")
    return parts[0], parts[1]


def check_allowed(target: Target, allowed: AllowList) -> None:
    """Nothing is looked up for what is not allowed: names carry messages.

    Raises:
        Refusal: It is not; the text says what is.
    """
    if not allowed.allows(target.host, target.port):
        raise Refusal(403, f"{target} is not allowed; allowed: {allowed.shown}")


_TITLES = {400: "Bad Request", 403: "Forbidden", 408: "Request Timeout", 502: "Bad Gateway", 504: "Gateway Timeout"}
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def refusal_answer(refusal: Refusal) -> bytes:
    """The answer, with the reason in the status line too: of a refused CONNECT, most clients show nothing else."""
    reason = str(refusal).encode("ascii", "replace")
    body = reason + b"\n"
    return b"".join(
        [
            b"HTTP/1.1 %d %s: %s\r\n" % (refusal.status, _TITLES[refusal.status].encode(), reason),
            b"Content-Type: text/plain; charset=us-ascii\r\n",
            b"Content-Length: %d\r\n" % len(body),
            b"Connection: close\r\n\r\n",
            body,
        ]
    )
