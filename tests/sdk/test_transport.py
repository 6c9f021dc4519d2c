"""The tuned session does what a stock one does, redirects, proxies and cookies included."""

import re
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest
import requests

from beray.client import BeRayClient
from beray.exceptions import ProtocolError
from beray.transport import TunedSession
from tests.support.loopback import Exchange, LoopbackServer, loopback_server, reply


@pytest.fixture
def other() -> Iterator[LoopbackServer]:
    """A second server; to a client it is another host."""
    with loopback_server() as server:
        yield server


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


def test_a_redirect_to_another_host_carries_no_token(
    peer: LoopbackServer, other: LoopbackServer, peer_client: BeRayClient
) -> None:
    peer.always(redirect(307, f"{other.url}/elsewhere"))
    other.always(reply(200, {"from": "other"}))

    assert peer_client.get_task(1) == {"from": "other"}
    assert peer_client.get_task(1) == {"from": "other"}

    assert [one.path for one in other.received] == ["/elsewhere"] * 2
    assert all("authorization" not in one.headers for one in other.received)


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


@pytest.mark.parametrize("status", [301, 302, 303])
def test_a_redirect_that_loses_the_body_is_an_error(
    peer: LoopbackServer, peer_client: BeRayClient, status: int
) -> None:
    """Requests turns it into a GET, whose answer looks like success."""
    peer.script(redirect(status, "/api/v1/tasks/"), reply(200, [{"id": 1}]))

    with pytest.raises(ProtocolError, match="loses its body"):
        peer_client.create_task("g")


def test_redirects_in_a_circle_are_an_error(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.always(redirect(302, "/api/v1/tasks/"))

    with pytest.raises(ProtocolError, match="30 redirects"):
        peer_client.list_tasks()


def test_a_proxy_of_the_environment_is_used(
    peer: LoopbackServer, other: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", other.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    seen: list[str] = []

    def answer_as_proxy(exchange: Exchange) -> None:
        seen.append(exchange.path)
        reply(200, [])(exchange)

    other.always(answer_as_proxy)
    peer.always(reply(200, []))

    BeRayClient("http://beray.invalid:8000/sub", token="t0k").list_tasks()
    BeRayClient(peer.url, token="t0k").list_tasks()

    assert seen == ["http://beray.invalid:8000/sub/api/v1/tasks/"]
    assert other.received[0].headers["authorization"] == "Bearer t0k"
    assert len(peer.received) == 1


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
    session = client._session()

    session.get_adapter(peer.url).close()
    client.list_tasks()
    session.get_adapter(peer.url).poolmanager.clear()  # type: ignore[attr-defined]
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


@pytest.mark.parametrize(
    "target", ["requests.Session.send", "requests.Session.request", "requests.adapters.HTTPAdapter.send"]
)
def test_tests_that_replace_requests_still_reach_their_replacement(peer: LoopbackServer, target: str) -> None:
    answer = requests.Response()
    answer.status_code = 200
    answer._content = b'[{"id": 9}]'  # type: ignore[attr-defined]
    client = BeRayClient(peer.url)

    with patch(target, return_value=answer) as replaced:
        assert client.list_tasks() == [{"id": 9}]

    assert replaced.called
    assert peer.received == []


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
