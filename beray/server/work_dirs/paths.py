"""Wire paths: how the API names what is in a work_dir, and the bytes the kernel is given for it.

A wire path is relative, `/`-separated text. File names are bytes on disk and need not be UTF-8, but JSON and URLs must
be. A byte that is not part of UTF-8 text is therefore shown as the private-use character U+EF00 + byte (U+EF80 to
U+EFFF), and the bytes of a name that really holds such a character are shown the same way. So every name has one wire
form, valid everywhere, which leads back to exactly its bytes. Those bytes are 0x80 or more: none can become `/` or `.`.
"""

import re
import unicodedata
from typing import Final
from urllib.parse import unquote

from beray.server.errors import Refused, shown
from beray.server.messages import Phrase

Parts = tuple[bytes, ...]
"""A path as the names on disk; empty for the work_dir itself."""

MAX_PATH_BYTES: Final = 4096  # Linux' PATH_MAX
MAX_NAME_BYTES: Final = 255  # Linux' NAME_MAX
MAX_DEPTH: Final = 128  # a walk holds one descriptor a level

_RAW_BYTE = re.compile("[\udc80-\udcff\uef80-\uefff]")
_ESCAPED_BYTE = re.compile("[\uef80-\uefff]")


def parse_path(path: str) -> Parts:
    """The names `path` leads through; `.` and doubled or trailing slashes don't count.

    Raises:
        Refused: `invalid_path`: empty, absolute, with `..` or NUL, too long, too deep, not text.
    """
    reason = _flaw(path)
    if reason is not None:
        raise invalid_path(path, reason)
    parts = tuple(_to_bytes(name) for name in path.split("/") if name not in {"", "."})
    if any(len(part) > MAX_NAME_BYTES for part in parts):
        raise invalid_path(path, "path_too_long")
    if len(parts) > MAX_DEPTH:
        raise invalid_path(path, "path_too_deep")
    return parts


def parse_new_path(path: str) -> Parts:
    r"""Like `parse_path`, for a file to be written; it must also be safe on other systems.

    A backslash is an ordinary character here but a separator where a ZIP of the work_dir may be unpacked, `%2e%2e` is
    one decoding away from `..`, and control characters confuse terminals; what a command made so stays readable.

    Raises:
        Refused: `invalid_path`.
    """
    parts = parse_path(path)
    if not parts or path.rsplit("/", 1)[-1] in {"", "."}:
        raise invalid_path(path, "path_names_no_file")
    if any(_is_unportable(name) for name in path.split("/")):
        raise invalid_path(path, "path_not_portable")
    return parts


def wire_name(name: bytes) -> str:
    """The wire form of a name on disk."""
    return _RAW_BYTE.sub(_escape, name.decode("utf-8", "surrogateescape"))


def wire_path(parts: Parts) -> str:
    """The wire form of a path; `.` for the work_dir itself."""
    return "/".join(map(wire_name, parts)) or "."


def replace_escaped_bytes(name: str, replacement: str) -> str:
    """A wire name with the characters that stand for raw bytes replaced, for places where only looks count."""
    return _ESCAPED_BYTE.sub(replacement, name)


def invalid_path(path: str, reason: str) -> Refused:
    """The refusal of `path`; `reason` is a phrase of the catalogue."""
    return Refused("invalid_path", path=shown(path), reason=Phrase(reason))


def _flaw(path: str) -> str | None:
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "path_not_utf8"
    if path == "":
        return "path_empty"
    if "\0" in path:
        return "path_nul"
    if path.startswith("/"):
        return "path_absolute"
    if size > MAX_PATH_BYTES:
        return "path_too_long"
    if ".." in path.split("/"):
        return "path_dots"
    return None


def _is_unportable(name: str) -> bool:
    decoded = unquote(name)
    return (
        "\\" in decoded
        or "/" in decoded
        or (decoded != name and decoded in {".", ".."})
        or any(unicodedata.category(char) == "Cc" for char in decoded)
        or _ESCAPED_BYTE.search(name) is not None
    )


def _to_bytes(name: str) -> bytes:
    raw = _ESCAPED_BYTE.sub(lambda match: chr(ord(match[0]) - 0xEF00 + 0xDC00), name)
    return raw.encode("utf-8", "surrogateescape")


def _escape(match: re.Match[str]) -> str:
    raw = match[0].encode("utf-8", "surrogateescape")
    return "".join(chr(0xEF00 + byte) for byte in raw)
