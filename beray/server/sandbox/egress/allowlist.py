"""The hosts an operator allows (`sandbox_allow_hosts`), and what a host name is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

DEFAULT_PORT = 443
_SHOWN_CHARACTERS = 300
_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
# A last label that begins with a letter (RFC 3696) can't be part of an IPv4 address in any of its spellings.
_HOST = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)+(?=[a-z]){_LABEL}")
_PORT = re.compile(r"[1-9][0-9]{0,4}")


def is_host_name(host: str) -> bool:
    """A full host name of ASCII letters in lower case: no address, no user, no dot at its end, no single label."""
    return _HOST.fullmatch(host) is not None


def parse_port(text: str) -> int | None:
    """A port as digits; None if it is none."""
    if not _PORT.fullmatch(text) or int(text) > 65535:
        return None
    return int(text)


@dataclass(frozen=True)
class _Entry:
    host: str
    port: int

    def matches(self, host: str, port: int) -> bool:
        if port != self.port:
            return False
        return self.host in {host, "*"} or (self.host.startswith("*.") and host.endswith(self.host[1:]))

    def __str__(self) -> str:
        return self.host if self.port == DEFAULT_PORT else f"{self.host}:{self.port}"


class AllowList:
    """The allowed hosts and ports.

    Args:
        entries: `data.gov`, `*.example.com` (each host below it, not itself), `api.example.com:8443`, or `*` for every
            host of the public internet; without a port 443.

    Raises:
        ValueError: One can't be used; says which, why, and what would be right.
    """

    def __init__(self, entries: Sequence[str]) -> None:
        self._entries = tuple(dict.fromkeys(_parse(entry) for entry in entries))

    def __bool__(self) -> bool:
        return bool(self._entries)

    def __str__(self) -> str:
        return ", ".join(map(str, self._entries))

    def allows(self, host: str, port: int) -> bool:
        """`host` must be a host name (`is_host_name`)."""
        return any(entry.matches(host, port) for entry in self._entries)

    @property
    def shown(self) -> str:
        """The list for a message of one line, cut when it is long."""
        whole = str(self)
        return whole if len(whole) <= _SHOWN_CHARACTERS else whole[:_SHOWN_CHARACTERS] + " …"

    @property
    def note(self) -> str:
        """What the operator should know about the network of commands."""
        return f"network: only these hosts can be reached, through the proxy: {self}"


def _parse(entry: str) -> _Entry:
    host, colon, port_text = entry.rpartition(":")
    if not colon:
        host, port_text = entry, str(DEFAULT_PORT)
    port = parse_port(port_text)
    if port is None or ":" in host or "[" in host:
        raise ValueError(
            f"{entry!r} is not a host with a port from 1 to 65535, like api.example.com:8443. Addresses can't be"
            " allowed, only names"
        )
    return _Entry(_parse_pattern(entry, host), port)


def _parse_pattern(entry: str, pattern: str) -> str:
    if pattern == "*":
        return pattern
    prefix = "*." if pattern.startswith("*.") else ""
    name = _to_ascii(pattern.removeprefix("*.").lower())
    if not is_host_name(name):
        raise ValueError(
            f"{entry!r} is not a full host name. Write data.gov, *.example.com (each host below it; two labels or more"
            " after *.), or * alone for every host of the public internet; no addresses, no URLs"
        )
    return prefix + name


def _to_ascii(host: str) -> str:
    """As it is asked for in the DNS. IDNA 2008: the older one, Python's own, takes faß.de for fass.de."""
    if host.isascii():
        return host
    import idna  # only here: all else must run by the standard library alone

    try:
        return idna.encode(host, uts46=True).decode("ascii")
    except idna.IDNAError:
        return ""
