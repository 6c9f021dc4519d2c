"""A server, or what stands before it, that means harm: each call ends in bounded time and memory with a typed error."""

import gzip
import logging
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any

import pytest

from beray.client import BeRayClient
from beray.exceptions import (
    APIError,
    AuthenticationError,
    BeRayException,
    NetworkError,
    ProtocolError,
    RequestTimeout,
    WaitTimeout,
)
from tests.support.loopback import (
    WAIT_SECONDS,
    Answer,
    Exchange,
    LoopbackServer,
    drop,
    events,
    loopback_server,
    reply,
)
from tests.support.scripted_driver import frame, frames

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
RUNNING = {"id": 1, "status": "running", "last_seq": 0}


def raw(*pieces: bytes) -> Answer:
    """These bytes, then the connection's end."""

    def answer(exchange: Exchange) -> None:
        exchange.close_connection = True
        with suppress(OSError):
            for piece in pieces:
                exchange.wfile.write(piece)

    return answer


def flood(beginning: bytes, piece: bytes) -> Answer:
    """A beginning, and no end, for as long as the client takes it."""

    def answer(exchange: Exchange) -> None:
        exchange.close_connection = True
        with suppress(OSError):
            exchange.wfile.write(beginning)
            while True:
                exchange.wfile.write(piece)

    return answer


def by_path(stream: Answer, other: Answer) -> Answer:
    """One answer for streams, another for the rest."""
    return lambda exchange: (stream if exchange.path.partition("?")[0].endswith("/stream") else other)(exchange)


# size


@pytest.mark.parametrize(
    "answer",
    [
        flood(HEAD + b"\r\n[", b"0," * 50_000),
        flood(CHUNKED, b"100000\r\n" + b" " * 0x100000 + b"\r\n"),
        reply(200, gzip.compress(b" " * (2 << 20), 1), {"Content-Encoding": "gzip"}),
    ],
    ids=["endless", "endless_chunks", "packed"],
)
def test_an_answer_without_measure_is_not_read(
    peer: LoopbackServer, peer_client: BeRayClient, monkeypatch: pytest.MonkeyPatch, answer: Answer
) -> None:
    monkeypatch.setattr("beray.drivers.alike.MAX_ANSWER_BYTES", 1 << 20)
    peer.script(answer, reply(200, {"id": 3}))

    with pytest.raises(ProtocolError, match="more than 1 MiB"):
        peer_client.get_task(3)

    assert peer_client.get_task(3) == {"id": 3}
    assert len(peer.received) == 2


def test_of_an_endless_refusal_the_beginning_is_read(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(flood(b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\n\r\n", b"<p>no" * 20_000))

    with pytest.raises(APIError, match="<p>no") as error:
        peer_client.get_task(3)

    assert error.value.status_code == 404
    assert len(error.value.error_detail) < 3 << 20


def test_a_file_may_be_of_any_size(
    peer: LoopbackServer, peer_client: BeRayClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beray.drivers.alike.MAX_ANSWER_BYTES", 10)
    peer.script(reply(200, b"x" * 1000))

    assert peer_client.get_file_content(1, "a").headers["Content-Length"] == "1000"


@pytest.mark.parametrize(
    "answer",
    [
        flood(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 100),
        flood(b"HTTP/1.1 200 OK\r\nX-A: ", b"b" * 10_000),
        flood(b"HTTP/1.1 200 ", b"b" * 10_000),
        flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        flood(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
        flood(CHUNKED + b"2\r\n{}\r\n0\r\n", b"X-A: b\r\n" * 100),
        flood(CHUNKED + b"2\r\n{}\r\n0\r\nX-A: ", b"b" * 10_000),
        flood(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /api/v1/info\r\n\r\n", b"x" * 10_000),
        raw(b"\x1b[31m hello\n"),
        raw(b"\x00\xff" * 1000),
    ],
    ids=["headers", "header", "status", "continue", "hints", "trailers", "trailer", "redirect", "http09", "noise"],
)
def test_a_head_without_end_is_an_error(peer: LoopbackServer, new_client: Any, answer: Answer) -> None:
    peer.always(answer)
    client = new_client(peer.url, max_retries=0, timeout=(0.2, 0.5))

    with pytest.raises(BeRayException) as error:
        client.get_info()

    assert str(error.value).isprintable()


def test_a_head_that_drips_is_not_waited_for(peer: LoopbackServer, new_client: Any) -> None:
    def drip(exchange: Exchange) -> None:
        exchange.close_connection = True
        with suppress(OSError):
            for byte in HEAD + b"X-A: " + b"b" * 5000:
                exchange.wfile.write(bytes([byte]))
                exchange.server.client_left.wait(0.02)

    peer.always(drip)
    client = new_client(peer.url, max_retries=0, timeout=(0.2, 0.4))

    with pytest.raises(RequestTimeout):
        client.get_info()


def test_a_deadline_ends_an_answer_that_drips_between_its_chunks(peer: LoopbackServer, new_client: Any) -> None:
    def drip(exchange: Exchange) -> None:
        exchange.close_connection = True
        with suppress(OSError):
            exchange.wfile.write(CHUNKED)
            for _ in range(1000):
                exchange.wfile.write(b"0")
                exchange.server.client_left.wait(0.02)

    peer.always(drip)
    client = new_client(peer.url, max_retries=0, deadline=0.4)

    with pytest.raises(RequestTimeout):
        client.get_info()


def test_what_is_said_before_the_answer_is_passed_over(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    peer.script(raw(hints, b"HTTP/1.1 100 Continue\r\n\r\n", hints, HEAD, b'Content-Length: 8\r\n\r\n{"id":3}'))

    assert peer_client.get_task(3) == {"id": 3}


# whose answer it is


def test_an_answer_nobody_asked_for_is_not_the_next_calls(
    peer: LoopbackServer, peer_client: BeRayClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes when the connection waits for its next use."""
    monkeypatch.setattr("beray.drivers.patience._BUSY_SECONDS", 0.0)  # this event loop runs only while a call does
    forged = HEAD + b'Content-Length: 16\r\n\r\n{"by": "forger"}'
    is_forged = threading.Event()

    def answer_twice(exchange: Exchange) -> None:
        reply(200, {"by": "server"})(exchange)
        exchange.wfile.write(forged)
        is_forged.set()

    peer.always(answer_twice)

    for _ in range(4):
        assert peer_client.get_task(3) == {"by": "server"}
        assert is_forged.wait(WAIT_SECONDS)
        is_forged.clear()


# where a redirect leads to


@pytest.mark.parametrize(
    "bring",
    [
        lambda client: client.login("ada@example.com", "password"),
        lambda client: client.create_task("secret"),
        lambda client: client.upload_file(1, "a", b"secret"),
        lambda client: client.upload_file(1, "a", b"secret" * 100_000),
        lambda client: client.stop_task(1),
    ],
)
def test_what_a_call_brings_goes_to_no_other_server(
    peer: LoopbackServer, peer_client: BeRayClient, bring: Callable[[Any], object]
) -> None:
    with loopback_server() as other:
        other.always(reply(200, {"id": 1, "access_token": "evil-token"}))
        peer.always(reply(307, b"", {"Location": f"{other.url}/elsewhere"}))

        with pytest.raises(ProtocolError, match="another server"):
            bring(peer_client)

    assert other.received == []
    assert len(peer.received) == 1
    assert peer_client.token == "t0k"


@pytest.mark.parametrize(
    "location",
    [b"file:///etc/passwd", b"http://h:99999/", b"http://[::1/", b"//[", b"http://h:abc/", b"http://127.0.0.1/\xff",
     b"http://a..b/", b"http://\xed\xa0\x80/", b"javascript:1", b"ftp://\x1b[31m/"],
)  # fmt: skip
def test_a_redirect_to_nowhere_is_told(peer: LoopbackServer, peer_client: BeRayClient, location: bytes) -> None:
    peer.always(raw(b"HTTP/1.1 307 T\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"))

    with pytest.raises(BeRayException) as error:
        peer_client.get_task(3)

    assert str(error.value).isprintable()


def test_cookies_without_measure_are_not_kept(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    numbers = count()

    def answer(exchange: Exchange) -> None:
        cookies = b"".join(b"Set-Cookie: c%d=v\r\n" % next(numbers) for _ in range(60))
        exchange.wfile.write(HEAD + cookies + b"Content-Length: 2\r\n\r\n{}")

    peer.always(answer)
    for _ in range(4):
        peer_client.get_info()

    assert 0 < peer.received[-1].headers["cookie"].count("=") <= 120


# what an answer says


@pytest.mark.parametrize(
    "answer",
    [
        reply(400, {"detail": "\x1b[2J\r\nINFO forged\x00\u202egpj", "code": "a\n\x1b[2J", "request_id": "b\nINFO c"}),
        reply(502, b"\x1b[31m\xff\x9b\xc2\x9b"),
        reply(200, b"<", {"Content-Type": "text/\x1b[31m"}),
        reply(422, b'{"detail":' + b"[" * 900 + b"]" * 900 + b"}"),
        reply(422, b'{"detail":' + b'{"a":' * 900 + b"1" + b"}" * 900 + b"}"),
        reply(400, {"detail": "d" * 10_000, "code": "c" * 10_000}),
        reply(200, b"[" * 100_000),
        reply(200, b'{"a": "\xff"}'),
        reply(400, b'{"detail": "\\ud800"}'),
        reply(503, {}, {"Retry-After": "9" * 5000}),
        reply(503, {}, {"Date": "Mon, 01 Jan 2024 00:00:00 GMT", "Retry-After": f"Mon, 01 Jan {'9' * 20} 0:0:0 GMT"}),
        raw(HEAD + b"X-Request-ID: a\x1b[31m\r\n INFO forged\r\nContent-Length: 1\r\n\r\n<"),
    ],
)
def test_what_a_server_says_moves_no_terminal_and_forges_no_log(
    peer: LoopbackServer, new_client: Any, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="beray")
    peer.always(answer)

    with pytest.raises(BeRayException) as error:
        new_client(peer.url, max_retries=0).get_task(3)

    assert str(error.value).isprintable()
    assert len(str(error.value)) < 2000
    assert all(record.getMessage().isprintable() for record in caplog.records if record.name == "beray")


def test_a_page_that_shows_the_requests_headers_tells_no_token(peer: LoopbackServer, new_client: Any) -> None:
    page = b"<pre>Authorization: Bearer t0k-very-secret</pre>"
    peer.always(reply(502, page, {"X-Request-ID": "t0k-very-secret"}))

    with pytest.raises(APIError) as error:
        new_client(peer.url, "t0k-very-secret", max_retries=0).get_task(3)

    assert "t0k-very" not in str(error.value) + repr(error.value) + str(error.value.request_id)


def test_a_proxy_that_refuses_has_its_password_told_to_nobody(
    peer: LoopbackServer, monkeypatch: pytest.MonkeyPatch, new_client: Any
) -> None:
    monkeypatch.setenv("https_proxy", peer.url.replace("://", "://ada:pr0xy-secret@"))  # it knows no CONNECT

    with pytest.raises(NetworkError) as error:
        new_client("https://beray.invalid", max_retries=0).get_info()

    assert not error.value.was_sent
    assert "pr0xy-secret" not in "".join(traceback.format_exception(error.value))


def test_a_proxys_login_is_sent_to_it(peer: LoopbackServer, monkeypatch: pytest.MonkeyPatch, new_client: Any) -> None:
    monkeypatch.setenv("http_proxy", peer.url.replace("://", "://ada:p%40ss@"))
    peer.always(reply(200, {"by": "proxy"}))

    assert new_client("http://beray.invalid").get_task(3) == {"by": "proxy"}
    assert peer.received[0].headers["proxy-authorization"] == "Basic YWRhOnBAc3M="


@pytest.mark.parametrize(
    "session",
    [{"access_token": "a\r\nX-Evil: 1"}, {"access_token": ""}, {"access_token": "中"}, {"access_token": "a" * 20_000},
     {"access_token": 5}, [], "text"],
)  # fmt: skip
def test_a_token_that_is_none_is_not_kept(peer: LoopbackServer, peer_client: BeRayClient, session: object) -> None:
    peer.script(reply(200, session))

    with pytest.raises(ProtocolError, match="access_token"):
        peer_client.login("ada@example.com", "password")

    assert peer_client.token == "t0k"


@pytest.mark.parametrize("seconds", ["1e308", "-1e308", "1" + "0" * 18, "-1" + "0" * 18, "true", '"x"', "1e10"])
def test_an_end_beyond_all_time_is_no_end(peer: LoopbackServer, peer_client: BeRayClient, seconds: str) -> None:
    peer.script(reply(200, b'{"access_token": "new", "expires_in": ' + seconds.encode() + b"}"))

    peer_client.login("ada@example.com", "password")

    assert (peer_client.token, peer_client.token_expires_at) == ("new", None)


NO_TASKS: list[Any] = [[], "x", {"id": 1}, {"id": 1, "status": ["x"]}, {"id": 1, "status": None}]


@pytest.mark.parametrize("task", [*NO_TASKS, {"id": "x", "status": "completed"}])
def test_waiting_for_what_is_no_task_is_an_error(peer: LoopbackServer, peer_client: BeRayClient, task: object) -> None:
    peer.always(reply(200, task))

    with pytest.raises(ProtocolError, match="no task"):
        peer_client.wait_for_task(1, timeout=1)


@pytest.mark.parametrize("task", [[], {}, {"id": "../../users"}, {"id": None}, {"id": 1.5}, {"id": True}])
def test_running_what_is_no_task_is_an_error(peer: LoopbackServer, peer_client: BeRayClient, task: object) -> None:
    peer.always(reply(201, task))

    with pytest.raises(ProtocolError, match="no task"):
        peer_client.run("g")

    assert len(peer.received) == 1


@pytest.mark.parametrize("last_seq", ["x", -5, 1e300, None, True])
def test_an_odd_last_seq_is_the_beginning(peer: LoopbackServer, peer_client: BeRayClient, last_seq: object) -> None:
    ended = reply(200, {"id": 1, "status": "completed"})
    stream = events([frame(1, "task.finished")])
    peer.script(reply(200, {**RUNNING, "last_seq": last_seq}))
    peer.always(by_path(stream, ended))

    assert peer_client.wait_for_task(1, timeout=5)["status"] == "completed"


@pytest.mark.parametrize("question", ["x", {}, {"question_id": 5}])
def test_a_question_that_is_none_is_an_error(peer: LoopbackServer, peer_client: BeRayClient, question: object) -> None:
    peer.always(reply(200, {**RUNNING, "status": "waiting", "question": question}))

    with pytest.raises(ProtocolError, match="question"):
        peer_client.wait_for_task(1, on_question=lambda question: "yes")


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"result": 5, "error": "x", "usage": [], "events": "x"},
        {"error": {"code": ["x"], "message": {"a": 1}, "hint": 5}, "events": [5, {}, {"type": "task.finished"}]},
        {"events": [{"type": "task.finished", "files": 5}]},
    ],
)
def test_a_result_without_its_parts_can_be_read(
    peer: LoopbackServer, peer_client: BeRayClient, more: dict[str, object]
) -> None:
    peer.script(reply(201, {"id": 1}))
    peer.always(by_path(events([frame(1, "task.finished")]), reply(200, {"id": 1, "status": "failed", **more})))

    result = peer_client.run("g")

    assert (result.text, result.files, result.ok) == ("", [], False)
    assert result.usage["requests"] is None
    with pytest.raises(BeRayException, match="Task 1 failed"):
        result.raise_if_failed()


@pytest.mark.parametrize("page", [[1], [None], [{}], [{"id": "x"}], [{"id": [1]}], [{"id": 5}], [{"id": 5}, {"id": 7}]])
def test_pages_that_lead_nowhere_end(peer: LoopbackServer, peer_client: BeRayClient, page: list[Any]) -> None:
    peer.always(reply(200, page, {"Link": '<x>; rel="next"'}))

    with pytest.raises(ProtocolError):
        peer_client.list_tasks(before=7)

    assert len(peer.received) <= 2


# streams


def test_missing_events_are_told(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(events([frames(1, 2), frame(5, "task.finished")]))
    stream = peer_client.stream_task_updates(1)

    assert [next(stream)["seq"], next(stream)["seq"]] == [1, 2]
    with pytest.raises(ProtocolError, match="after=2"):
        next(stream)


def test_a_true_is_no_number(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    """Nothing is resumed by it."""
    peer.script(events([b'id: 1\ndata: {"seq": true}\n\n'], end="cut"))

    with pytest.raises(NetworkError):
        list(peer_client.stream_task_updates(1))

    assert len(peer.received) == 1


@pytest.mark.parametrize("piece", [b":\n" * 1000, frame(1) * 100], ids=["heartbeats", "repeated"])
def test_a_wait_ends_in_time_however_much_comes(peer: LoopbackServer, new_client: Any, piece: bytes) -> None:
    beginning = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + frame(1)
    peer.always(by_path(flood(beginning, piece), reply(200, RUNNING)))

    with pytest.raises(WaitTimeout):
        new_client(peer.url).wait_for_task(1, timeout=0.3)


def test_a_server_that_repeats_itself_is_given_up(
    peer: LoopbackServer, peer_client: BeRayClient, waits: list[float]
) -> None:
    """Nothing new comes, and it asks for no pause either."""
    peer.always(events([b"retry: 0\n\n", frame(1)], end="cut"))

    with pytest.raises(NetworkError):
        list(peer_client.stream_task_updates(1))

    assert len(peer.received) < 15
    assert min(waits) > 0.04


def test_a_stream_that_takes_no_token_is_given_up(peer: LoopbackServer, waits: list[float], new_client: Any) -> None:
    numbers = count()
    client = new_client(peer.url, "t0k", on_token_expired=lambda: f"token-{next(numbers)}")
    peer.script(events([frame(1)], end="cut"))
    peer.always(reply(401, {"detail": "no"}))

    with pytest.raises(AuthenticationError):
        list(client.stream_task_updates(1))

    assert len(peer.received) < 6


# files


def test_a_length_of_many_digits_is_no_length(peer: LoopbackServer, peer_client: BeRayClient, tmp_path: Any) -> None:
    peer.always(raw(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"0" * 5000 + b"5\r\n\r\nhello"))

    with suppress(BeRayException):  # aiohttp takes no such header
        assert peer_client.download_file(1, "a", tmp_path).read_bytes() == b"hello"


@pytest.mark.parametrize("nodes", [[5], {"a": 1}, [{"name": "a", "size": 5}, {"name": {"a": []}, "size": 5}]])
def test_a_list_of_no_files_is_told(
    peer: LoopbackServer, peer_client: BeRayClient, tmp_path: Any, nodes: object
) -> None:
    peer.always(reply(200, nodes))

    with pytest.raises(ProtocolError):
        peer_client.download_dir(1, ".", tmp_path)


def test_no_byte_of_an_answer_may_be_missing(peer: LoopbackServer, new_client: Any) -> None:
    whole = HEAD + b'Content-Length: 8\r\n\r\n{"id":3}'
    peer.script(*(raw(whole[:size]) for size in range(0, len(whole), 3)), drop)
    client = new_client(peer.url, max_retries=0)

    for _ in range(0, len(whole), 3):
        with pytest.raises(NetworkError):
            client.get_task(3)
