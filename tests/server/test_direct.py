"""Routes that are found without the framework answer as it would, and leave to it what does not look plain."""

import secrets
from collections.abc import Awaitable, Callable

import orjson
import pytest
import requests
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from beray.server.direct import DirectRoutes
from beray.server.errors import Refused
from tests.support.server import ServerProcess

ROOT = "/api/v1/tasks"


async def framework(scope, receive, send) -> None:
    await PlainTextResponse("framework")(scope, receive, send)


def named(name: str) -> Callable[[Request, int], Awaitable[Response]]:
    async def answer(request: Request, task_id: int) -> Response:
        return PlainTextResponse(f"{name} {task_id}")

    return answer


async def asked(app: DirectRoutes, method: str, path: str) -> str:
    sent: list[bytes] = []

    async def receive():
        raise AssertionError("nothing is read")

    async def send(message) -> None:
        sent.append(message.get("body", b""))

    await app({"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}, receive, send)
    return b"".join(sent).decode()


@pytest.mark.parametrize(
    ("method", "path", "answer"),
    [
        ("GET", "", "list 0"),
        ("GET", "/7", "task 7"),
        ("GET", "/007", "task 7"),
        ("GET", "/999999999999999999", "task 999999999999999999"),
        ("PUT", "/7/files/content", "write 7"),
        ("POST", "", "framework"),
        ("HEAD", "/7", "framework"),
        ("GET", "/0x7", "framework"),
        ("GET", "/-7", "framework"),
        ("GET", "/+7", "framework"),
        ("GET", "/７", "framework"),
        ("GET", "/7777777777777777777", "framework"),
        ("GET", "/", "framework"),
        ("GET", "//7", "framework"),
        ("GET", "7", "framework"),
        ("GET", "/{task_id}", "framework"),
        ("GET", "/7/files", "framework"),
        ("GET", "/7/", "framework"),
        ("PUT", "/7/files/content/x", "framework"),
        ("GET", "/7/odd", "framework"),
    ],
)
async def test_only_what_has_a_handler_and_a_plain_id_is_answered_directly(method, path, answer):
    app = DirectRoutes(
        framework,
        ROOT,
        {
            ("GET", ""): named("list"),
            ("GET", "/{task_id}"): named("task"),
            ("PUT", "/{task_id}/files/content"): named("write"),
            ("GET", "/{task_id}/odd"): lambda request, task_id: None,
        },
    )

    assert await asked(app, method, ROOT + path) == answer


async def test_what_is_refused_is_told_of_and_left_to_the_edge():
    told: list[str] = []

    async def refuse(request: Request, task_id: int) -> Response:
        raise Refused("task_not_found", task_id=task_id)

    app = DirectRoutes(
        framework, ROOT, {("GET", "/{task_id}"): refuse}, note_refused=lambda refused: told.append(refused.code)
    )

    with pytest.raises(Refused):
        await asked(app, "GET", f"{ROOT}/7")
    assert told == ["task_not_found"]


class Ended:
    """A task that has ended, with a file, and its user's token."""

    def __init__(self, server: ServerProcess) -> None:
        self.token = server.register(f"direct-{secrets.token_hex(8)}@example.com")
        self.url = f"{server.base_url}{ROOT}"
        made = self.ask("POST", "", json={"goal": "Stay", "hold": True})
        self.id = made.json()["id"]
        self.ask("PUT", f"/{self.id}/files/content?path=a.txt", data=b"content").raise_for_status()
        self.ask("POST", f"/{self.id}/stop").raise_for_status()

    def ask(self, method: str, path: str, **request) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.token}", "X-Request-ID": "same"}
        return requests.request(method, self.url + path, headers=headers, timeout=30, **request)

    def answer(self, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
        """What is answered, without what is new each time."""
        data = b"content" if method == "PUT" else None
        answer = self.ask(method, path.replace("{id}", str(self.id)), data=data)
        told = {name.lower(): value for name, value in answer.headers.items() if name.lower() != "date"}
        if method == "PUT":
            told.pop("etag", None)
        return answer.status_code, told, answer.content


@pytest.fixture(scope="module")
def ended(server) -> Ended:
    return Ended(server)


# A number with a sign is no plain one, but the framework takes it.
@pytest.mark.parametrize(
    ("status", "method", "plain", "odd"),
    [
        (200, "GET", "/{id}", "/+{id}"),
        (200, "GET", "/{id}/", "/+{id}/"),
        (200, "GET", "/{id}?events=none", "/+{id}?events=none"),
        (200, "GET", "/{id}?events=tail:1", "/+{id}?events=tail:1"),
        (200, "GET", "/{id}?events=tail%3A1&events=none", "/+{id}?events=tail%3A1&events=none"),
        (422, "GET", "/{id}?events=", "/+{id}?events="),
        (422, "GET", "/{id}?events=some", "/+{id}?events=some"),
        (422, "GET", "/999999999?events=some", "/+999999999?events=some"),
        (404, "GET", "/999999999", "/+999999999"),
        (404, "GET", "/0", "/+0"),
        (200, "GET", "/{id}/stream", "/+{id}/stream"),
        (200, "GET", "/{id}/stream?after=1", "/{id}/stream?after=%2B1"),
        (404, "GET", "/999999999/stream", "/+999999999/stream"),
        (200, "GET", "", "?q="),
        (200, "GET", "?limit=5", "?limit=%2B5"),
        (200, "GET", "?before=999999999", "?before=%2B999999999"),
        (200, "GET", "/{id}/files/content?path=a.txt", "/+{id}/files/content?path=a.txt"),
        (200, "GET", "/{id}/files/content?path=no&path=a.txt", "/+{id}/files/content?path=no&path=a.txt"),
        (404, "GET", "/{id}/files/content?path=no", "/+{id}/files/content?path=no"),
        (422, "GET", "/{id}/files/content?path=../a", "/+{id}/files/content?path=../a"),
        (200, "HEAD", "/{id}/files/content?path=a.txt", "/+{id}/files/content?path=a.txt"),
        (200, "PUT", "/{id}/files/content?path=a.txt", "/+{id}/files/content?path=a.txt"),
        (422, "PUT", "/{id}/files/content?path=..", "/+{id}/files/content?path=.."),
        (404, "PUT", "/999999999/files/content?path=a.txt", "/+999999999/files/content?path=a.txt"),
    ],
)
def test_answer_is_the_same_by_either_way(ended, status, method, plain, odd):
    answer = ended.answer(method, plain)

    assert answer[0] == status
    assert answer == ended.answer(method, odd)


@pytest.mark.parametrize(
    "path",
    [
        "/{id}/stream?after=x",
        "/{id}/stream?after=-1",
        "?limit=0",
        "?limit=1001",
        "?before=0",
        "?limit=1&limit=x",
        "?status=odd",
        "/{id}/files/content",
    ],
)
def test_parameter_that_is_not_plain_is_refused_as_ever(ended, path):
    status, _, body = ended.answer("GET", path)

    assert (status, orjson.loads(body)["code"]) == (422, "validation_error")
    assert orjson.loads(body)["errors"][0]["loc"][0] == "query"


@pytest.mark.parametrize("path", ["", "/{id}", "/{id}/stream", "/{id}/files/content?path=a.txt"])
@pytest.mark.parametrize("authorization", [None, "Bearer br_" + "x" * 43, "Basic x"])
def test_nobody_is_let_in_without_a_token(ended, path, authorization):
    headers = {} if authorization is None else {"Authorization": authorization}

    answer = requests.get(ended.url + path.replace("{id}", str(ended.id)), headers=headers, timeout=30)

    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("HEAD", "/{id}", "DELETE, GET"),
        ("PUT", "", "GET, POST"),
        ("POST", "/{id}/stream", "GET"),
        ("POST", "/{id}/files/content", "DELETE, GET, HEAD, PUT"),
    ],
)
def test_method_that_a_direct_path_does_not_take_is_refused_as_ever(ended, method, path, allowed):
    status, told, _ = ended.answer(method, path)

    assert (status, told["allow"]) == (405, allowed)
