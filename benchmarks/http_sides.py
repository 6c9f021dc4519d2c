"""The other sides of `http.py`: the same task in the same database, served with nothing around it, or as one would.

    python -m benchmarks.http_sides {starlette,fastapi} DATABASE

Each makes the two look-ups of ours (whose token is it; the user's task) with sqlite3 on the event loop, and answers
with the same object. Listens on a free loopback port, which it prints, and ends when its standard input does.
"""

import hashlib
import sqlite3
import sys
import time
from datetime import UTC, datetime
from typing import Annotated, Any

import msgspec
import orjson
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.twin import serve
from beray.server.clock import iso, iso_or_none
from beray.server.tasks.bodies import TaskBody

USER_BY_TOKEN = (
    "SELECT u.id, u.email, u.created_at FROM session s JOIN user_account u ON u.id = s.user_id"
    " WHERE s.token_hash = ? AND s.revoked_at IS NULL AND s.expires_at > ?"
)
COLUMNS = (
    "id, goal, status, created_at, updated_at, started_at, finished_at, result, error, model, model_kind, tools,"
    " usage, last_seq, run, attempt, stop_requested, question"
)
TASK = f"SELECT {COLUMNS} FROM task WHERE id = ? AND user_id = ? AND deleted_at IS NULL"
TASKS = f"SELECT {COLUMNS} FROM task WHERE user_id = ? AND deleted_at IS NULL ORDER BY id DESC LIMIT ?"
NAMES = COLUMNS.replace(" ", "").split(",")


class LookUps:
    """The look-ups, on a read-only connection."""

    def __init__(self, database: str) -> None:
        uri = f"file:{database}?mode=ro"
        self._reader = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)

    def user_of(self, token: str) -> Any:
        """The user's row, or None."""
        hashed = hashlib.sha256(token.encode()).digest()
        return self._reader.execute(USER_BY_TOKEN, (hashed, time.time_ns() // 1_000_000)).fetchone()

    def task(self, task_id: int, user_id: int) -> Any:
        """The task's row, or None."""
        return self._reader.execute(TASK, (task_id, user_id)).fetchone()

    def tasks(self, user_id: int, limit: int) -> list[Any]:
        """The newest tasks' rows."""
        return self._reader.execute(TASKS, (user_id, limit)).fetchall()


class Task(msgspec.Struct):
    """A task as msgspec writes it fastest: JSON that is stored as text goes through as it is."""

    id: int
    goal: str
    status: str
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    result: str | None
    error: msgspec.Raw | None
    model: str | None
    model_kind: str | None
    tools: msgspec.Raw | None
    usage: msgspec.Raw
    last_seq: int
    run: int
    attempt: int
    stop_requested: bool
    question: msgspec.Raw | None


def build_starlette(look_ups: LookUps) -> Starlette:
    """Bare Starlette and msgspec."""
    encode = msgspec.json.Encoder().encode

    def user_of(request: Request) -> Any:
        return look_ups.user_of(request.headers["authorization"].removeprefix("Bearer "))

    async def get_task(request: Request) -> Response:
        user = user_of(request)
        if user is None:
            return Response(status_code=401)
        row = look_ups.task(int(request.path_params["id"]), user[0])
        if row is None:
            return Response(status_code=404)
        return Response(encode(_struct(row)), media_type="application/json")

    async def list_tasks(request: Request) -> Response:
        user = user_of(request)
        if user is None:
            return Response(status_code=401)
        rows = look_ups.tasks(user[0], int(request.query_params["limit"]))
        return Response(encode([_struct(row) for row in rows]), media_type="application/json")

    return Starlette(routes=[Route("/tasks/{id:int}", get_task), Route("/tasks", list_tasks)])


def build_fastapi(look_ups: LookUps) -> FastAPI:
    """FastAPI as its documentation teaches it: dependencies, and a response model."""
    app = FastAPI()
    bearer = OAuth2PasswordBearer(tokenUrl="token")

    async def current_user(token: Annotated[str, Depends(bearer)]) -> Any:
        user = look_ups.user_of(token)
        if user is None:
            raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})
        return user

    @app.get("/tasks/{task_id}", response_model=TaskBody)
    async def get_task(task_id: int, user: Annotated[Any, Depends(current_user)]) -> Any:
        row = look_ups.task(task_id, user[0])
        if row is None:
            raise HTTPException(404)
        return _fields(row)

    @app.get("/tasks", response_model=list[TaskBody])
    async def list_tasks(limit: int, user: Annotated[Any, Depends(current_user)]) -> Any:
        return [_fields(row) for row in look_ups.tasks(user[0], limit)]

    return app


def _struct(row: Any) -> Task:
    created, updated, started, finished = (_at(value) for value in row[3:7])
    error, tools, usage, question = (_raw(row[at]) for at in (8, 11, 12, 17))
    return Task(
        row[0], row[1], row[2], created, updated, started, finished, row[7], error, row[9], row[10],
        tools, usage, row[13], row[14], row[15], bool(row[16]), question,
    )  # fmt: skip


def _at(value: int | None) -> Any:
    return None if value is None else datetime.fromtimestamp(value / 1000, UTC)


def _raw(value: str | None) -> Any:
    return None if value is None else msgspec.Raw(value.encode())


def _fields(row: Any) -> dict[str, Any]:
    task = dict(zip(NAMES, row, strict=True))
    for name in ("error", "tools", "usage", "question"):
        task[name] = None if task[name] is None else orjson.loads(task[name])
    for name in ("created_at", "updated_at"):
        task[name] = iso(task[name])
    for name in ("started_at", "finished_at"):
        task[name] = iso_or_none(task[name])
    return task


def main() -> None:
    """Serve until standard input ends."""
    look_ups = LookUps(sys.argv[2])
    serve(build_starlette(look_ups) if sys.argv[1] == "starlette" else build_fastapi(look_ups))


if __name__ == "__main__":
    main()
