"""An answer of JSON that is bytes already."""

from collections.abc import Mapping
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_JSON: Final = (b"content-type", b"application/json")


class JsonResponse(Response):
    """Sends `body` as it is, with no more headers than it needs.

    Args:
        body: JSON.
        status_code: As usual.
        headers: Further ones.
    """

    def __init__(self, body: bytes, *, status_code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.status_code = status_code
        self.background = None
        self.body = body
        self.raw_headers = [_JSON, (b"content-length", b"%d" % len(body))]
        if headers:
            self.raw_headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})
