"""Conditional and partial requests (RFC 9110, sections 13 and 14), as functions of header values."""

import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from beray.server.errors import Refused

_ETAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_ONE_RANGE: Final = re.compile(r"bytes=\s*(\d{0,19})-(\d{0,19})\s*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class Slice:
    """Bytes `start` up to, not including, `stop`."""

    start: int
    stop: int


def matches(header: str, etag: str | None, *, is_weak_fine: bool) -> bool:
    """Whether an If-Match or If-None-Match names what is there; `etag` None: nothing is there."""
    if etag is None:
        return False
    if header.strip() == "*":
        return True
    return any(tag == etag and (is_weak_fine or not weak) for weak, tag in _ETAG.findall(header))


def is_unchanged(if_none_match: str | None, if_modified_since: str | None, *, etag: str, modified_s: int) -> bool:
    """Whether the client's copy is still right (304). The tag decides; the date only counts where no tag was sent."""
    if if_none_match is not None:
        return matches(if_none_match, etag, is_weak_fine=True)
    if if_modified_since is None:
        return False
    since = _seconds(if_modified_since)
    return since is not None and modified_s <= since


def wanted_slice(range_header: str | None, if_range: str | None, *, etag: str, size: int) -> Slice | None:
    """The part a client wants; None: the whole.

    Several ranges in one request are answered with the whole, as the RFC allows: no client of ours sends them, and ten
    thousand overlapping ones are an attack. A date in If-Range is too coarse to prove that the file is the same one.

    Raises:
        Refused: `range_not_satisfiable`: no byte of the file is in it.
    """
    found = _ONE_RANGE.fullmatch(range_header or "")
    if found is None or (if_range is not None and if_range.strip() != etag):
        return None
    first, last = found[1], found[2]
    if first == "":
        return _suffix(last, size)
    if last != "" and int(last) < int(first):
        return None  # not a range at all
    if int(first) >= size:
        raise Refused("range_not_satisfiable", size=size)
    return Slice(int(first), size if last == "" else min(int(last) + 1, size))


def _suffix(length: str, size: int) -> Slice | None:
    """The last `length` bytes."""
    if length == "":
        return None
    if int(length) == 0 or size == 0:
        raise Refused("range_not_satisfiable", size=size)
    return Slice(max(size - int(length), 0), size)


def _seconds(date: str) -> int | None:
    try:
        return int(parsedate_to_datetime(date).timestamp())
    except (ValueError, OverflowError):
        return None
