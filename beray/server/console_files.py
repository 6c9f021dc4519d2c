"""The web console: the built files in `console/`, and one page for every address of a person.

The files have fixed names, so a browser asks each time whether it has the newest (`no-cache`, a tag of the content).
They are read once, at start: what is served is one build, whatever happens to the folder meanwhile.

Nothing of the API is hidden: an address below its roots, or one that names a file, is never answered with the page, and
any other only for who asks for a page.
"""

import asyncio
import hashlib
import re
import zlib
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from beray.server.files.conditions import matches
from beray.server.messages import current_language, text

FOLDER: Final = Path(__file__).with_name("console")
PAGE: Final = "/index.html"
OTHERS: Final = ("/api", "/docs", "/health", "/ready", "/metrics", "/openapi.json")
"""What is not the console's, with all that is below."""

TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
PACKED: Final = frozenset({".ico", ".png", ".woff2"})  # gain nothing by gzip
PACK_LEAST: Final = 1024  # bytes; a smaller file takes one packet anyway

COMMON_HEADERS: Final = {
    "cache-control": "no-cache",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
POLICY: Final = "; ".join(
    (
        "default-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "frame-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
"""Of every file: each may be opened as a document (a picture with scripts in it would be one)."""

_REFUSED: Final = re.compile(r"\s*q=0(\.0*)?\s*")


class ConsoleFile:
    """One built file, as it is sent."""

    def __init__(self, name: str, content: bytes) -> None:
        suffix = Path(name).suffix
        self.content_type = TYPES[suffix]
        self._content = content
        self._tag = hashlib.sha256(content).hexdigest()[:32]
        self._is_packable = suffix not in PACKED and len(content) >= PACK_LEAST
        self._packed: bytes | None = None

    async def answer(self, asked: Headers) -> Response:
        """The answer to a request with these headers."""
        headers = COMMON_HEADERS | {"content-security-policy": POLICY, "content-type": self.content_type}
        content, tag = self._content, f'"{self._tag}"'
        if self._is_packable:
            headers["vary"] = "Accept-Encoding"
        if self._is_packable and _lists(asked, "accept-encoding", "gzip"):
            content, tag = await self._pack(), f'"{self._tag}-gzip"'
            headers["content-encoding"] = "gzip"
        headers["etag"] = tag
        if matches(asked.get("if-none-match", ""), tag, is_weak_fine=True):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers)

    async def _pack(self) -> bytes:
        if self._packed is None:  # two at once do it twice, to the same end
            self._packed = await asyncio.to_thread(zlib.compress, self._content, 9, wbits=31)  # gzip's form, no time
        return self._packed


class ConsoleFiles:
    """In front of the application: answers what is the console's.

    Args:
        app: Gets everything else.
        folder: Where the built files are; without them the page says how to build them.
    """

    def __init__(self, app: ASGIApp, folder: Path = FOLDER) -> None:
        self._app = app
        self._files = read_files(folder)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve."""
        response = await self._answer(scope) if scope["type"] == "http" else None
        await (response or self._app)(scope, receive, send)

    async def _answer(self, scope: Scope) -> Response | None:
        """What the console answers; None: it is not asked."""
        path = scope["path"]
        if scope["method"] not in {"GET", "HEAD"} or is_others(path):
            return None
        headers = Headers(scope=scope)
        file = self._files.get(path)
        if file is None and path != "/" and not _is_page(path, headers):
            return None
        file = file or self._files.get(PAGE)
        return _missing_page() if file is None else await file.answer(headers)


def read_files(folder: Path) -> Mapping[str, ConsoleFile]:
    """The files in a folder by the path they are asked by; of kinds that a console has."""
    paths = [path for path in folder.rglob("*") if path.suffix in TYPES and path.is_file()]
    return {f"/{path.relative_to(folder).as_posix()}": ConsoleFile(path.name, path.read_bytes()) for path in paths}


def is_others(path: str) -> bool:
    """Whether a path is the API's, or another's that is no page of the console."""
    return path.startswith(OTHERS) and any(path == other or path.startswith(f"{other}/") for other in OTHERS)


def _is_page(path: str, headers: Headers) -> bool:
    """Whether a person asks for a page; a name with a dot in it is a file's."""
    return "." not in path.rpartition("/")[2] and _lists(headers, "accept", "text/html")


def _lists(headers: Headers, header: str, wanted: str) -> bool:
    """Whether a header of preferences names this, and does not refuse it (`;q=0`)."""
    for part in headers.get(header, "").split(","):
        name, _, parameters = part.partition(";")
        if name.strip().lower() == wanted:
            return _REFUSED.fullmatch(parameters) is None
    return False


def _missing_page() -> Response:
    language = current_language.get()
    page = (
        f'<!doctype html><html lang="{language}"><meta charset="utf-8"><title>BeRay</title>'
        f'<meta name="viewport" content="width=device-width"><p>{escape(text("console_missing"))}</p>'
        '<p><a href="/docs">/docs</a></p></html>'
    )
    headers = {**COMMON_HEADERS, "content-security-policy": "default-src 'none'; frame-ancestors 'none'"}
    return Response(page, media_type="text/html", headers={**headers, "cache-control": "no-store"})
