"""What goes wrong: refusals, what is asked again and what never, a network that fails."""

import json
import pickle
import socket
from time import monotonic
from typing import Any

import pytest

from beray.client import BeRayClient
from beray.exceptions import (
    APIError,
    AuthenticationError,
    BeRayException,
    ConflictError,
    ConnectionFailed,
    NotFoundError,
    ProtocolError,
    RequestTimeout,
    TLSError,
    UnprocessableEntityError,
)
from tests.support.loopback import Exchange, LoopbackServer, cut_body, cut_head, drop, reply, silence


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, AuthenticationError), (403, AuthenticationError), (404, NotFoundError), (409, ConflictError),
     (422, UnprocessableEntityError), (400, APIError), (500, APIError)],
)  # fmt: skip
def test_refusals_are_typed_and_name_the_request(
    peer: LoopbackServer, peer_client: BeRayClient, status: int, kind: type[APIError]
) -> None:
    peer.script(reply(status, {"detail": "为什么", "code": "c", "request_id": "r"}))

    with pytest.raises(kind) as error:
        peer_client.get_task(3)

    assert isinstance(error.value, BeRayException)
    assert (error.value.status_code, error.value.error_detail, error.value.code) == (status, "为什么", "c")
    assert (error.value.method, error.value.request_id) == ("GET", "r")
    assert error.value.response.headers["Content-Type"]


def test_errors_with_a_list_as_detail_keep_it(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    detail = [{"loc": ["body", "goal"], "msg": "field required", "type": "missing"}]
    peer.script(reply(422, {"detail": detail}))

    with pytest.raises(UnprocessableEntityError) as error:
        peer_client.create_task("g")

    assert error.value.error_detail == detail
    assert "field required" in str(error.value)
    assert json.dumps(detail) not in str(error.value)


def test_another_service_at_the_address_is_told(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(200, b"<html>hello</html>"))

    with pytest.raises(ProtocolError, match="base_url"):
        peer_client.list_tasks()


def test_errors_of_a_real_call_can_be_pickled(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(404, {"detail": "没有"}), drop)

    for call in (lambda: peer_client.get_task(1), peer_client.logout):
        with pytest.raises(BeRayException) as error:
            call()
        pickled = pickle.dumps(error.value)
        assert str(pickle.loads(pickled)) == str(error.value)
        assert b"t0k" not in pickled


# Asking again


def test_a_passing_refusal_is_asked_again_after_the_servers_wish(
    peer: LoopbackServer, peer_client: BeRayClient, waits: list[float]
) -> None:
    peer.script(reply(503, {"detail": "starting"}, {"Retry-After": "3"}), reply(429, {}), reply(200, []))

    assert peer_client.list_tasks() == []

    assert len(peer.received) == 3
    assert 3.0 <= waits[0] < 4.0


def test_repeating_ends(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.always(reply(503, {"detail": "down"}))

    with pytest.raises(APIError) as error:
        peer_client.list_tasks()

    assert error.value.status_code == 503
    assert len(peer.received) == 3


def test_a_cut_answer_of_an_idempotent_call_is_asked_again(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(drop, cut_body, reply(200, {"id": 3}))

    assert peer_client.get_task(3) == {"id": 3}


@pytest.fixture(params=["directly", "by a proxy"])
def reaching(
    request: pytest.FixtureRequest, peer: LoopbackServer, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> str:
    """A base_url by which the peer is reached."""
    if request.param == "directly":
        return peer.url
    monkeypatch.setenv("http_proxy", peer.url)
    return "http://beray.invalid"


def test_an_answer_cut_within_its_head_is_no_empty_answer(peer: LoopbackServer, reaching: str, new_client: Any) -> None:
    """The standard library takes it for one, so that a file would seem to be empty."""
    peer.script(cut_head, reply(200, {"id": 3}), cut_head, cut_head, cut_head)
    client = new_client(reaching, "t0k")

    assert client.get_task(3) == {"id": 3}
    with pytest.raises(ConnectionFailed, match="was cut"):
        client.get_file_content(3, "a", stream=True)


def test_what_may_have_been_done_is_not_done_again(peer: LoopbackServer, reaching: str, new_client: Any) -> None:
    """A connection that ends without an answer was cut after the request, to a proxy too."""
    peer.script(*[cut_head, drop] * 3)

    for _ in range(2):
        with pytest.raises(ConnectionFailed, match="was cut") as error:
            new_client(reaching).create_task("g")
        assert error.value.was_sent

    assert len(peer.received) == 2


def test_a_task_is_not_made_twice_on_a_server_that_ignores_keys(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.always(drop)

    with pytest.raises(ConnectionFailed):
        peer_client.create_task("g")

    assert len(peer.received) == 1


def test_a_task_is_asked_for_again_with_the_same_key_where_keys_are_honoured(
    peer: LoopbackServer, peer_client: BeRayClient
) -> None:
    peer.script(reply(200, {}, {"Idempotency-Supported": "true"}), drop, reply(201, {"id": 5}))
    peer_client.get_info()

    assert peer_client.create_task("g")["id"] == 5

    assert peer.received[1].headers["idempotency-key"] == peer.received[2].headers["idempotency-key"]


def test_a_login_is_never_repeated_after_a_cut(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.always(drop)

    with pytest.raises(ConnectionFailed):
        peer_client.login("a@b.c", "password")

    assert len(peer.received) == 1


def test_a_deletion_whose_answer_was_lost_is_done(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(drop, reply(404, {"detail": "gone", "code": "task_not_found"}))

    assert peer_client.delete_task(3)["message"]


def test_a_deletion_of_what_never_was_is_not_found(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(404, {"detail": "gone"}))

    with pytest.raises(NotFoundError):
        peer_client.delete_task(3)


# The network


def test_a_server_that_is_not_there_is_named(new_client: Any) -> None:
    with socket.socket() as held:  # bound, but not listening: nobody else can have the port
        held.bind(("127.0.0.1", 0))
        client = new_client(f"http://127.0.0.1:{held.getsockname()[1]}", max_retries=0)

        with pytest.raises(ConnectionFailed, match="could not be reached: Connection refused") as error:
            client.list_tasks()

    assert "\n" not in str(error.value)
    assert not error.value.was_sent
    assert error.value.__cause__ is not None


def test_a_cut_answer_is_a_connection_error(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(cut_body, drop, cut_body)

    with pytest.raises(ConnectionFailed, match="was cut"):
        peer_client.list_tasks()


def test_a_silent_server_does_not_hang_a_call(peer: LoopbackServer, waits: list[float], new_client: Any) -> None:
    """The silence alone counts: what connecting may take comes not on top of it."""
    peer.always(silence)
    began = monotonic()
    with new_client(peer.url, timeout=(30.0, 0.2), max_retries=0) as client, pytest.raises(RequestTimeout) as error:
        client.list_tasks()

    assert "0.2" in str(error.value)
    assert monotonic() - began < 30


def test_a_body_that_stops_coming_is_a_timeout(peer: LoopbackServer, new_client: Any) -> None:
    def stall(exchange: Exchange) -> None:
        exchange.begin(200, {"Content-Length": "10"})
        exchange.wait_for_close()

    peer.script(stall)

    with pytest.raises(RequestTimeout, match="nothing came"):
        new_client(peer.url, timeout=0.2, max_retries=0).list_tasks()


def test_a_secure_connection_that_fails_is_not_tried_again(
    peer: LoopbackServer, waits: list[float], new_client: Any
) -> None:
    with pytest.raises(TLSError, match="no secure connection") as error:
        new_client(peer.url.replace("http:", "https:")).list_tasks()

    assert not error.value.was_sent
    assert waits == []


def test_a_missing_certificate_file_is_named(monkeypatch: pytest.MonkeyPatch, new_client: Any) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere/ca.pem")

    with pytest.raises(TLSError, match=r"/nowhere/ca\.pem"):
        new_client("https://127.0.0.1:1").list_tasks()
