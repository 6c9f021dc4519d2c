"""The headers under which a task's files leave the server.

A file was made by a model or its commands. No browser may take it for a page of ours: it is an attachment, never
sniffed, sandboxed, no other site may embed it, and nothing keeps a copy.

The console shows files within its page, and asks for them `inline`. Those of a few kinds come so, each with a policy
that leaves it no more than it needs to be seen: a page of a task's runs its scripts, but in an origin of its own
(`sandbox`), to which our cookie, our storage and our API are a stranger's, and it can load nothing from anywhere.
"""

import re
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import quote

from beray.server.work_dirs.paths import replace_escaped_bytes

OCTETS: Final = "application/octet-stream"
TEXT: Final = "text/plain; charset=utf-8"

# What can do no harm if a browser shows it after all; everything else (HTML, SVG, XML too) is plain octets.
TYPES: Final = {
    ".csv": "text/csv; charset=utf-8",
    ".gif": "image/gif",
    ".jpeg": "image/jpeg",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".pdf": "application/pdf",
    ".png": "image/png",
    ".wav": "audio/wav",
    ".webp": "image/webp",
    ".zip": "application/zip",
} | dict.fromkeys(
    (".c", ".cfg", ".ini", ".js", ".log", ".md", ".py", ".rst", ".sh", ".toml", ".ts", ".txt", ".yaml"), TEXT
)

_FRAMED: Final = "default-src 'none'; frame-ancestors 'self'"
_SEEN: Final = f"sandbox; {_FRAMED}; style-src 'unsafe-inline'; img-src data:"
_PAGE: Final = (
    f"sandbox allow-scripts; {_FRAMED}; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline';"
    " img-src data: blob:; font-src data:; media-src data: blob:"
)
_PDF: Final = f"{_FRAMED}; style-src 'unsafe-inline'; object-src 'self'"  # no viewer works within `sandbox`

# What a browser may show, as which type, under which policy.
INLINE: Final = {
    **{suffix: (kind, _SEEN) for suffix, kind in TYPES.items() if kind == TEXT or kind.startswith("image/")},
    ".csv": (TEXT, _SEEN),
    ".htm": ("text/html; charset=utf-8", _PAGE),
    ".html": ("text/html; charset=utf-8", _PAGE),
    ".json": (TEXT, _SEEN),
    ".pdf": (TYPES[".pdf"], _PDF),
    ".svg": ("image/svg+xml", _SEEN),
}

_PLAIN: Final = re.compile(r"[^A-Za-z0-9 ._+=@()\[\]{}!#$&^~,-]")
_LATEST_S: Final = 253_402_300_799  # the end of year 9999


def download_headers(name: str, content_type: str) -> dict[str, str]:
    """Headers of every answer that carries a file's or an archive's bytes."""
    return {
        "content-type": content_type,
        "content-disposition": content_disposition(name),
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox; default-src 'none'",
        "cross-origin-resource-policy": "same-origin",
        "cache-control": "no-store",
    }


def inline_headers(name: str) -> dict[str, str]:
    """Headers of a file that is to be seen within the console, if it is of a kind that can be; else of a download."""
    found = INLINE.get(PurePosixPath(name).suffix.lower())
    if found is None:
        return download_headers(name, content_type(name))
    kind, policy = found
    disposition = content_disposition(name, "inline")
    return download_headers(name, kind) | {"content-disposition": disposition, "content-security-policy": policy}


def content_disposition(name: str, kind: str = "attachment") -> str:
    """With the name twice (RFC 6266): plain ASCII for old clients, RFC 8187 for all others."""
    name = replace_escaped_bytes(name, "_")
    plain = _PLAIN.sub("_", name)
    header = f'{kind}; filename="{plain}"'
    return header if plain == name else f"{header}; filename*=UTF-8''{quote(name, safe='')}"


def content_type(path: str) -> str:
    """The type from a short list, by the name's ending."""
    return TYPES.get(PurePosixPath(path).suffix.lower(), OCTETS)


def http_date(seconds: int) -> str:
    """A time as HTTP shows it; a file can carry times that it can't show."""
    return format_datetime(datetime.fromtimestamp(min(max(seconds, 0), _LATEST_S), UTC), usegmt=True)
