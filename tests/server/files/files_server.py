"""A real server that has nothing but files: uvicorn on a free loopback port, work_dirs in a folder of the test's."""

import io
import itertools
import json
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import requests
from fastapi import FastAPI, Request

from beray.server.app import install_error_handlers
from beray.server.audit import AuditTrail
from beray.server.auth.service import Accounts
from beray.server.clock import system_clock
from beray.server.connection import connection_speaking
from beray.server.db.auth import UserRow
from beray.server.db.sqlite import SqliteDatabase
from beray.server.direct import DirectRoutes
from beray.server.edge import Edge
from beray.server.errors import Refused
from beray.server.files.routes import build_router
from beray.server.files.service import Files
from beray.server.files.x_accel import XAccel
from beray.server.work_dirs.outputs import Outputs
from beray.server.work_dirs.stored import StoredBytes
from beray.server.work_dirs.work_dir import WorkDir, WorkDirs
from tests.support.asgi import served
from tests.support.databases import make_sqlite

MAX_UPLOAD_BYTES = 8 << 20
X_ACCEL_PREFIX = "/beray-files"
OWNER = UserRow(1, "owner@example.com", 0)
STRANGER = UserRow(2, "stranger@example.com", 0)


class FakeAccounts:
    """The token is the user's name."""

    async def authenticate(self, request: Request) -> UserRow:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        for user in (OWNER, STRANGER):
            if token == user.email:
                return user
        raise Refused("not_authenticated")


@dataclass
class TaskFiles:
    """One task as a client and as its own commands see it."""

    url: str
    id: int
    work_dir: WorkDir
    session: requests.Session = field(repr=False)

    @property
    def folder(self) -> Path:
        return self.work_dir.path

    def request(self, method: str, name: str, **kwargs: Any) -> requests.Response:
        return self.session.request(method, f"{self.url}/{name}", timeout=30, **kwargs)

    def get(
        self, path: str, headers: dict[str, str] | None = None, *, inline: str | None = None, **kwargs: Any
    ) -> requests.Response:
        params = {"path": path} | ({} if inline is None else {"inline": inline})
        return self.request("GET", "content", params=params, headers=headers, **kwargs)

    def put(self, path: str, content: Any, headers: dict[str, str] | None = None) -> requests.Response:
        return self.request("PUT", "content", params={"path": path}, data=content, headers=headers)

    def delete(self, path: str) -> requests.Response:
        return self.request("DELETE", "content", params={"path": path})

    def tree(self, path: str = ".", **params: Any) -> requests.Response:
        return self.request("GET", "tree", params={"path": path, **params})

    def zip(self, *paths: str) -> requests.Response:
        return self.request("POST", "download", json={"paths": list(paths)})

    def unzip(self, *paths: str) -> dict[str, bytes]:
        """The entries of the archive; folders end with a slash."""
        answer = self.zip(*paths)
        assert answer.status_code == 200, answer.text
        return entries(answer.content)


def entries(archive: bytes) -> dict[str, bytes]:
    """What is in a ZIP; fails if it is damaged or names something twice."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        assert len(set(opened.namelist())) == len(opened.namelist())
        return {name: opened.read(name) for name in opened.namelist()}


def code_of(answer: requests.Response) -> str:
    """The error code, after a check of the one error shape."""
    body = json.loads(answer.content)
    assert answer.headers["content-type"] == "application/problem+json"
    assert body["status"] == answer.status_code
    assert len(body["detail"]) > 5
    return str(body["code"])


@dataclass
class FilesServer:
    """What a test sees of the server."""

    root: Path
    base_url: str = ""
    port: int = 0
    work_dirs: WorkDirs = field(init=False)
    session: requests.Session = field(default_factory=requests.Session)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.work_dirs = WorkDirs(self.root)
        self.session.headers.update({"Authorization": f"Bearer {OWNER.email}", "Accept-Language": "en"})

    def make_task(self, *, owner: int | None = None) -> TaskFiles:
        task_id = next(self._numbers)
        work_dir = self.work_dirs.create(task_id, owner=owner)
        self._owners[task_id] = owner
        return TaskFiles(f"{self.base_url}/tasks/{task_id}/files", task_id, work_dir, self.session)

    _owners: dict[int, int | None] = field(default_factory=dict)

    async def open_work_dir(self, user: UserRow, task_id: int) -> WorkDir:
        if user != OWNER:
            raise Refused("task_not_found", task_id=task_id)
        return self.work_dirs.get(task_id, owner=self._owners.get(task_id))

    async def find_outputs(self, user: UserRow, task_id: int) -> Outputs:
        if user != OWNER:
            raise Refused("task_not_found", task_id=task_id)
        return self.work_dirs.outputs(task_id)

    def open_descriptors(self) -> set[str]:
        """What below the work_dirs this process (the server is in it) has open."""
        links = set()
        for entry in Path("/proc/self/fd").iterdir():
            try:
                target = str(entry.readlink())
            except FileNotFoundError:
                continue
            if target.startswith(str(self.root)):
                links.add(target)
        return links


@contextmanager
def run_files_server(root: Path) -> Iterator[FilesServer]:
    """Run the server until the block ends."""
    server = FilesServer(root)
    with served(_app(server), connection=connection_speaking("zh")) as url:
        server.port = int(url.rsplit(":", 1)[1])
        server.base_url = f"{url}/api/v1"
        try:
            yield server
        finally:
            server.session.close()


def _app(server: FilesServer) -> Edge:
    path = server.root.with_name("beray.db")  # beside what `open_descriptors` looks at
    make_sqlite(path)
    database = SqliteDatabase(path)

    stored, trail = StoredBytes(database, server.work_dirs, most=0), AuditTrail(database, system_clock)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        database.open()
        yield
        await stored.close()
        database.close()

    app = FastAPI(redirect_slashes=False, lifespan=lifespan)
    x_accel = XAccel(X_ACCEL_PREFIX, server.root)  # who does not ask for it, gets the bytes
    files = Files(
        server.open_work_dir,
        stored,
        trail,
        find_outputs=server.find_outputs,
        max_upload_bytes=MAX_UPLOAD_BYTES,
        x_accel=x_accel,
    )
    router, handlers = build_router(files, cast(Accounts, FakeAccounts()))
    app.include_router(router, prefix="/api/v1")

    install_error_handlers(app)
    direct = DirectRoutes(app, "/api/v1/tasks", handlers)
    return Edge(direct, default_language="zh", max_body_bytes=2 << 20)
