"""Attack 57: two users call everything there is about tasks, files, sessions and API tokens in any order; neither
ever gets the other's, also where one of them is an admin, who sees that there is something and never what.

Each user's goals, files, tokens and searches carry a mark that is nowhere else. The model is what each of them has
made. After every call the answer must not hold the other's mark, an id of the other's must be as unknown as one that
never was, and both lists must be exactly what the model says.
"""

import io
import itertools
import secrets
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from tests.support.rounds import is_long, rounds
from tests.support.server import PASSWORD, ServerProcess

EXAMPLES = rounds(short=6)
STEPS = 40
NAMES = ("notes.txt", "a/b.txt", "é 1.txt")  # easily guessed: what is in them is not
AGENTS_FILE = "report.txt"
KEYS = (None, None, "the-same-key")
UNKNOWN = 2**62
CALL_ID = "call_1_1_0"
UNHEARD = {"rules_read_no_messages", "task_being_stopped"}
TIMEOUT_SECONDS = 30
NOBODY = "http://127.0.0.1:9/"  # who listens there is none of ours

_numbers = itertools.count(1)

users = st.sampled_from((0, 1))
picks = st.integers(0, 20)
names = st.sampled_from(NAMES)


@dataclass
class OwnTask:
    """What its owner knows of a task."""

    id: int
    goal: str
    is_held: bool
    is_deleted: bool = False
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass
class User:
    """One of the two: who they are, and all they have made."""

    email: str
    token: str
    mark: str = field(default_factory=lambda: f"mark-{secrets.token_hex(8)}")
    tasks: dict[int, OwnTask] = field(default_factory=dict)
    answers: dict[str, tuple[str, int]] = field(default_factory=dict)  # Idempotency-Key -> goal, task id
    api_tokens: dict[int, str] = field(default_factory=dict)  # id -> the token
    webhook_url: str | None = None
    secrets: set[str] = field(default_factory=set)

    @property
    def living(self) -> list[int]:
        return sorted((task.id for task in self.tasks.values() if not task.is_deleted), reverse=True)


Send = Callable[[requests.PreparedRequest, str], requests.Response]
"""Sends a request; told which route it is meant for, as `GET /tasks/{task_id}`."""


class Ownership(RuleBasedStateMachine):
    server: ServerProcess
    send: Send
    has_admin: bool | None = None  # whether the first of the two is one; None: in every other example
    tokens: tuple[str, str]  # of the two users of this run

    def __init__(self) -> None:
        super().__init__()
        number = next(_numbers)
        emails = [f"{name}-{number}-{secrets.token_hex(4)}@example.com" for name in ("ann", "bob")]
        self.users = [User(email, self.server.register(email)) for email in emails]
        type(self).tokens = (self.users[0].token, self.users[1].token)
        if self.has_admin is None:
            self.has_admin = number % 2 == 0
        if self.has_admin:
            self.server.promote(emails[0])

    # Calls

    def call(self, who: int, route: str, wanted: int | None = None, **request: Any) -> requests.Response:
        """Make a call as a user; whatever comes back must not hold the other's mark."""
        method, path = route.split(" ")
        headers = {"Authorization": f"Bearer {self.users[who].token}", **request.pop("headers", {})}
        named = path.format(task_id=wanted, token_id=wanted, session_id=wanted, user_id=wanted, call_id=CALL_ID)
        url = f"{self.server.base_url}/api/v1{named}"
        prepared = requests.Request(method, url, headers=headers, **request).prepare()
        answer = type(self).send(prepared, route)
        others_mark = self.users[1 - who].mark.encode()
        for part in parts_of(answer):
            assert others_mark not in part, f"{self.users[who].email} was shown the other's mark by {route}"
        return answer

    def call_task(self, who: int, route: str, pick: int, **request: Any) -> tuple[OwnTask | None, requests.Response]:
        """Call a task of either user, or one that is not; the task, if it is the caller's and lives."""
        ids = [*self.users[0].tasks, *self.users[1].tasks, UNKNOWN]
        task_id = ids[pick % len(ids)]
        answer = self.call(who, route, task_id, **request)
        task = self.users[who].tasks.get(task_id)
        if task is not None and not task.is_deleted:
            return task, answer
        assert (answer.status_code, code_of(answer)) == (404, "task_not_found"), f"{route}: {answer.text}"
        return None, answer

    # Tasks

    @rule(who=users, version=st.integers(0, 1), is_held=st.booleans(), key=st.sampled_from(KEYS))
    def submit(self, who: int, version: int, is_held: bool, key: str | None) -> None:
        user = self.users[who]
        goal = f'write "{user.mark} {version}" to {AGENTS_FILE}'
        headers = {} if key is None else {"Idempotency-Key": key}
        body = {"goal": goal, "hold": is_held}
        answer = self.call(who, "POST /tasks", json=body, headers=headers)
        known = user.answers.get(key or "")
        if known is not None and known[0] != str(body):
            assert (answer.status_code, code_of(answer)) == (409, "idempotency_mismatch")
            return
        assert answer.status_code == 201, answer.text
        task_id = answer.json()["id"]
        if known is not None:
            assert task_id == known[1], "the same key of somebody else gave their answer"
            return
        assert all(task_id not in other.tasks for other in self.users), "an id was given twice"
        user.tasks[task_id] = OwnTask(task_id, goal, is_held)
        if key is not None:
            user.answers[key] = (str(body), task_id)

    @rule(who=users, pick=picks, events=st.sampled_from(("all", "none", "tail:2")))
    def look(self, who: int, pick: int, events: str) -> None:
        task, answer = self.call_task(who, "GET /tasks/{task_id}", pick, params={"events": events})
        if task is not None:
            assert answer.status_code == 200, answer.text
            assert answer.json()["goal"] == task.goal

    @rule(who=users, pick=picks)
    def start(self, who: int, pick: int) -> None:
        task, answer = self.call_task(who, "POST /tasks/{task_id}/start", pick)
        if task is not None:
            assert answer.status_code == (200 if task.is_held else 409), answer.text
            task.is_held = False

    @rule(who=users, pick=picks)
    def stop(self, who: int, pick: int) -> None:
        task, answer = self.call_task(who, "POST /tasks/{task_id}/stop", pick)
        if task is not None:
            assert answer.status_code in {200, 409}, answer.text
            task.is_held = False

    @rule(who=users, pick=picks)
    def say(self, who: int, pick: int) -> None:
        """A task of fixed rules takes a message once it has ended."""
        body = {"content": f'write "{self.users[who].mark} again" to {AGENTS_FILE}'}
        task, answer = self.call_task(who, "POST /tasks/{task_id}/messages", pick, json=body)
        if task is not None:
            assert answer.status_code == 201 or code_of(answer) in UNHEARD, answer.text

    @rule(who=users, pick=picks)
    def stream(self, who: int, pick: int) -> None:
        """Stopped before, so that there is an end to read to."""
        self.stop(who, pick)
        task, answer = self.call_task(who, "GET /tasks/{task_id}/stream", pick)
        if task is not None:
            assert "event: task.finished" in answer.text, answer.text

    @precondition(lambda self: any(user.living for user in self.users))
    @rule(who=users, pick=picks)
    def delete(self, who: int, pick: int) -> None:
        task, answer = self.call_task(who, "DELETE /tasks/{task_id}", pick)
        if task is not None:
            assert answer.status_code == 200, answer.text
            task.is_deleted = True

    @rule(who=users, other=users, limit=st.integers(1, 3))
    def search(self, who: int, other: int, limit: int) -> None:
        """By either's mark, in pages."""
        found: list[int] = []
        page: dict[str, Any] = {"limit": limit, "q": self.users[other].mark}
        while True:
            answer = self.call(who, "GET /tasks", params=page)
            found += [task["id"] for task in answer.json()]
            if "next" not in answer.links:
                break
            page["before"] = found[-1]
        assert found == (self.users[who].living if who == other else [])

    # Files

    @rule(who=users, pick=picks, name=names)
    def upload(self, who: int, pick: int, name: str) -> None:
        content = f"{self.users[who].mark} in a file".encode()
        task, answer = self.call_task(
            who, "PUT /tasks/{task_id}/files/content", pick, params={"path": name}, data=content
        )
        if task is not None:
            assert answer.status_code == (200 if name in task.files else 201), answer.text
            task.files[name] = content

    @rule(who=users, pick=picks, name=names)
    def read(self, who: int, pick: int, name: str) -> None:
        task, answer = self.call_task(who, "GET /tasks/{task_id}/files/content", pick, params={"path": name})
        if task is not None:
            assert answer.content == task.files[name] if name in task.files else code_of(answer) == "file_not_found"

    @rule(who=users, pick=picks, name=names)
    def remove(self, who: int, pick: int, name: str) -> None:
        task, answer = self.call_task(who, "DELETE /tasks/{task_id}/files/content", pick, params={"path": name})
        if task is not None:
            assert answer.status_code == (200 if name in task.files else 404), answer.text
            task.files.pop(name, None)

    @rule(who=users, pick=picks)
    def tree(self, who: int, pick: int) -> None:
        task, answer = self.call_task(who, "GET /tasks/{task_id}/files/tree", pick)
        if task is not None:
            assert answer.status_code == 200, answer.text
            assert set(files_of(answer.json())) - {AGENTS_FILE} == set(task.files)

    @rule(who=users, pick=picks, by_link=st.booleans())
    def download(self, who: int, pick: int, by_link: bool) -> None:
        method, body = ("GET", {}) if by_link else ("POST", {"json": {"paths": []}})
        task, answer = self.call_task(who, f"{method} /tasks/{{task_id}}/files/download", pick, **body)
        if task is not None:
            assert answer.status_code == 200, answer.text
            held = {name: content for name, content in unzipped(answer.content) if name != AGENTS_FILE}
            assert held == task.files

    @rule(who=users, pick=picks)
    def read_output(self, who: int, pick: int) -> None:
        """Of a call that has printed nothing."""
        task, answer = self.call_task(who, "GET /tasks/{task_id}/output/{call_id}", pick)
        if task is not None:
            assert (answer.status_code, code_of(answer)) == (404, "output_not_found"), answer.text

    # Accounts

    @rule(who=users)
    def log_in_again(self, who: int) -> None:
        """The old token is nobody's; the new one is the same user's."""
        assert self.call(who, "POST /auth/logout").status_code == 200
        self.log_in_anew(who)

    def log_in_anew(self, who: int) -> None:
        """Their session has ended."""
        user = self.users[who]
        assert self.call(who, "GET /users/me").status_code == 401
        user.token = self.begin_session(who)
        type(self).tokens = (self.users[0].token, self.users[1].token)

    def begin_session(self, who: int) -> str:
        login = {"email": self.users[who].email, "password": PASSWORD}
        answer = self.call(who, "POST /auth/login", json=login, headers={"Authorization": ""})
        return str(answer.json()["access_token"])

    def session_of(self, who: int) -> int:
        """The only one they have."""
        [session] = self.call(who, "GET /users/me/sessions").json()
        assert session["is_current"]
        return int(session["id"])

    @rule(who=users, pick=picks)
    def end_session(self, who: int, pick: int) -> None:
        """Of either user, or one that is not."""
        own = self.session_of(who)
        session_id = (own, self.session_of(1 - who), UNKNOWN)[pick % 3]
        answer = self.call(who, "DELETE /users/me/sessions/{session_id}", session_id)
        assert answer.status_code == (200 if session_id == own else 404), answer.text
        if session_id == own:
            self.log_in_anew(who)

    @rule(who=users)
    def end_other_sessions(self, who: int) -> None:
        self.begin_session(who)
        assert self.call(who, "DELETE /users/me/sessions").json()["ended"] == 1
        self.session_of(who)

    @rule(who=users)
    def make_token(self, who: int) -> None:
        user = self.users[who]
        answer = self.call(who, "POST /users/me/tokens", json={"name": f"{user.mark} token"})
        assert answer.status_code == 201, answer.text
        user.api_tokens[answer.json()["id"]] = answer.json()["token"]
        self.list_tokens(who)

    @rule(who=users)
    def list_tokens(self, who: int) -> None:
        listed = [made["id"] for made in self.call(who, "GET /users/me/tokens").json()]
        assert listed == sorted(self.users[who].api_tokens, reverse=True)

    @rule(who=users, pick=picks)
    def delete_token(self, who: int, pick: int) -> None:
        """Of either user, or one that is not."""
        own = self.users[who].api_tokens
        ids = [*self.users[0].api_tokens, *self.users[1].api_tokens, UNKNOWN]
        token_id = ids[pick % len(ids)]
        answer = self.call(who, "DELETE /users/me/tokens/{token_id}", token_id)
        assert answer.status_code == (200 if token_id in own else 404), answer.text
        own.pop(token_id, None)

    @rule(who=users)
    def come_in_by_token(self, who: int) -> None:
        """A program sees what its owner sees."""
        user = self.users[who]
        for token in user.api_tokens.values():
            headers = {"Authorization": f"Bearer {token}"}
            assert self.call(who, "GET /users/me", headers=headers).json()["email"] == user.email

    @rule(who=users, has_one=st.booleans(), rotates=st.booleans())
    def set_webhook(self, who: int, has_one: bool, rotates: bool) -> None:
        user = self.users[who]
        user.webhook_url = f"{NOBODY}{user.mark}" if has_one else None
        answer = self.call(who, "PUT /users/me/webhook", json={"url": user.webhook_url, "rotate_secret": rotates})
        assert answer.status_code == 200, answer.text
        assert answer.json()["secret"] not in self.users[1 - who].secrets
        user.secrets.add(answer.json()["secret"])

    # Admins

    def is_admin(self, who: int) -> bool:
        return who == 0 and bool(self.has_admin)

    def call_admin(self, who: int, route: str, wanted: int | None = None, **request: Any) -> requests.Response | None:
        """Call what is for admins; None: there is nothing for this user."""
        answer = self.call(who, route, wanted, **request)
        if self.is_admin(who):
            assert code_of(answer) != "not_found", f"{route}: {answer.text}"
            return answer
        assert (answer.status_code, code_of(answer)) == (404, "not_found"), f"{route}: {answer.text}"
        return None

    @rule(who=users)
    def oversee(self, who: int) -> None:
        """What an admin sees of the other: their address and tasks, and not their mark, which is in all they say."""
        other = self.users[1 - who]
        self.call_admin(who, "GET /admin/overview")
        seen = self.call_admin(who, "GET /admin/users", params={"q": other.email})
        assert seen is None or [user["tasks"] for user in seen.json()] == [len(other.living)]
        params = {"status": ["queued", "running", "waiting", "completed", "failed", "stopped"], "limit": 500}
        tasks = self.call_admin(who, "GET /admin/tasks", params=params)
        assert tasks is None or {task["id"] for task in tasks.json()} >= set(other.living)

    @rule(who=users)
    def read_audit(self, who: int) -> None:
        """Paths and names of tokens stand in the log, so it is asked for what has neither."""
        entries = self.call_admin(who, "GET /admin/audit", params={"action": "task.created"})
        assert entries is None or entries.status_code == 200

    @rule(who=users, pick=picks)
    def stop_as_admin(self, who: int, pick: int) -> None:
        ids = [*self.users[0].tasks, *self.users[1].tasks, UNKNOWN]
        task_id = ids[pick % len(ids)]
        tasks = self.users[0].tasks | self.users[1].tasks
        answer = self.call_admin(who, "POST /admin/tasks/{task_id}/stop", task_id)
        if answer is None:
            return
        if task_id not in tasks or tasks[task_id].is_deleted:
            assert (answer.status_code, code_of(answer)) == (404, "task_not_found")
            return
        assert answer.status_code in {200, 409}, answer.text
        tasks[task_id].is_held = False

    @rule(who=users)
    def make_themselves_admin(self, who: int) -> None:
        user_id = self.call(who, "GET /users/me").json()["id"]
        answer = self.call_admin(who, "PUT /admin/users/{user_id}", user_id, json={"is_admin": True})
        assert answer is None or answer.json()["is_admin"] is True

    @invariant()
    def everybody_sees_their_own(self) -> None:
        for who, user in enumerate(self.users):
            assert self.call(who, "GET /users/me/webhook").json()["url"] == user.webhook_url
            me = self.call(who, "GET /users/me").json()
            assert (me["email"], me["is_admin"]) == (user.email, self.is_admin(who))
            assert [task["id"] for task in self.call(who, "GET /tasks").json()] == user.living


def parts_of(answer: requests.Response) -> Iterator[bytes]:
    """All that an answer says; an archive's files as they are when unpacked."""
    yield str(answer.headers).encode()
    yield answer.content
    if answer.headers.get("content-type") == "application/zip":
        for name, content in unzipped(answer.content):
            yield name.encode()
            yield content


def unzipped(archive: bytes) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        for entry in opened.infolist():
            if not entry.is_dir():
                yield entry.filename, opened.read(entry)


def files_of(nodes: list[dict[str, Any]]) -> Iterator[str]:
    for node in nodes:
        if node["type"] == "file":
            yield node["path"]
        yield from files_of(node.get("children") or [])


def code_of(answer: requests.Response) -> str | None:
    is_problem = answer.headers.get("content-type") == "application/problem+json"
    return answer.json()["code"] if is_problem else None


def machine(server: ServerProcess, send: Send, *, has_admin: bool | None = None) -> type[Ownership]:
    named = {"server": server, "send": staticmethod(send), "has_admin": has_admin}
    return type("Ownership", (Ownership,), named)


def run(tried: type[Ownership], examples: int) -> None:
    how = settings(
        max_examples=examples,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        derandomize=not is_long(),
        phases=[Phase.generate],  # marks and ids are new in each example: there is nothing to shrink towards
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    run_state_machine_as_test(tried, settings=how)


def documented(server: ServerProcess) -> set[str]:
    """The routes of tasks and what is in them, of sessions, of API tokens, and for admins."""
    document = requests.get(f"{server.base_url}/openapi.json", timeout=10).json()
    prefixes = ("/api/v1/tasks", "/api/v1/users/me/sessions", "/api/v1/users/me/tokens", "/api/v1/admin")
    paths = {path: methods for path, methods in document["paths"].items() if path.startswith(prefixes)}
    return {f"{method.upper()} {path[7:]}" for path, methods in paths.items() for method in methods}


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as opened:
        yield opened


def test_attack_57_the_ownership_model_holds(server: ServerProcess, session: requests.Session) -> None:
    run(machine(server, lambda request, route: session.send(request, timeout=TIMEOUT_SECONDS)), EXAMPLES)


def walk(tried: Ownership) -> None:
    """Every rule once for each user with their own task, the other's, and one that is not."""
    for who in (0, 1):
        tried.submit(who=who, version=0, is_held=True, key="the-same-key")
        tried.everybody_sees_their_own()
        tried.make_token(who=who)
    for who in (0, 1):
        tried.oversee(who=who)
        tried.read_audit(who=who)
        tried.make_themselves_admin(who=who)
    for who, pick in itertools.product((0, 1), range(3)):
        tried.come_in_by_token(who=who)
        tried.delete_token(who=who, pick=pick)
        tried.end_session(who=who, pick=pick)
        tried.end_other_sessions(who=who)
    upload, read, remove = (partial(rule_, name=NAMES[0]) for rule_ in (tried.upload, tried.read, tried.remove))
    look = partial(tried.look, events="all")
    downloads = [partial(tried.download, by_link=by_link) for by_link in (False, True)]
    rest = [tried.start, tried.stop_as_admin, tried.stop, tried.say, tried.stream, remove, tried.delete]
    for rule_ in [upload, read, look, tried.tree, tried.read_output, *downloads, *rest]:
        for who, pick in itertools.product((0, 1), range(3)):
            rule_(who=who, pick=pick)
        tried.everybody_sees_their_own()


def test_the_ownership_model_notices_every_route_that_takes_anybody(
    server: ServerProcess, session: requests.Session
) -> None:
    """Each documented route in turn serves each of the two as if it were the other; with none doing so, all is well.

    One of them is an admin, which changes nothing for all other routes.
    """

    def broken(leak: str | None) -> Ownership:
        def send(request: requests.PreparedRequest, route: str) -> requests.Response:
            if route == leak:
                ann, bob = kind.tokens
                other = bob if request.headers["Authorization"] == f"Bearer {ann}" else ann
                request.headers["Authorization"] = f"Bearer {other}"
            return session.send(request, timeout=TIMEOUT_SECONDS)

        kind = machine(server, send, has_admin=True)
        return kind()

    walk(broken(None))
    for leak in sorted(documented(server)):
        with pytest.raises(AssertionError):  # not raised: the model has no rule for that route yet
            walk(broken(leak))
