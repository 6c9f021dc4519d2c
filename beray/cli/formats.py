"""How sizes, durations, numbers and JSON look on the terminal. Pure."""

import json
import re
from datetime import datetime
from typing import Any, Final

_SIZE_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_JSON_UNSAFE: Final = re.compile(r"[\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d)?")
_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


def size(size_bytes: int) -> str:
    """`83 B`, `1.2 kB`: powers of 1000, as disks and browsers count."""
    value: float = size_bytes
    for unit in _SIZE_UNITS:
        if value < 1000 or unit == _SIZE_UNITS[-1]:
            break
        value /= 1000
    return f"{size_bytes} B" if unit == "B" else f"{value:.1f} {unit}"


def milliseconds(duration_ms: float) -> str:
    """`41 ms` below a second, else as `seconds`."""
    return f"{duration_ms:.0f} ms" if duration_ms < 1000 else seconds(duration_ms / 1000)


def seconds(duration: float) -> str:
    """`6.2 s`, `2 min 05 s`, `1 h 02 min`."""
    if duration < 60:
        return f"{duration:.1f} s"
    minutes, rest = divmod(round(duration), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def whole_seconds(duration: float) -> str:
    """As `seconds`, without the tenths: for what is still counting."""
    return f"{int(duration)} s" if duration < 60 else seconds(duration)


def short_count(number: int) -> str:
    """`950`, `1.8k`, `2.4M`."""
    if number < 1000:
        return str(number)
    return f"{number / 1000:.1f}k" if number < 1_000_000 else f"{number / 1_000_000:.1f}M"


def parse_seconds(text: str) -> float:
    """Seconds in `90`, `30s`, `5m`, `1h` or `1.5h`.

    Raises:
        ValueError: It is none of these.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is no duration")
    return float(match[1]) * _UNIT_SECONDS[match[2] or "s"]


def parse_time(text: str | None) -> datetime | None:
    """A time of the wire, or None where there is none or another server writes it otherwise."""
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Seconds from one time of the wire to another; None where one is not known."""
    first, last = parse_time(start), parse_time(end)
    try:
        return None if first is None or last is None else max(0.0, (last - first).total_seconds())
    except TypeError:  # one with, one without a zone
        return None


def json_line(value: Any) -> str:
    """`value` as JSON on one line: Chinese readable, everything a terminal could obey escaped."""
    return _escaped(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def json_page(value: Any) -> str:
    """`value` as indented JSON, escaped as in `json_line`."""
    return _escaped(json.dumps(value, ensure_ascii=False, indent=2))


def _escaped(text: str) -> str:
    return _JSON_UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
