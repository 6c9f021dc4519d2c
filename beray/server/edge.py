"""The outermost ASGI callable: what is true of every request and answer (WIRE.md, "Common").

Request id, language, trailing slashes, body limit, `Idempotency-Supported`, no copies in caches unless an answer speaks
of them itself, and the last resort for errors. Kept apart from the framework: only the outermost callable sees the
server's own `send`, and it must answer when all inside fails.
"""

import logging
import random
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import unquote_to_bytes

import orjson
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from beray.server.audit import Caller, current_caller
from beray.server.auth.client_address import ClientAddresses
from beray.server.errors import Refused, problem
from beray.server.messages import Language, current_language, text

SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._~:+/=@-]{1,128}")
PROBLEM_JSON = b"application/problem+json"
UPLOAD_PATH = re.compile(r"/api/v1/tasks/[^/]+/files/content")  # bodies there are files, limited by their route

LANGUAGES_KEPT: Final = 256  # spellings of Accept-Language whose meaning is remembered
LANGUAGE_MOST: Final = 200  # bytes of one that is
_IDEMPOTENCY: Final = (b"idempotency-supported", b"true")
_KEPT_NOWHERE: Final = (b"cache-control", b"no-store")  # a cookie, unlike `Authorization`, keeps no cache from keeping

NOBODY_TRUSTED = ClientAddresses(())

log = logging.getLogger("beray.http")


class BodyTooLarge(Exception):
    """The body went over the limit while it was read."""


class Edge:
    """Wraps the application."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        default_language: Language,
        max_body_bytes: int,
        clients: ClientAddresses = NOBODY_TRUSTED,
    ) -> None:
        self._app = app
        self._clients = clients
        self._default_language = default_language
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = request_id_of(headers)
        language = language_asked(headers, self._default_language)
        current_language.set(language)
        agent = headers.get(b"user-agent")
        current_caller.set(Caller(request_id, lambda: self._clients.whole(HTTPConnection(scope)), agent))
        scope = {**scope, "path": _without_slash(scope["path"]), "beray.request_id": request_id, "beray.send": send}
        answer = _Answer(send, request_id)
        try:
            _check_query(scope["query_string"])
            await self._app(scope, self._limited(scope, headers, receive), answer.send)
        except Refused as refused:
            if answer.has_begun:
                log.exception("request failed", extra={"request_id": request_id, "path": scope["path"]})
            await answer.refuse(refused, language)
        except ClientDisconnect:  # in the middle of its body: nobody is left to be answered, and nothing failed
            log.debug("client hung up", extra={"request_id": request_id, "path": scope["path"]})
        except Exception:  # the edge of a request: log it with its id, answer in the one error shape
            log.exception("request failed", extra={"request_id": request_id, "path": scope["path"]})
            if not answer.is_whole:
                await answer.refuse(Refused("internal_error", request_id=request_id), language)

    def _limited(self, scope: Scope, headers: Mapping[bytes, bytes], receive: Receive) -> Receive:
        """`receive`, refusing a body over the limit; by Content-Length before it is read, else while it is."""
        length = headers.get(b"content-length")
        if length is None and b"transfer-encoding" not in headers:
            return receive  # there is no body
        if scope["method"] == "PUT" and UPLOAD_PATH.fullmatch(scope["path"]):
            return receive
        limit = self._max_body_bytes
        if length is not None and length.isdigit() and int(length) > limit:
            raise Refused("body_too_large", limit=limit)
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > limit:
                    scope["beray.body_limit"] = limit  # the framework turns what is raised here into a 400
                    raise BodyTooLarge
            return message

        return counted


class _Answer:
    """Adds our headers to the answer, and can still refuse while it has not begun."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id
        self.has_begun = False
        self.is_whole = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            headers = [*message.get("headers", ()), *common_headers(self._request_id)]
            if not any(name == b"cache-control" for name, _ in headers):
                headers.append(_KEPT_NOWHERE)
            message["headers"] = headers
            await self._send(message)
            return
        await self._send(message)
        self.is_whole = not message.get("more_body", False)

    async def refuse(self, refused: Refused, language: Language) -> None:
        if self.has_begun:
            raise refused  # too late for an answer: the server cuts the connection, which the client must notice
        status, headers, body = refusal(refused, language, self._request_id)
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


def common_headers(request_id: str) -> list[tuple[bytes, bytes]]:
    """What every answer has."""
    return [(b"x-request-id", request_id.encode()), _IDEMPOTENCY]


def refusal(refused: Refused, language: Language, request_id: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of an error answer."""
    body = orjson.dumps(problem(refused, language, request_id))
    headers = [(b"content-type", PROBLEM_JSON), (b"content-length", str(len(body)).encode())]
    if refused.status_code in {429, 503}:
        headers.append((b"retry-after", str(refused.retry_after_seconds or 1).encode()))
    if refused.status_code == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refused.code == "range_not_satisfiable":
        headers.append((b"content-range", f"bytes */{refused.params['size']}".encode()))
    if refused.code in {"body_too_large", "upload_too_large", "storage_full"}:
        headers.append((b"connection", b"close"))  # what is left of the body is not read
    return refused.status_code, headers, body


def _check_query(query: bytes) -> None:
    """Refuse what is not UTF-8: read leniently, two names of files would become one."""
    if b"%" not in query and query.isascii():
        return
    try:
        unquote_to_bytes(query).decode()
    except UnicodeDecodeError:
        reason = text("query_not_utf8")
        raise Refused(
            "validation_error", reason=reason, errors=[{"loc": ["query"], "msg": reason, "type": "string_unicode"}]
        ) from None


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """The id that the client gave its request, if it is a sane one, else a new one."""
    sent = headers.get(b"x-request-id")
    if sent is not None and SANE_REQUEST_ID.fullmatch(sent):
        return sent.decode()
    return f"req_{random.getrandbits(96):024x}"  # a name, not a secret


def language_asked(headers: Mapping[bytes, bytes], default: Language) -> Language:
    """The first of `zh` and `en` that Accept-Language prefers, else the default."""
    accepted = headers.get(b"accept-language")
    if accepted is None:
        return default
    return (_preferred(accepted) if len(accepted) <= LANGUAGE_MOST else _read_preferred(accepted)) or default


def _read_preferred(accepted: bytes) -> Language | None:
    wanted: list[tuple[float, int, Language]] = []
    for position, part in enumerate(accepted.decode("latin-1").split(",")[:20]):
        tag, _, parameters = part.strip().partition(";")
        name = tag.strip().lower().partition("-")[0]
        weight = _weight(parameters)
        if name in {"zh", "en"} and weight > 0:
            wanted.append((-weight, position, "zh" if name == "zh" else "en"))
    return min(wanted)[2] if wanted else None


_preferred = lru_cache(LANGUAGES_KEPT)(_read_preferred)  # a program sends the same one each time


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0


def _without_slash(path: str) -> str:
    return path.rstrip("/") or "/" if path.endswith("/") else path
