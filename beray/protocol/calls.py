"""Each operation of the API as a value: method, path, parameters, body. One description for every client.

Paths and bodies are those of WIRE.md. Nothing is sent here; `flows.py` decides when, a client's driver does it.
"""

import json
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote, urlencode

from beray.protocol.types import (
    FileNode,
    JsonObject,
    Message,
    ModelCheck,
    Session,
    StopAnswer,
    Task,
    UploadAnswer,
    User,
)

API: Final = "/api/v1"

Body = bytes | Iterable[bytes]


Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[Result]):
    """One request to make; `Result` is the JSON of its answer, or `bytes` where it is no JSON.

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
        accepted: Statuses beside 2xx whose body is the answer too.
    """

    method: str
    path: str
    params: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    is_idempotent: bool = False
    has_key: bool = False
    is_repeatable: bool = True
    is_done_when_gone: bool = False
    accepted: frozenset[int] = frozenset()

    @property
    def target(self) -> str:
        """Path and query as they stand in the URL."""
        return f"{self.path}?{urlencode(self.params, quote_via=quote)}" if self.params else self.path


# Accounts


def request_verification_code(email: str) -> Call[Message]:
    return _post_json("/auth/request-verification-code", {"email": email})


def register(email: str, verification_code: str, password: str) -> Call[Session]:
    return _post_json("/auth/register", {"email": email, "verification_code": verification_code, "password": password})


def login(email: str, password: str) -> Call[Session]:
    return _post_json("/auth/login", {"email": email, "password": password})


def login_with_form(email: str, password: str) -> Call[Session]:
    form = urlencode({"grant_type": "password", "username": email, "password": password})
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return Call(method="POST", path=f"{API}/auth/token", headers=headers, body=form.encode("ascii"))


def logout() -> Call[Message]:
    return Call(method="POST", path=f"{API}/auth/logout")


def get_current_user() -> Call[User]:
    return _get("/users/me")


# Tasks


def create_task(
    goal: str,
    *,
    tools: Sequence[str] | None,
    limits: Mapping[str, float] | None = None,
    model: str | None = None,
    hold: bool = False,
    idempotency_key: str | None = None,
) -> Call[Task]:
    content: dict[str, Any] = {"goal": goal, "tools": None if tools is None else list(tools)}
    if limits is not None:
        content["limits"] = dict(limits)
    if model is not None:
        content["model"] = model
    if hold:
        content["hold"] = True
    headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
    return _post_json("/tasks/", content, headers=headers, has_key=idempotency_key is not None)


def start_task(task_id: int) -> Call[Task]:
    return Call(method="POST", path=f"{_task(task_id)}/start")


def send_message(
    task_id: int, content: str, *, question_id: str | None = None, idempotency_key: str | None = None
) -> Call[Task]:
    body = {"content": content} if question_id is None else {"content": content, "question_id": question_id}
    headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
    path = f"/tasks/{operator.index(task_id)}/messages"
    return _post_json(path, body, headers=headers, has_key=idempotency_key is not None)


def list_tasks(*, limit: int | None = None, before: int | None = None) -> Call[list[Task]]:
    return _get("/tasks/", limit=limit, before=before)


def get_task(task_id: int, *, events: str | None = None) -> Call[Task]:
    """`events` is `all` (what None means), `none` or `tail:N`."""
    return _get(f"/tasks/{operator.index(task_id)}", events=events)


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


# Files of a task's work_dir


def list_files_tree(
    task_id: int, path: str, *, depth: int | None = None, limit: int | None = None
) -> Call[list[FileNode]]:
    return _get(f"/tasks/{operator.index(task_id)}/files/tree", path=path, depth=depth, limit=limit)


def get_file_content(task_id: int, path: str) -> Call[bytes]:
    return _get(f"/tasks/{operator.index(task_id)}/files/content", path=path)


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
    return _post_json(f"/tasks/{operator.index(task_id)}/files/download", {"paths": list(paths)}, is_idempotent=True)


# Service


def get_health() -> Call[JsonObject]:
    return Call(method="GET", path="/health", is_idempotent=True)


def get_ready() -> Call[JsonObject]:
    """Answers 503 with the same body while a part is not ready."""
    return Call(method="GET", path="/ready", is_idempotent=True, accepted=frozenset({503}))


def get_info() -> Call[JsonObject]:
    return _get("/info")


def check_model(model: str | None = None) -> Call[ModelCheck]:
    """A repetition within a minute gives the same answer again."""
    return _post_json("/model/check", {"model": model}, is_idempotent=True)


def _task(task_id: int) -> str:
    return f"{API}/tasks/{operator.index(task_id)}"  # index(): a text such as "../users" never becomes a path


def _get(path: str, /, **params: str | int | None) -> Call[Any]:
    given = tuple((name, str(value)) for name, value in params.items() if value is not None)
    return Call(method="GET", path=API + path, params=given, is_idempotent=True)


def _post_json(
    path: str,
    content: Mapping[str, Any],
    *,
    headers: Mapping[str, str] | None = None,
    is_idempotent: bool = False,
    has_key: bool = False,
) -> Call[Any]:
    return Call(
        method="POST",
        path=API + path,
        headers={"Content-Type": "application/json", **(headers or {})},
        body=json.dumps(content, separators=(",", ":")).encode("ascii"),
        is_idempotent=is_idempotent,
        has_key=has_key,
    )
