"""Attack 58, on a person who is logged in to the console, by pages of others; 59 is in `tests/console`."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests

from tests.support.server import PASSWORD, ServerProcess

_numbers = itertools.count(1)
FROM_CONSOLE = {"X-BeRay-Console": "1"}


class Visitor:
    """A user whose browser is logged in; `send` is what a page makes that browser send."""

    def __init__(self, server: ServerProcess) -> None:
        self.base_url = server.base_url
        self.email = f"visitor-{next(_numbers)}-{id(self)}@example.com"
        self.token = server.register(self.email)
        body = {"email": self.email, "password": PASSWORD}
        answer = self.send("POST", "/auth/login", json=body, headers=FROM_CONSOLE, cookies={})
        answer.raise_for_status()
        self.cookies = dict(answer.cookies)

    def send(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, origin: str | None = "", **request: Any
    ) -> requests.Response:
        """A request with the cookie; `origin` None: without one, empty: ours."""
        sent = dict(headers or {}) | ({} if origin is None else {"Origin": origin or self.base_url})
        cookies = request.pop("cookies", None)
        cookies = self.cookies if cookies is None else cookies
        lines = "; ".join(f"{name}={value}" for name, value in cookies.items())
        sent |= {"Cookie": lines} if lines else {}
        return requests.request(method, f"{self.base_url}/api/v1{path}", headers=sent, timeout=30, **request)

    @contextmanager
    def task(self) -> Iterator[int]:
        answer = self.send("POST", "/tasks", json={"goal": "Stay", "hold": True})
        answer.raise_for_status()
        yield answer.json()["id"]


@pytest.fixture(scope="module")
def visitor(server: ServerProcess) -> Visitor:
    return Visitor(server)


def code_of(answer: requests.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


MISMATCH = (403, "origin_mismatch")


def test_the_console_does_with_its_cookie_what_a_token_does(visitor: Visitor) -> None:
    """Every way a request goes: through the framework, past it, a stream, an upload, an archive."""
    with visitor.task() as task_id:
        content = f"/tasks/{task_id}/files/content?path=a.txt"
        written = visitor.send("PUT", content, data=b"hello")
        answers = [
            visitor.send("GET", "/users/me", origin=None),
            visitor.send("GET", "/tasks", origin=None),
            visitor.send("GET", f"/tasks/{task_id}", origin=None),
            visitor.send("GET", content, origin=None, headers={"Sec-Fetch-Site": "same-origin"}),
            visitor.send("GET", f"/tasks/{task_id}/files/download", origin=None, headers={"Sec-Fetch-Site": "none"}),
            visitor.send("GET", "/users/me/webhook", origin=None),
            visitor.send("POST", f"/tasks/{task_id}/stop"),
            visitor.send("GET", f"/tasks/{task_id}/stream", origin=None),
        ]

    assert written.status_code == 201
    assert [answer.status_code for answer in answers] == [200] * len(answers)
    assert answers[3].content == b"hello"
    assert "stopped" in answers[-1].text


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "null",  # a sandboxed frame, a file on disk, a redirect
        "https://evil.example",
        "http://127.0.0.1",  # the same host, another port
        "http://127.0.0.1:9",
        "http://evil.127.0.0.1",
        "http://127.0.0.1.evil.example",
    ],
)
def test_attack_58_page_of_another_origin_changes_nothing_with_the_cookie(visitor: Visitor, origin: str | None) -> None:
    """Whatever a form, a script or a frame of theirs sends, with the cookie that the browser adds."""
    with visitor.task() as task_id:
        content = f"/tasks/{task_id}/files/content?path=x"
        attacks = [
            visitor.send("POST", "/tasks", json={"goal": "x"}, origin=origin),
            visitor.send("POST", f"/tasks/{task_id}/start", origin=origin),
            visitor.send("POST", f"/tasks/{task_id}/stop", origin=origin),
            visitor.send("DELETE", f"/tasks/{task_id}", origin=origin),
            visitor.send("PUT", content, data=b"x", origin=origin),
            visitor.send("POST", f"/tasks/{task_id}/files/download", data="{}", origin=origin),
            visitor.send("POST", "/users/me/tokens", json={"name": "theirs"}, origin=origin),
            visitor.send("PUT", "/users/me/webhook", json={"url": None}, origin=origin),
            visitor.send("POST", "/auth/logout", origin=origin),
        ]
        task = visitor.send("GET", f"/tasks/{task_id}")
        tree = visitor.send("GET", f"/tasks/{task_id}/files/tree")

    assert {code_of(answer) for answer in attacks} == {MISMATCH}
    assert (task.json()["status"], tree.json()) == ("queued", [])
    assert visitor.send("GET", "/users/me/tokens").json() == []


@pytest.mark.parametrize("site", ["cross-site", "same-site", "same-origin, cross-site", ""])
def test_attack_58_page_of_another_origin_reads_nothing_with_the_cookie(visitor: Visitor, site: str) -> None:
    """Nor takes up one of the user's streams; SameSite would not keep another port or a neighbour's name from it."""
    with visitor.task() as task_id:
        paths = ("/tasks", f"/tasks/{task_id}", f"/tasks/{task_id}/stream", f"/tasks/{task_id}/files/content?path=x")
        answers = [visitor.send("GET", path, headers={"Sec-Fetch-Site": site}, origin=None) for path in paths]

    assert {code_of(answer) for answer in answers} == {MISMATCH}


@pytest.mark.parametrize("origin", [None, "null", "https://evil.example"])
def test_attack_58_no_other_site_logs_a_browser_in(visitor: Visitor, origin: str | None) -> None:
    """Its user would work, and leave files, under an account that is the attacker's."""
    body = {"email": visitor.email, "password": PASSWORD}
    answer = visitor.send("POST", "/auth/login", json=body, headers=FROM_CONSOLE, origin=origin, cookies={})
    registered = {**body, "verification_code": "000000"}
    joined = visitor.send("POST", "/auth/register", json=registered, headers=FROM_CONSOLE, origin=origin, cookies={})

    assert {code_of(answer), code_of(joined)} == {MISMATCH}
    assert "set-cookie" not in {*answer.headers, *joined.headers}


def test_attack_58_only_a_sessions_own_cookie_counts(visitor: Visitor) -> None:
    """One alone, of our name; where `Authorization` says anything, that is what counts."""
    [(name, session)] = visitor.cookies.items()
    made = visitor.send("POST", "/users/me/tokens", json={"name": "ci"}).json()

    def asked(cookie: str, authorization: str | None = None) -> int:
        headers = {"Cookie": cookie} | ({} if authorization is None else {"Authorization": authorization})
        return requests.get(f"{visitor.base_url}/api/v1/users/me", headers=headers, timeout=30).status_code

    assert asked(f"a=1; {name}={session}; b=2") == 200
    assert asked(f"{name}={made['token']}") == 401
    assert asked(f"{name}={session}; {name}={session}") == 401
    assert asked(f"{name}=br_{'x' * 43}; {name}={session}") == 401
    assert asked(f'{name}="{session}"') == 401
    assert asked(f"__Host-{name}={session}") == 401
    assert asked(f"{name.upper()}={session}") == 401
    assert asked(f"{name}={session}", "Bearer br_" + "x" * 43) == 401
    assert asked(f"{name}={session}", "Basic eDp5") == 401
    assert asked(f"{name}={session}", "") == 401
    assert asked("", f"Bearer {session}") == 200
    visitor.send("DELETE", f"/users/me/tokens/{made['id']}").raise_for_status()
