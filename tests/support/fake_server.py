"""A server that says what a test scripts, over real HTTP: what a real one can't be made to do on demand.

It speaks WIRE.md for one user. A task's script is a list of events; between them may stand a `Gate`, which the test
opens, and `CUT`, at which the connection breaks once.
"""

import base64
import contextlib
import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "fake-token"
AT = "2026-11-24T08:00:{:06.3f}Z"
ENDED = {"completed", "failed", "stopped"}
NO_USAGE = {"requests": 2, "tool_calls": 2, "input_tokens": None, "output_tokens": None, "cost_usd": None}


class Gate(threading.Event):
    """A place in a script where the stream waits until the test goes on."""


@dataclass
class Cut:
    """A place where the connection breaks; used up by breaking it `times`."""

    times: int = 1


Script = list["dict[str, Any] | Gate | Cut"]


@dataclass
class FakeTask:
    """One task: what `GET /tasks/{id}` says, its script, and its files."""

    id: int
    goal: str
    script: Script
    status: str = "running"
    model: str = "beray:rules"
    model_kind: str = "rules"
    files: dict[str, bytes] = field(default_factory=dict)
    stops: bool = True
    """Whether a stop ends it."""
    question: dict[str, Any] | None = None
    """Set by `input.requested` when it is streamed, taken away by a message."""
    messages: list[str] = field(default_factory=list)
    """What it was told."""
    tools: list[str] | None = None
    limits: dict[str, float] | None = None
    webhook_url: str | None = None
    run: int = 1
    stopped: threading.Event = field(default_factory=threading.Event)

    def view(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "goal": self.goal,
            "status": self.status,
            "created_at": AT.format(0),
            "updated_at": AT.format(0),
            "started_at": AT.format(0),
            "finished_at": AT.format(6) if self.status in ENDED else None,
            "result": None,
            "error": None,
            "model": self.model,
            "model_kind": self.model_kind,
            "tools": self.tools,
            "usage": NO_USAGE,
            "last_seq": len(self.events()),
            "run": self.run,
            "attempt": 1,
            "stop_requested": False,
            "question": self.question,
        }

    def events(self) -> list[dict[str, Any]]:
        return [item for item in numbered(self.script, self.id) if isinstance(item, dict)]


def numbered(script: Script, task_id: int) -> Script:
    """The script with `v`, `seq`, `at` and `task_id` in its events."""
    result: Script = []
    seq = 0
    for item in script:
        if isinstance(item, dict):
            seq += 1
            result.append({"v": 1, "seq": seq, "at": AT.format(seq / 2), "task_id": task_id, **item})
        else:
            result.append(item)
    return result


class FakeServer:
    """The server. `tasks` is what it knows; `requests` what it was asked, as `METHOD path`."""

    def __init__(self) -> None:
        self.tasks: dict[int, FakeTask] = {}
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.refusals: dict[str, tuple[int, dict[str, Any]]] = {}
        """Answers to give instead, by `METHOD path`."""
        self.model_check: dict[str, Any] | None = None
        """What the model's check answers; None: the server is too old to be asked."""
        self.info: dict[str, Any] = {
            "version": "0.1.0",
            "model": "beray:rules",
            "model_kind": "rules",
            "model_notice": {"zh": "规则模式，不是 AI 模型", "en": "rules mode, not an AI model: set OPENAI_API_KEY"},
            "sandbox": {
                "backend": "landlock",
                "confinements": [
                    {"name": "files", "is_confined": True, "note": ""},
                    {"name": "memory", "is_confined": False, "note": "no cgroup"},
                ],
                "python": "/usr/bin/python3",
                "notes": ["not here: bubblewrap: missing"],
            },
            "limits": {},
        }
        self.password = "correct horse"
        self.tokens: dict[int, dict[str, Any]] = {}
        """API tokens, by id, without their secrets."""
        self.next_script: Script = []
        self.is_down = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        self.base_url = f"http://127.0.0.1:{self._http.server_address[1]}"

    def add(self, script: Script, *, goal: str = "print hello world", **fields: Any) -> FakeTask:
        task_id = max(self.tasks, default=41) + 1
        task = self.tasks[task_id] = FakeTask(task_id, goal, script, **fields)
        ended = [item for item in script if isinstance(item, dict) and item["type"] == "task.finished"]
        if ended and not any(isinstance(item, Gate | Cut) for item in script):
            task.status = ended[-1]["status"]
        return task

    def close(self) -> None:
        for task in self.tasks.values():
            task.stopped.set()
            for item in task.script:
                if isinstance(item, Gate):
                    item.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def _handler_of(server: FakeServer) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        fake = server

    return Handler


class _Handler(BaseHTTPRequestHandler):
    fake: FakeServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._route()

    do_POST = do_PUT = do_DELETE = do_HEAD = do_GET  # noqa: N815  # names that http.server looks for

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # clients of these tests leave when they like
            super().handle()

    def _route(self) -> None:
        url = urlsplit(self.path)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.body = self._read_body()
        path = url.path.rstrip("/")
        asked = f"{self.command} {path}"
        self.fake.requests.append(asked)
        self.fake.headers.append(dict(self.headers.items()))
        if self.fake.is_down.is_set():
            self.close_connection = True
            return
        if asked in self.fake.refusals:
            status, content = self.fake.refusals[asked]
            self._json({"status": status, "title": "", "request_id": "request-1", **content}, status)
            return
        handler = {
            "GET /health": lambda: self._json({"status": "ok"}),
            "GET /ready": lambda: self._json({"status": "ready", "checks": {}}),
            "GET /api/v1/info": lambda: self._json(self.fake.info),
        }.get(asked)
        if handler is not None:
            handler()
        elif path.startswith("/api/v1/auth/"):
            self._auth(path.removeprefix("/api/v1/auth/"))
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._refuse(401, "not_authenticated", "Not logged in.")
        elif path == "/api/v1/users/me":
            self._json(_user())
        elif path.startswith("/api/v1/users/me/tokens"):
            self._tokens(path.removeprefix("/api/v1/users/me/tokens").strip("/"))
        elif path == "/api/v1/model/check" and self.fake.model_check is not None:
            self._json(self.fake.model_check)
        elif not path.startswith("/api/v1/tasks"):
            self._refuse(404, "not_found", f"There is nothing at {path}.")
        else:
            self._tasks(path.removeprefix("/api/v1/tasks").strip("/"))

    def _auth(self, what: str) -> None:
        body = json.loads(self.body or b"{}")
        if what == "request-verification-code":
            self._json({"message": "A code has been sent."})
        elif what == "logout":
            self._json({"message": "Logged out."})
        elif what in {"register", "reset-password"} and body["verification_code"] != "123456":
            self._refuse(400, "invalid_verification_code", "The code is wrong.")
        elif what == "reset-password":
            self.fake.password = body["password"]
            self._json({"message": "The password has been reset."})
        elif what == "login" and body["password"] != self.fake.password:
            self._refuse(401, "invalid_credentials", "Address or password is wrong.")
        else:
            self._json({"access_token": TOKEN, "token_type": "bearer", "expires_in": 60, "user": _user(body["email"])})

    def _tokens(self, number: str) -> None:
        if self.command == "POST":
            asked = json.loads(self.body)
            token_id = max(self.fake.tokens, default=0) + 1
            made = {"id": token_id, "name": asked["name"], "created_at": AT.format(0), "last_used_at": None}
            made["expires_at"] = None if asked["expires_in"] is None else AT.format(asked["expires_in"] % 60)
            self.fake.tokens[token_id] = made
            self._json({**made, "token": f"beray_{token_id}"}, 201)
        elif self.command == "GET":
            self._json([made for _, made in sorted(self.fake.tokens.items(), reverse=True)])
        elif self.fake.tokens.pop(int(number), None) is None:
            self._refuse(404, "api_token_not_found", f"There is no API token {number}.")
        else:
            self._json({"message": "deleted"})

    def _tasks(self, rest: str) -> None:
        if not rest:
            self._list_or_create()
            return
        number, _, action = rest.partition("/")
        task = self.fake.tasks.get(int(number))
        if task is None:
            self._refuse(404, "task_not_found", f"There is no task {number}.")
            return
        match self.command, action:
            case "GET", "":
                self._json(task.view() | ({} if self.query.get("events") == "none" else {"events": task.events()}))
            case "DELETE", "":
                del self.fake.tasks[task.id]
                self._json({"message": "deleted"})
            case "GET", "stream":
                self._stream(task)
            case "POST", "start":
                self._json(task.view())
            case "POST", "messages":
                self._say(task)
            case "POST", "stop":
                self._stop(task)
            case "GET", "files/tree":
                self._tree(task, self.query.get("path", "."))
            case "GET" | "HEAD", "files/content":
                self._content(task)
            case "PUT", "files/content":
                task.files[self.query["path"]] = self.body
                self._json({"message": "ok", "path": self.query["path"], "size": len(self.body), "sha256": ""}, 201)
            case "POST", "files/download":
                self._zip(task)

    def _list_or_create(self) -> None:
        if self.command == "POST":
            asked = json.loads(self.body)
            fields = {"model": asked["model"], "model_kind": "model"} if "model" in asked else {}
            made = self.fake.add(list(self.fake.next_script), goal=asked["goal"], tools=asked["tools"], **fields)
            made.limits = asked.get("limits")
            made.webhook_url = asked.get("webhook_url")
            self._json(made.view(), 201)
            return
        views = [task.view() for _, task in sorted(self.fake.tasks.items(), reverse=True)]
        self._json(views[: int(self.query.get("limit", 1000))])

    def _say(self, task: FakeTask) -> None:
        said = json.loads(self.body)
        if said.get("question_id") not in {None, (task.question or {}).get("question_id")}:
            self._refuse(409, "question_closed", "This question is no longer open.")
            return
        task.messages.append(said["content"])
        task.question = None
        if task.status in ENDED:
            task.run, task.status = task.run + 1, "queued"
        self._json(task.view(), 201)

    def _stop(self, task: FakeTask) -> None:
        if task.status in ENDED:
            self._refuse(409, "task_already_ended", f"Task {task.id} has ended.")
            return
        if task.stops:
            task.status = "stopped"
            task.stopped.set()
        self._json({"message": f"Task {task.id} is being stopped.", "status": task.status})

    def _stream(self, task: FakeTask) -> None:
        after = int(self.headers.get("Last-Event-ID") or 0)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._chunk(b"retry: 10\n\n")
        for item in numbered(task.script, task.id):
            if isinstance(item, Cut):
                if item.times > 0:
                    item.times -= 1
                    self.close_connection = True
                    return  # no last chunk: the client sees a cut
            elif isinstance(item, Gate):
                while not item.wait(0.02):
                    if task.stopped.is_set():
                        break
            elif item["seq"] > after:
                if item["type"] == "task.finished":
                    task.status = item["status"]
                if item["type"] == "input.requested" and not task.messages:
                    task.question = {name: item[name] for name in ("question_id", "question", "choices")}
                data = json.dumps(item, ensure_ascii=False)
                self._chunk(f"id: {item['seq']}\nevent: {item['type']}\ndata: {data}\n\n".encode())
        self._chunk(b"")

    def _tree(self, task: FakeTask, path: str) -> None:
        if path in task.files:
            self._refuse(409, "not_a_directory", f"{path} is not a directory.")
            return
        below = "" if path == "." else path.rstrip("/") + "/"
        found = [name for name in task.files if name.startswith(below)]
        if below and not found:
            self._refuse(404, "file_not_found", f"There is no {path}.")
            return
        self._json(list(_nodes(task.files, below)))

    def _content(self, task: FakeTask) -> None:
        path = self.query["path"]
        content = task.files.get(path)
        if path == "." or any(name.startswith(f"{path}/") for name in task.files):
            self._refuse(409, "not_a_file", f"{path} is no file.")
        elif content is None:
            self._refuse(404, "file_not_found", f"There is no {self.query['path']}.")
        else:
            digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
            self._bytes(content, "application/octet-stream", headers={"Repr-Digest": f"sha-256=:{digest}:"})

    def _zip(self, task: FakeTask) -> None:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name, content in task.files.items():
                archive.writestr(name, content)
        self._bytes(packed.getvalue(), "application/zip")

    def _read_body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _refuse(self, status: int, code: str, detail: str) -> None:
        self._json({"detail": detail, "code": code, "status": status, "title": "", "request_id": "request-1"}, status)

    def _json(self, content: Any, status: int = 200) -> None:
        self._bytes(json.dumps(content).encode(), "application/json", status)

    def _bytes(self, content: bytes, kind: str, status: int = 200, *, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _user(email: str = "ada@example.com") -> dict[str, Any]:
    return {"id": 1, "email": email, "created_at": AT.format(0)}


def _nodes(files: dict[str, bytes], below: str) -> Iterator[dict[str, Any]]:
    names = sorted({name.removeprefix(below).split("/")[0] for name in files if name.startswith(below)})
    for name in names:
        path = below + name
        if path in files:
            yield {"name": name, "path": path, "type": "file", "size": len(files[path]), "modified_at": AT.format(0)}
        else:
            children = list(_nodes(files, path + "/"))
            yield {
                "name": name,
                "path": path,
                "type": "directory",
                "size": 0,
                "modified_at": AT.format(0),
                "children": children,
            }
