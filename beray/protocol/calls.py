"""Each operation of the API as a value: method, path, parameters, body. One description for every client.

Paths and bodies are those of WIRE.md. Nothing is sent here; `flows.py` decides when, a client's driver does it.
"""

import json
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from secrets import token_hex
from types import MappingProxyType
from typing import Any, Final, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from beray.protocol.access import header_value
from beray.protocol.shown import shown_files, shown_task, shown_tasks
from beray.protocol.types import (
    ApiToken,
    CreatedApiToken,
    DayUsage,
    FileNode,
    Health,
    Info,
    Message,
    ModelCheck,
    Ready,
    Session,
    StopAnswer,
    Task,
    UploadAnswer,
    User,
    Webhook,
)

API: Final = "/api/v1"

Body = bytes | Iterable[bytes]


Result = TypeVar("Result")

_NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class Call(NamedTuple, Generic[Result]):
    """One request to make; `Result` is the JSON of its answer, or `bytes` where it is no JSON.

    A tuple, since making a frozen dataclass took a tenth of the time that a call costs here.

    Attributes:
        method: HTTP method.
        path: Below the server's root, quoted for a URL.
        params: Query parameters, not yet quoted.
        headers: Headers of this operation alone; a client adds authentication and language.
        body: Bytes, or an iterable of them that can be gone through once for each attempt if `is_repeatable`.
        is_idempotent: Doing it twice leaves the same as doing it once, on every server.
        has_key: Carries an Idempotency-Key, so that a server that honours keys does it only once.
        is_repeatable: The body can be sent again.
        is_done_when_gone: A 404 at a repetition means that an earlier attempt did it.
        is_about_login: Makes or ends a login: a 401 is its answer, no reason to get another token.
        accepted: Statuses beside 2xx whose body is the answer too.
        is_file: The answer is a file of any size; any other is JSON, which a client takes up to a bound.
        shown: Makes the answer's JSON the same value that a notebook shows well; None where it is a plain one.
    """

    method: str
    path: str
    params: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = _NO_HEADERS
    body: Body | None = None
    is_idempotent: bool = False
    has_key: bool = False
    is_repeatable: bool = True
    is_done_when_gone: bool = False
    is_about_login: bool = False
    accepted: frozenset[int] = frozenset()
    is_file: bool = False
    shown: Callable[[Any], Any] | None = None

    def __repr__(self) -> str:
        """Without the body: a traceback with its locals shows no password."""
        return f"Call({self.method} {self.path})"

    @property
    def target(self) -> str:
        """Path and query as they stand in the URL."""
        return f"{self.path}?{_query(tuple(self.params))}" if self.params else self.path


@lru_cache(256)  # mostly the same few: `events=none`
def _query(params: tuple[tuple[str, str], ...]) -> str:
    return urlencode(params, quote_via=quote)


# Accounts


def request_verification_code(email: str) -> Call[Message]:
    return _post_json("/auth/request-verification-code", {"email": email}, is_about_login=True)


def register(email: str, verification_code: str, password: str) -> Call[Session]:
    return _post_json(
        "/auth/register",
        {"email": email, "verification_code": verification_code, "password": password},
        is_about_login=True,
    )


def login(email: str, password: str) -> Call[Session]:
    return _post_json("/auth/login", {"email": email, "password": password}, is_about_login=True)


def login_with_form(email: str, password: str) -> Call[Session]:
    form = urlencode({"grant_type": "password", "username": email, "password": password})
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    path = f"{API}/auth/token"
    return Call(method="POST", path=path, headers=headers, body=form.encode("ascii"), is_about_login=True)


def logout() -> Call[Message]:
    return Call(method="POST", path=f"{API}/auth/logout", is_about_login=True)


def request_password_reset(email: str) -> Call[Message]:
    return _post_json("/auth/request-verification-code", {"email": email, "purpose": "reset"}, is_about_login=True)


def reset_password(email: str, verification_code: str, password: str) -> Call[Message]:
    body = {"email": email, "verification_code": verification_code, "password": password}
    return _post_json("/auth/reset-password", body, is_about_login=True)


def get_current_user() -> Call[User]:
    return _get("/users/me")


def list_tokens() -> Call[list[ApiToken]]:
    return _get("/users/me/tokens")


def create_token(name: str, *, expires_in: int | None = None) -> Call[CreatedApiToken]:
    return _post_json("/users/me/tokens", {"name": name, "expires_in": expires_in})


def delete_token(token_id: int) -> Call[Message]:
    return Call(
        method="DELETE",
        path=f"{API}/users/me/tokens/{_id(token_id)}",
        is_idempotent=True,
        is_done_when_gone=True,
    )


def get_webhook() -> Call[Webhook]:
    return _get("/users/me/webhook")


def set_webhook(url: str | None, *, rotate_secret: bool = False) -> Call[Webhook]:
    """Repeated only where the secret stays: a second change would make the first answer's secret worthless."""
    content: dict[str, Any] = {"url": url}
    if rotate_secret:
        content["rotate_secret"] = True
    return Call(
        method="PUT",
        path=f"{API}/users/me/webhook",
        headers={"Content-Type": "application/json"},
        body=json.dumps(content, separators=(",", ":")).encode("ascii"),
        is_idempotent=not rotate_secret,
    )


# Tasks


def create_task(
    goal: str,
    *,
    tools: Sequence[str] | None,
    limits: Mapping[str, float] | None = None,
    model: str | None = None,
    hold: bool = False,
    webhook_url: str | None = None,
    idempotency_key: str | None = None,
) -> Call[Task]:
    content: dict[str, Any] = {"goal": goal, "tools": None if tools is None else list(tools)}
    if limits is not None:
        content["limits"] = dict(limits)
    if model is not None:
        content["model"] = model
    if hold:
        content["hold"] = True
    if webhook_url is not None:
        content["webhook_url"] = webhook_url
    return _post_json("/tasks/", content, headers=_key(idempotency_key), has_key=True, shown=shown_task)


def start_task(task_id: int) -> Call[Task]:
    return Call(method="POST", path=f"{_task(task_id)}/start", shown=shown_task)


def send_message(
    task_id: int, content: str, *, question_id: str | None = None, idempotency_key: str | None = None
) -> Call[Task]:
    body = {"content": content} if question_id is None else {"content": content, "question_id": question_id}
    path = f"/tasks/{_id(task_id)}/messages"
    return _post_json(path, body, headers=_key(idempotency_key), has_key=True, shown=shown_task)


def list_tasks(
    *, limit: int | None = None, before: int | None = None, status: Sequence[str] = (), search: str | None = None
) -> Call[list[Task]]:
    """With none of these: all."""
    call = _get("/tasks/", shown_tasks, limit=limit, before=before, q=search)
    return call._replace(params=(*call.params, *(("status", name) for name in status)))


def get_task(task_id: int, *, events: str | None = None) -> Call[Task]:
    """`events` is `all` (what None means), `none` or `tail:N`."""
    return _get(f"/tasks/{_id(task_id)}", shown_task, events=events)


def stream_task(task_id: int, *, last_event_id: str) -> Call[bytes]:
    """The events after `last_event_id`; all if that is empty."""
    headers = {"Accept": "text/event-stream", "Accept-Encoding": "identity", "Cache-Control": "no-store"}
    if last_event_id:
        headers["Last-Event-ID"] = last_event_id
    return Call(method="GET", path=f"{_task(task_id)}/stream", headers=headers, is_idempotent=True)


def stop_task(task_id: int) -> Call[StopAnswer]:
    return Call(method="POST", path=f"{_task(task_id)}/stop", is_idempotent=True)


def delete_task(task_id: int) -> Call[Message]:
    return Call(method="DELETE", path=_task(task_id), is_idempotent=True, is_done_when_gone=True)


def get_tool_output(task_id: int, call_id: str) -> Call[bytes]:
    return _get(f"/tasks/{_id(task_id)}/output/{_segment(call_id)}")


# Files of a task's work_dir


def list_files_tree(
    task_id: int, path: str, *, depth: int | None = None, limit: int | None = None
) -> Call[list[FileNode]]:
    return _get(f"/tasks/{_id(task_id)}/files/tree", shown_files, path=path, depth=depth, limit=limit)


def get_file_content(task_id: int, path: str) -> Call[bytes]:
    return _get(f"/tasks/{_id(task_id)}/files/content", path=path)._replace(is_file=True)


def upload_file(
    task_id: int, path: str, body: Body, *, content_type: str, is_repeatable: bool = True
) -> Call[UploadAnswer]:
    return Call(
        method="PUT",
        path=f"{_task(task_id)}/files/content",
        params=(("path", path),),
        headers={"Content-Type": content_type},
        body=body,
        is_idempotent=True,
        is_repeatable=is_repeatable,
    )


def delete_file(task_id: int, path: str) -> Call[Message]:
    return Call(
        method="DELETE",
        path=f"{_task(task_id)}/files/content",
        params=(("path", path),),
        is_idempotent=True,
        is_done_when_gone=True,
    )


def download_files_as_zip(task_id: int, paths: Sequence[str]) -> Call[bytes]:
    call: Call[bytes] = _post_json(f"/tasks/{_id(task_id)}/files/download", {"paths": list(paths)}, is_idempotent=True)
    return call._replace(is_file=True)


# Service


def get_health() -> Call[Health]:
    return Call(method="GET", path="/health", is_idempotent=True)


def get_ready() -> Call[Ready]:
    """Answers 503 with the same body while a part is not ready."""
    return Call(method="GET", path="/ready", is_idempotent=True, accepted=frozenset({503}))


def get_usage() -> Call[DayUsage]:
    return _get("/users/me/usage")


def get_info() -> Call[Info]:
    return _get("/info")


def check_model(model: str | None = None) -> Call[ModelCheck]:
    """A repetition within a minute gives the same answer again."""
    return _post_json("/model/check", {"model": model}, is_idempotent=True)


def _key(idempotency_key: str | None) -> dict[str, str]:
    """The header that lets a server do a repeated call once; without a key given, one for this call alone."""
    key = token_hex(16) if idempotency_key is None else header_value("idempotency_key", idempotency_key)
    return {"Idempotency-Key": key}


def _id(value: int) -> int:
    """An id, which stands in a path: a text such as "../users" never does."""
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"an id must be an integer, as the server gave it; got {value!r}") from None


def _segment(value: str) -> str:
    """A name that stands in a path, as one part of it."""
    if value in {"", ".", ".."}:
        raise ValueError(f"{value!r} names nothing; give a call_id as the events have it")
    return quote(value, safe="")


def _task(task_id: int) -> str:
    return f"{API}/tasks/{_id(task_id)}"


def _get(path: str, shown: Callable[[Any], Any] | None = None, /, **params: str | int | None) -> Call[Any]:
    given = tuple((name, str(value)) for name, value in params.items() if value is not None)
    return Call(method="GET", path=API + path, params=given, is_idempotent=True, shown=shown)


def _post_json(
    path: str,
    content: Mapping[str, Any],
    *,
    headers: Mapping[str, str] | None = None,
    is_idempotent: bool = False,
    has_key: bool = False,
    is_about_login: bool = False,
    shown: Callable[[Any], Any] | None = None,
) -> Call[Any]:
    return Call(
        method="POST",
        path=API + path,
        headers={"Content-Type": "application/json", **(headers or {})},
        body=json.dumps(content, separators=(",", ":")).encode("ascii"),
        is_idempotent=is_idempotent,
        has_key=has_key,
        is_about_login=is_about_login,
        shown=shown,
    )
