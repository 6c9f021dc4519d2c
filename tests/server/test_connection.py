"""A connection is bounded: what is no HTTP, a head or trailers without end, and silence in the middle each end it."""

import contextlib
import json
import socket
import threading
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from beray.server.connection import HEAD_MOST, PIPELINED_MOST, BoundedConnection, connection_speaking
from beray.server.edge import Edge
from tests.support.asgi import served
from tests.support.waiting import until, wait_until

HEAD = b"POST / HTTP/1.1\r\nHost: x\r\n"
LAST = HEAD + b"Connection: close\r\nContent-Length: 1\r\n\r\nx"
JAVA = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nUpgrade: h2c\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
LENGTH = b"Content-Length: %d\r\n" % len(SMUGGLED)
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED)
WISHES = [JAVA, b"Connection: upgrade\r\nUpgrade: websocket\r\nUpgrade: other\r\n"]


class Hasty(BoundedConnection):
    """Waits a second, so that the tests need not wait longer."""

    head_seconds = 1.0
    silence_seconds = 1.0


class Few(BoundedConnection):
    """Takes five clients."""

    open_most = 5
    awaited: ClassVar[dict[BoundedConnection, None]] = {}


class Counted(Hasty):
    """Counts what has come in."""

    pieces = 0

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        Counted.pieces += 1


async def echo(scope, receive, send) -> None:
    """Answers with how much was sent."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size, more = size + len(message["body"]), message["more_body"]
    body = str(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def url():
    edge = Edge(echo, default_language="zh", max_body_bytes=10 << 20)
    with served(edge, connection=Hasty) as url:
        yield url


@pytest.fixture
def stream_url(monkeypatch):
    """A server that sends the end of its answer when two pieces have come in."""

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await until(lambda: Counted.pieces >= 2)
        await send({"type": "http.response.body", "body": b"ended"})

    monkeypatch.setattr(Counted, "pieces", 0)
    with served(app, connection=Counted) as url:
        yield url


@pytest.fixture
def seen_headers():
    """A server, and the headers of its only request, as they are when its body has been read."""
    headers: list[tuple[bytes, bytes]] = []

    async def app(scope, receive, send) -> None:
        await echo(scope, receive, send)
        headers.extend(scope["headers"])

    with served(app, connection=Hasty) as url:
        yield url, headers


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname, parts.port), timeout=10)


def sizes(answer: bytes) -> list[int]:
    """The bodies of answers, which are what `echo` counted; all of them 200."""
    heads_and_bodies = answer.split(b"HTTP/1.1 200 OK\r\n")
    assert heads_and_bodies[0] == b""
    return [int(one.partition(b"\r\n\r\n")[2]) for one in heads_and_bodies[1:]]


def until_closed(client: socket.socket) -> bytes:
    """All it answers until it closes; a connection it leaves open fails by the socket's timeout."""
    answer = b""
    while piece := client.recv(65536):
        answer += piece
    return answer


@pytest.mark.parametrize(
    "sent",
    [b"\x16\x03\x01garbage\r\n\r\n", HEAD + b"Content-Length: -1\r\n\r\n", b"GET /\xe9 HTTP/1.1\r\n\r\n"],
    ids=["tls", "negative-length", "not-ascii"],
)
def test_what_is_not_http_is_refused_in_the_one_shape(url, sent):
    with connect(url) as client:
        client.sendall(sent)
        head, _, body = until_closed(client).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in head
    assert b"\r\nidempotency-supported: true\r\n" in head
    assert b"\r\ndate: " in head
    problem = json.loads(body)
    assert problem["code"] == "bad_request"
    assert f"\r\nx-request-id: {problem['request_id']}\r\n".encode() in head


@pytest.mark.parametrize(("language", "reason"), [("zh", "这不是有效的"), ("en", "not a valid")])
def test_what_is_not_http_is_refused_in_the_language_of_the_server(language, reason):
    with served(echo, connection=connection_speaking(language)) as url, connect(url) as client:
        client.sendall(b"\x16\x03\x01")

        assert reason in json.loads(until_closed(client).partition(b"\r\n\r\n")[2])["detail"]


def test_body_that_is_not_http_is_refused_as_the_client_wants_answers(url):
    with connect(url) as client:
        client.sendall(HEAD + CHUNKED + b"Accept-Language: en\r\nX-Request-ID: mine\r\n\r\nno size\r\n")
        head, _, body = until_closed(client).partition(b"\r\n\r\n")

    assert b"\r\nx-request-id: mine\r\n" in head
    assert "not a valid" in json.loads(body)["detail"]


@pytest.mark.parametrize(
    "garbage",
    [b"\x16\x03\x01", HEAD + b"Content-Length: -1\r\n\r\n", HEAD + CHUNKED + b"\r\nno size\r\n"],
    ids=["no-head", "head", "body"],
)
def test_requests_before_what_is_not_http_are_answered_and_nothing_else(url, garbage):
    """A client takes whatever comes for the answer to what it asked first."""
    with connect(url) as client:
        client.sendall((HEAD + LENGTH + b"\r\n" + SMUGGLED) * 2 + garbage)

        assert sizes(until_closed(client)) == [len(SMUGGLED)] * 2


def test_garbage_in_the_middle_of_an_answer_does_not_get_into_it(stream_url):
    with connect(stream_url) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: b"begun" in client.recv(65536, socket.MSG_PEEK), what="the answer's beginning")
        client.sendall(b"garbage\r\n\r\n")
        head, _, body = until_closed(client).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 200 ")
    assert body == b"5\r\nbegun\r\n5\r\nended\r\n0\r\n\r\n"


def test_body_that_breaks_after_the_answer_began_ends_the_connection(stream_url):
    with connect(stream_url) as client:
        client.sendall(HEAD + CHUNKED + b"\r\n")
        wait_until(lambda: b"begun" in client.recv(65536, socket.MSG_PEEK), what="the answer's beginning")
        client.sendall(b"no size\r\n")
        answer = until_closed(client)

    assert answer.endswith(b"5\r\nbegun\r\n")


@pytest.mark.parametrize(
    "begun",
    [HEAD, HEAD + CHUNKED + b"\r\n1;a=", HEAD + CHUNKED + b"\r\n0\r\n", HEAD + CHUNKED + b"\r\n1\r\nx\r\n0\r\nA: "],
    ids=["head", "chunk-extension", "trailers", "trailer"],
)
def test_head_and_trailers_without_end_are_refused(url, begun):
    line = b"b" * 8000 if begun.endswith((b"A: ", b"a=")) else b"A: " + b"b" * 8000 + b"\r\n"
    with connect(url) as client:
        client.sendall(begun)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            client.sendall(line * (HEAD_MOST // 80))


@pytest.mark.parametrize(
    "sent", [b"", b"\r\n", HEAD, HEAD + b"Content-Length: 9\r\n\r\n", HEAD + b"Content-Length: 9\r\n\r\nhalf"]
)
def test_client_that_falls_silent_is_let_go(url, sent):
    with connect(url) as client:
        client.sendall(sent)

        assert until_closed(client) == b""


@pytest.mark.parametrize("begun", [b"1;a=", b"1\r\nx\r\n0\r\nA: "], ids=["chunk-extension", "trailer"])
def test_client_that_drips_what_is_no_body_is_let_go(url, begun):
    def is_let_go() -> bool:
        try:
            client.sendall(b"b")
        except (ConnectionResetError, BrokenPipeError):
            return True
        return False

    with connect(url) as client:
        client.sendall(HEAD + CHUNKED + b"\r\n" + begun)

        wait_until(is_let_go, seconds=5, what="the connection's end")


def test_trailers_are_left_out(seen_headers):
    """A proxy before us may have judged the head alone."""
    url, headers = seen_headers
    with connect(url) as client:
        client.sendall(
            HEAD + CHUNKED + b"Connection: close\r\n\r\n1\r\nx\r\n0\r\nAuthorization: Bearer x\r\nA: b\r\n\r\n"
        )

        assert sizes(until_closed(client)) == [1]
    assert [name for name, _ in headers] == [b"host", b"transfer-encoding", b"connection"]


def test_empty_lines_after_an_answer_are_silence_too(url):
    with connect(url) as client:
        client.sendall(HEAD + b"Content-Length: 0\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200 ")
        client.sendall(b"\r\n")

        until_closed(client)


def test_requests_after_one_another_and_large_bodies_are_no_silence_and_no_head(url):
    body = b"x" * (4 << 20)
    request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    small = HEAD + b"A: " + b"a" * 1000 + b"\r\nContent-Length: 0\r\n\r\n"
    with connect(url) as client:
        client.sendall(request)
        client.sendall(small * (3 * HEAD_MOST // len(small)))
        client.sendall(HEAD + b"Content-Length: 1\r\nConnection: close\r\n\r\nx")
        answer = until_closed(client)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert str(len(body)).encode() in answer
    assert answer.count(b"HTTP/1.1 200 ") == 3 * HEAD_MOST // len(small) + 2


def test_requests_sent_ahead_without_end_are_not_all_answered(url):
    """One read may hold thousands of them, and each costs far more memory than its bytes."""
    with connect(url) as client:
        client.sendall((HEAD + b"Content-Length: 0\r\n\r\n") * (PIPELINED_MOST * 4))
        answered = sizes(until_closed(client))

    assert PIPELINED_MOST < len(answered) < PIPELINED_MOST * 4


@pytest.mark.parametrize("ahead", [LAST, HEAD + CHUNKED + b"\r\nno size\r\n"], ids=["request", "garbage"])
def test_request_being_answered_hears_that_its_client_went_also_when_another_was_sent_ahead(ahead):
    """A stream would go on for nobody."""
    heard: list[str] = []

    async def app(scope, receive, send) -> None:
        assert scope["type"] == "http", "no lifespan"
        while not heard or heard[-1] != "http.disconnect":
            heard.append((await receive())["type"])

    with served(app, connection=Hasty) as url:
        with connect(url) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + ahead)
            wait_until(lambda: heard, what="the request's beginning")

        wait_until(lambda: "http.disconnect" in heard, seconds=5, what="the news that the client went")


@pytest.mark.parametrize("wish", WISHES, ids=["h2c", "websocket"])
@pytest.mark.parametrize(("framing", "body"), [(LENGTH, SMUGGLED), (CHUNKED, CHUNKS)], ids=["length", "chunked"])
def test_request_for_another_protocol_is_answered_as_the_ordinary_request_it_is(url, wish, framing, body):
    """Its body must not be taken for the next request: a proxy before us would not know of that one."""
    with connect(url) as client:
        client.sendall((HEAD + wish + framing + b"\r\n" + body) * 2 + LAST)

        assert sizes(until_closed(client)) == [len(SMUGGLED), len(SMUGGLED), 1]


@pytest.mark.parametrize(("framing", "body"), [(LENGTH, SMUGGLED), (CHUNKED, CHUNKS)], ids=["length", "chunked"])
def test_request_for_another_protocol_may_send_its_body_later(url, framing, body):
    with connect(url) as client:
        client.sendall(HEAD + JAVA + b"Expect: 100-continue\r\n" + framing + b"\r\n")
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(body)
        client.sendall(LAST)

        assert sizes(until_closed(client)) == [len(SMUGGLED), 1]


def test_request_for_another_protocol_may_come_byte_by_byte(url):
    with connect(url) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in HEAD + JAVA + b"Empty:\r\n" + CHUNKED + b"\r\n" + CHUNKS + LAST:
            client.sendall(bytes([byte]))

        assert sizes(until_closed(client)) == [len(SMUGGLED), 1]


def test_request_for_another_protocol_without_a_body_is_answered(url):
    with connect(url) as client:
        client.sendall((b"GET / HTTP/1.1\r\nHost: x\r\n" + JAVA + b"\r\n") * 100 + LAST)

        assert sizes(until_closed(client)) == [0] * 100 + [1]


def test_request_for_another_protocol_keeps_its_other_wishes(url):
    with connect(url) as client:
        client.sendall(HEAD + b"Connection: close, Upgrade\r\nUpgrade: h2c\r\n" + LENGTH + b"\r\n" + SMUGGLED * 2)

        assert sizes(until_closed(client)) == [len(SMUGGLED)]


@pytest.mark.parametrize("target", [b"x:443", b"http://x/"])
def test_connect_is_refused(url, target):
    with connect(url) as client:
        client.sendall(b"CONNECT " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n" + SMUGGLED)
        answer = until_closed(client)

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert "CONNECT" in json.loads(answer.partition(b"\r\n\r\n")[2])["detail"]


def test_crowd_that_only_connects_makes_room_for_who_asks():
    """Who has been silent longest goes first; who is being answered, or asks now, stays."""
    release = threading.Event()

    async def app(scope, receive, send) -> None:
        if scope["path"] == "/slow":
            await until(release.is_set)
        await echo(scope, receive, send)

    with served(app, connection=Few) as url, contextlib.ExitStack() as stack:
        busy = stack.enter_context(connect(url))
        busy.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        kept_alive = stack.enter_context(connect(url))
        kept_alive.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert kept_alive.recv(65536)
        crowd = [stack.enter_context(connect(url)) for _ in range(20)]
        with connect(url) as last:
            last.sendall(LAST)
            assert sizes(until_closed(last)) == [1]
        for client in (kept_alive, *crowd[:17]):
            assert until_closed(client) == b""
        release.set()

        assert sizes(until_closed(busy)) == [0]


BEGUN = {
    "a head": b"POST / HTTP/1.1\r\nHost: x\r\n",
    "a body": HEAD + b"Content-Length: 1000\r\n\r\n{",
    "answers that nobody reads": b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n" * 20,
}


@pytest.mark.parametrize("how", BEGUN)
def test_crowd_that_begins_and_does_not_go_on_makes_room_too(how):
    asked = 0

    async def app(scope, receive, send) -> None:
        nonlocal asked
        asked += scope["path"] == "/long"
        if scope["path"] == "/long":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"x" * (8 << 20)})
        else:
            await echo(scope, receive, send)

    with served(app, connection=Few) as url, contextlib.ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(connect(url))
            with contextlib.suppress(ConnectionError):
                client.sendall(BEGUN[how])
        if how.startswith("answers"):
            wait_until(lambda: asked >= 5)
        for _ in range(5):
            with connect(url) as last:
                last.sendall(LAST)
                assert sizes(until_closed(last)) == [1]


def test_answer_that_nobody_reads_is_given_up():
    gone = threading.Event()

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * (16 << 20), "more_body": True})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    with served(app, connection=Hasty) as url, connect(url) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(gone.is_set, seconds=20)
