"""The tuned session keeps what people rely on: redirects, proxies, cookies, hooks (TLS: `test_tls.py`)."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

from beray.client import BeRayClient
from beray.drivers.requests_session import TunedSession
from beray.exceptions import ProtocolError, RequestTimeout
from tests.support.loopback import LoopbackServer, loopback_server, reply, silence


@pytest.fixture
def client_kind() -> str:
    """What requests does is the synchronous client's."""
    return "sync"


def test_calls_share_a_connection(peer, peer_client):
    peer.always(reply(200, []))

    for _ in range(5):
        peer_client.get_info()

    assert peer.connections == 1


def test_a_redirect_to_another_host_carries_no_token(peer, peer_client):
    with loopback_server() as other:
        other.always(reply(200, {"other": True}))
        target = other.url.replace("127.0.0.1", "localhost") + "/elsewhere"
        peer.script(reply(307, b"", {"Location": target}))

        assert peer_client.get_task(1) == {"other": True}

    assert peer.received[0].headers["authorization"] == "Bearer t0k"
    assert "authorization" not in other.received[0].headers
    assert other.received[0].path == "/elsewhere"


def test_a_redirect_to_another_port_is_another_server(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    """It gets no token, and no connection is mistaken for one to the other, however often it goes back and forth."""
    with loopback_server() as other:
        other.always(reply(200, {"by": "other"}))
        for _ in range(3):
            peer.script(redirect(307, f"{other.url}/api/v1/tasks/1"), reply(200, {"by": "peer"}))
            assert peer_client.get_task(1) == {"by": "other"}
            assert peer_client.get_task(1) == {"by": "peer"}

    assert [one.headers.get("authorization") for one in other.received] == [None] * 3
    assert [one.headers.get("authorization") for one in peer.received] == ["Bearer t0k"] * 6
    assert (peer.connections, other.connections) == (1, 1)


def test_a_redirect_that_would_lose_the_body_is_refused(peer, peer_client):
    peer.script(reply(302, b"", {"Location": f"{peer.url}/login"}), reply(200, {}))

    with pytest.raises(ProtocolError, match="redirected"):
        peer_client.create_task("g")


def test_a_proxy_of_the_environment_is_used(peer, waits, monkeypatch):
    peer.always(reply(200, {"by": "proxy"}))
    monkeypatch.setenv("http_proxy", peer.url)
    with BeRayClient("http://beray.invalid:8000", token="t") as client:
        assert client.get_task(1) == {"by": "proxy"}


def test_a_server_that_no_proxy_is_for_is_asked_directly(
    peer: LoopbackServer, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    peer.always(reply(200, {"by": "itself"}))

    with BeRayClient(peer.url, token="t") as client:
        assert client.get_task(1) == {"by": "itself"}


def test_a_session_of_ones_own_is_used_and_left_open(peer, waits):
    peer.always(reply(200, []))
    session = requests.Session()
    session.headers["X-Mine"] = "yes"
    with BeRayClient(peer.url, token="t", session=session) as client:
        client.get_info()
        client.list_tasks()

    assert peer.received[1].headers["x-mine"] == "yes"
    assert peer.received[1].headers["authorization"] == "Bearer t"
    assert session.get(f"{peer.url}/still").status_code == 200
    session.close()


def test_what_a_session_of_ones_own_has_repeated_counts_as_sent(peer, waits):
    """Else a login that the server has seen would be made again."""
    peer.always(silence)
    repeating = HTTPAdapter(max_retries=urllib3.Retry(total=1, allowed_methods=None))
    with requests.Session() as session, BeRayClient(peer.url, session=session, timeout=0.2) as client:
        session.mount("http://", repeating)
        with pytest.raises(RequestTimeout) as error:
            client.login("a@b.c", "p")

    assert error.value.was_sent
    assert len(peer.received) == 2, "by the session; none by the client"


def redirect(status: int, location: str) -> Any:
    return reply(status, b"", {"Location": location})


@pytest.mark.parametrize(
    "call",
    [
        lambda client: client.get_task(3),
        lambda client: client.create_task("写诗", idempotency_key="k"),
        lambda client: client.login_with_form("a@b.c", "p"),
        lambda client: client.logout(),
        lambda client: client.upload_file(3, "a/图 +&=%.png", b"\0"),
        lambda client: client.upload_file(3, "empty", b""),
        lambda client: client.upload_file(3, "large", b"x" * 300_000),
        lambda client: client.delete_file(3, "a"),
        lambda client: client.download_files_as_zip(3),
        lambda client: next(client.stream_task_updates(3, after=5), None),
    ],
)
def test_the_tuned_session_sends_what_a_stock_one_sends(peer: LoopbackServer, call: Any) -> None:
    peer.always(reply(200, {"access_token": "t0k"}, {"Content-Type": "text/event-stream"}))

    with requests.Session() as stock:
        call(BeRayClient(peer.url, "t0k", session=stock))
    call(BeRayClient(peer.url, "t0k"))

    by_stock, by_tuned = peer.received[0], peer.received[len(peer.received) // 2]
    assert by_tuned.headers.pop("user-agent").endswith(by_stock.headers.pop("user-agent"))
    assert by_tuned == by_stock


def test_a_redirect_on_the_same_host_keeps_token_and_body(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    """What servers do that want a trailing slash, or none."""
    peer.script(redirect(307, "/api/v1/tasks?x=1#part"), reply(201, {"id": 1}))

    assert peer_client.create_task("g") == {"id": 1}

    first, second = peer.received
    assert (second.method, second.path, second.query, second.body) == (
        "POST",
        "/api/v1/tasks",
        {"x": ["1"]},
        first.body,
    )
    assert second.headers["authorization"] == "Bearer t0k"


def test_a_large_upload_is_redirected_whole(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(redirect(308, "/elsewhere"), reply(201, {}))

    peer_client.upload_file(1, "f", b"x" * 300_000)

    assert peer.received[1].body == b"x" * 300_000


def test_redirects_in_a_circle_are_an_error(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.always(redirect(302, "/api/v1/tasks/"))

    with pytest.raises(ProtocolError, match="30 redirects"):
        peer_client.list_tasks()


def test_cookies_are_kept_and_sent_back(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    """A load balancer may pin a client by a cookie."""
    peer.script(reply(200, [], {"Set-Cookie": "node=a; Path=/"}), reply(200, []))

    peer_client.list_tasks()
    peer_client.list_tasks()

    assert [one.headers.get("cookie") for one in peer.received] == [None, "node=a"]


def test_pools_that_were_closed_are_opened_again(peer: LoopbackServer) -> None:
    peer.always(reply(200, []))
    client = BeRayClient(peer.url)
    client.list_tasks()
    session = client._driver._connections.session()

    session.get_adapter(peer.url).close()
    client.list_tasks()
    session.get_adapter(peer.url).poolmanager.clear()
    client.list_tasks()

    assert len(peer.received) == 3


def test_a_response_is_complete(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(200, "é".encode(), {"Content-Type": "text/plain; charset=utf-8", "ETag": '"1"'}))

    response = peer_client.get_file_content(1, "a")

    assert (response.text, response.encoding, response.headers["etag"]) == ("é", "utf-8", '"1"')
    assert (response.url, response.reason) == (f"{peer.url}/api/v1/tasks/1/files/content?path=a", "OK")
    assert response.request.method == "GET"
    assert response.elapsed.total_seconds() > 0
    assert list(response.cookies) == []


def test_hooks_on_the_session_are_called(peer: LoopbackServer) -> None:
    peer.always(reply(200, []))
    seen: list[int] = []
    session = TunedSession(peer.url)
    session.hooks["response"].append(lambda response, **_: seen.append(response.status_code))

    BeRayClient(peer.url, session=session).list_tasks()

    assert seen == [200]


def test_the_client_names_itself(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(200, []))

    peer_client.list_tasks()

    assert re.fullmatch(r"beray/[0-9.]+ python-requests/[0-9.]+", peer.received[0].headers["user-agent"])


def run_python(code: str) -> object:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


MODULES = "import sys, json, beray; {}; print(json.dumps(sorted(m.partition('.')[0] for m in sys.modules)))"


def test_importing_the_package_imports_nothing_heavy():
    loaded = run_python(MODULES.format("pass"))

    assert not set(loaded) & {
        "requests", "urllib3", "aiohttp", "asyncio", "ssl", "typing", "fastapi", "sqlalchemy", "pydantic",
    }  # fmt: skip


def test_each_client_imports_its_own_http_library_alone():
    sync = run_python(MODULES.format("beray.BeRayClient('http://h')"))
    asynchronous = run_python(MODULES.format("beray.AsyncBeRayClient('http://h')"))

    assert "requests" in sync
    assert not {"aiohttp", "asyncio"} & set(sync)
    assert "aiohttp" in asynchronous
    assert "requests" not in asynchronous


def test_the_sdk_needs_requests_alone():
    """With every package of the extras out of reach the client works."""
    code = """
import json, sys

class Blocked:
    names = {"fastapi", "starlette", "sqlalchemy", "pydantic", "dbos", "orjson", "uvicorn", "click", "rich", "aiohttp",
             "pydantic_ai", "alembic", "argon2", "limits", "psycopg"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
import beray
from beray.client import BeRayClient
from beray.exceptions import ConnectionFailed

try:
    BeRayClient("http://127.0.0.1:1", max_retries=0).list_tasks()
except ConnectionFailed:
    print(json.dumps(sorted(beray.__all__)))
"""

    names = run_python(code)

    assert {"BeRayClient", "BeRayException", "APIError", "NotFoundError"} <= set(names)


def test_every_public_name_is_there():
    import beray

    assert len(beray.__all__) == len(set(beray.__all__))
    for name in beray.__all__:
        assert getattr(beray, name) is not None
    assert set(beray.__all__) <= set(dir(beray))
    with pytest.raises(AttributeError):
        _ = beray.nothing_of_this_name
