"""Secure connections: whom the client believes, with what it proves itself, and what a redirect may carry."""

import ssl
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from beray.client import BeRayClient
from beray.exceptions import TLSError
from beray.protocol.sse import encode_event
from tests.support.certificates import Authority
from tests.support.connect_proxy import ConnectProxy
from tests.support.loopback import LoopbackServer, events, loopback_server, reply

LOCAL = ("127.0.0.1", "localhost")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who vouches for the servers."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def believing(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names the authority."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.path))


@pytest.fixture
def secure_peer(authority: Authority) -> Iterator[LoopbackServer]:
    """A scripted server behind TLS."""
    with loopback_server(authority.server_context(*LOCAL)) as server:
        server.always(reply(200, {"secure": True}))
        yield server


@pytest.fixture
def strangers_peer(authority: Authority) -> Iterator[LoopbackServer]:
    """One with the certificate of another host."""
    with loopback_server(authority.server_context("another.example")) as server:
        server.always(reply(200, {}))
        yield server


def test_a_certificate_nobody_knows_is_refused_at_once(
    secure_peer: LoopbackServer, waits: list[float], new_client: Any
) -> None:
    with pytest.raises(TLSError):
        new_client(secure_peer.url, token="t").list_tasks()

    assert secure_peer.received == []
    assert (secure_peer.connections, waits) == (1, [])


@pytest.mark.usefixtures("believing")
def test_a_certificate_of_another_host_is_refused_at_once(
    strangers_peer: LoopbackServer, waits: list[float], new_client: Any
) -> None:
    with pytest.raises(TLSError, match="certificate"):
        new_client(strangers_peer.url, token="t").list_tasks()

    assert strangers_peer.received == []
    assert (strangers_peer.connections, waits) == (1, [])


@pytest.mark.usefixtures("believing")
def test_a_certificate_of_the_environments_bundle_is_accepted(secure_peer: LoopbackServer, new_client: Any) -> None:
    client = new_client(secure_peer.url, token="t")

    assert client.get_task(1) == {"secure": True}
    assert client.get_task(2) == {"secure": True}

    assert secure_peer.connections == 1


@pytest.mark.usefixtures("believing")
def test_a_secure_stream_that_is_cut_is_resumed(
    secure_peer: LoopbackServer, waits: list[float], new_client: Any
) -> None:
    first = encode_event(1, "text.delta", b'{"seq":1,"type":"text.delta"}')
    last = encode_event(2, "task.finished", b'{"seq":2,"type":"task.finished"}')
    secure_peer.script(events([first], end="cut"), events([last]))

    client = new_client(secure_peer.url, token="t")

    assert [update["seq"] for update in client.stream_task_updates(3)] == [1, 2]


# Certificates of clients


@pytest.fixture
def strict_peer(authority: Authority) -> Iterator[LoopbackServer]:
    """It wants to see a certificate of whoever comes."""
    context = authority.server_context(*LOCAL)
    context.load_verify_locations(authority.path)
    context.verify_mode = ssl.CERT_REQUIRED
    with loopback_server(context) as server:
        server.always(reply(200, {"strict": True}))
        yield server


def test_a_session_of_ones_own_brings_its_certificate(strict_peer: LoopbackServer, authority: Authority) -> None:
    with requests.Session() as session:
        session.verify = str(authority.path)
        session.cert = str(authority.issue("somebody"))
        client = BeRayClient(strict_peer.url, token="t", session=session)

        assert client.get_task(1) == {"strict": True}
        assert client.upload_file(1, "f", b"x" * 300_000) == {"strict": True}


@pytest.mark.usefixtures("believing")
def test_without_a_certificate_a_strict_server_is_not_asked_again(
    strict_peer: LoopbackServer, waits: list[float]
) -> None:
    """The asynchronous client can't tell it from a cut: it may find its connection closed before it reads why."""
    with BeRayClient(strict_peer.url, token="t") as client, pytest.raises(TLSError):
        client.list_tasks()

    assert (strict_peer.received, waits) == ([], [])


# Through a proxy


@pytest.fixture
def tunnels(monkeypatch: pytest.MonkeyPatch) -> Iterator[ConnectProxy]:
    """The environment's proxy for secure connections."""
    with ConnectProxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        yield proxy


@pytest.mark.usefixtures("believing")
def test_secure_calls_go_through_one_tunnel_that_sees_no_token(
    secure_peer: LoopbackServer, tunnels: ConnectProxy, new_client: Any
) -> None:
    client = new_client(secure_peer.url, token="t0k")

    assert client.get_task(1) == client.get_task(2) == {"secure": True}

    (head,) = tunnels.asked
    assert "t0k" not in head
    assert secure_peer.received[0].headers["authorization"] == "Bearer t0k"


@pytest.mark.usefixtures("believing", "tunnels")
def test_a_certificate_of_another_host_is_refused_behind_a_tunnel_too(
    strangers_peer: LoopbackServer, waits: list[float], new_client: Any
) -> None:
    with pytest.raises(TLSError):
        new_client(strangers_peer.url, token="t").list_tasks()

    assert (strangers_peer.received, waits) == ([], [])


# Redirects


@pytest.mark.usefixtures("believing")
def test_a_redirect_to_the_secure_server_is_verified_and_carries_no_token(
    peer: LoopbackServer, peer_client: BeRayClient, secure_peer: LoopbackServer
) -> None:
    """The same host, but another port: another server as far as anybody knows."""
    peer.script(reply(307, b"", {"Location": f"{secure_peer.url}/api/v1/tasks/1"}))

    assert peer_client.get_task(1) == {"secure": True}
    assert "authorization" not in secure_peer.received[0].headers


def test_a_redirect_to_a_server_nobody_vouches_for_is_refused(
    peer: LoopbackServer, peer_client: BeRayClient, secure_peer: LoopbackServer
) -> None:
    peer.script(reply(307, b"", {"Location": secure_peer.url}))

    with pytest.raises(TLSError):
        peer_client.get_task(1)
    assert secure_peer.received == []


@pytest.mark.usefixtures("believing")
def test_a_redirect_to_an_insecure_server_carries_no_token(
    peer: LoopbackServer, secure_peer: LoopbackServer, new_client: Any
) -> None:
    peer.always(reply(200, {"secure": False}))
    secure_peer.script(reply(307, b"", {"Location": f"{peer.url}/api/v1/tasks/1"}))

    client = new_client(secure_peer.url, token="t0k")

    assert client.get_task(1) == {"secure": False}
    assert client.get_task(1) == {"secure": True}

    assert "authorization" not in peer.received[0].headers
    assert secure_peer.received[1].headers["authorization"] == "Bearer t0k"
