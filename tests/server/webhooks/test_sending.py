"""One attempt to hand a message over: what it may reach, and what counts as taken."""

import asyncio
import contextlib
import gzip
import ipaddress
import threading

import pytest

from beray.server.sandbox.egress import dial
from beray.server.webhooks import sending
from beray.server.webhooks.reach import Reach
from beray.server.webhooks.sending import Answered, Sender
from tests.support.certificates import tls_contexts
from tests.support.egress import PUBLIC, EchoServer, Names
from tests.support.loopback import Exchange, cut_body, drop, loopback_server, reply, silence
from tests.support.waiting import until

BODY = b'{"type":"task.finished"}'
HEADERS = {"webhook-id": "msg_1", "webhook-timestamp": "1", "webhook-signature": "v1,x"}
LOOPBACK = Reach(networks=(ipaddress.ip_network("127.0.0.1"),))
PUBLIC_NETWORK = Reach(networks=(ipaddress.ip_network(PUBLIC),))  # an address that stands for the public internet


@pytest.fixture
def receiver():
    with loopback_server() as server:
        yield server


async def send(url, reach=LOOPBACK, **options) -> Answered:
    sender = Sender(reach, **options)
    try:
        return await sender.send(url, BODY, HEADERS, lookups=asyncio.Semaphore(2))
    finally:
        sender.close()


async def test_message_is_posted_as_it_was_signed(receiver):
    receiver.script(reply(204, b""))

    assert await send(f"{receiver.url}/hook?x=1") == Answered(204, None)

    [got] = receiver.received
    assert (got.method, got.path, got.query, got.body) == ("POST", "/hook", {"x": ["1"]}, BODY)
    assert HEADERS.items() <= got.headers.items()
    assert got.headers["content-type"] == "application/json"
    assert got.headers["user-agent"].startswith("BeRay-Webhooks/")


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (reply(200, {}), Answered(200, None)),
        (reply(299, {}), Answered(299, None)),
        (reply(200, gzip.compress(b"fine"), {"Content-Encoding": "gzip"}), Answered(200, None)),
        (reply(200, b"x" * 1_000_000), Answered(200, None)),
        (cut_body, Answered(200, None)),
        (reply(400, {}), Answered(400, "status")),
        (reply(410, {}), Answered(410, "status")),
        (reply(500, {}), Answered(500, "status")),
        (reply(503, {}, {"Retry-After": "7"}), Answered(503, "status", 7.0)),
        (reply(304, b""), Answered(304, "redirect")),
        (drop, Answered(None, "not_http")),
    ],
)
async def test_what_the_head_of_an_answer_says_counts(receiver, answer, outcome):
    receiver.script(answer)

    assert await send(receiver.url) == outcome


async def test_redirect_is_not_followed(receiver):
    with loopback_server() as inner:
        receiver.script(reply(307, b"", {"Location": f"{inner.url}/secret"}))

        assert await send(receiver.url) == Answered(307, "redirect")

        assert inner.connections == 0


async def test_what_is_no_http_is_said(receiver):
    server = EchoServer(answer=b"220 mail.example.com ESMTP\r\n")
    await server.start("127.0.0.1")
    try:
        assert await send(f"http://127.0.0.1:{server.port}/") == Answered(None, "not_http")
    finally:
        await server.close()


async def test_receiver_that_says_nothing_is_left(receiver, monkeypatch):
    monkeypatch.setattr(sending, "ATTEMPT_SECONDS", 1.0)  # time to arrive there, on a busy machine too
    receiver.script(silence)

    assert await send(receiver.url) == Answered(None, "timeout")

    assert await asyncio.to_thread(receiver.client_left.wait, 10)


async def test_receiver_that_never_ends_its_answer_has_taken_the_message(receiver, monkeypatch):
    monkeypatch.setattr(sending, "ANSWER_SECONDS", 0.05)

    def trickle(exchange: Exchange) -> None:
        exchange.begin(200, {"Content-Length": "100"})
        exchange.wfile.write(b"x")
        exchange.wait_for_close()

    receiver.script(trickle)

    assert await send(receiver.url) == Answered(200, None)


async def test_receiver_that_floods_with_interim_answers_is_left(receiver):
    """Each is cheap to send and dear to read; there may be any number of them before the answer."""

    def flood(exchange: Exchange) -> None:
        with contextlib.suppress(OSError):
            while True:
                exchange.wfile.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000)

    receiver.script(flood)

    assert await send(receiver.url) == Answered(None, "not_http")


async def test_nobody_there_is_unreachable():
    with loopback_server() as gone:
        pass

    assert await send(gone.url) == Answered(None, "unreachable")
    assert await send("https://unknown.example.org/", resolve=Names()) == Answered(None, "unreachable")


async def test_fault_of_ours_is_an_attempt_that_failed(receiver, monkeypatch, caplog):
    """Raised, the message would be sent again whenever its lease has lapsed, and never be given up."""
    receiver.script(reply(503, {}))

    def stumble(headers):
        raise OverflowError

    monkeypatch.setattr(sending, "retry_after_seconds", stumble)

    assert await send(receiver.url) == Answered(None, "unreachable")
    assert "could not be sent" in caplog.text


async def test_names_of_many_that_are_never_answered_leave_the_others_alone(receiver, monkeypatch):
    """Who holds the name's server lets a lookup wait for as long as the system does, beyond the attempt."""
    go, asked = threading.Event(), []

    def look_up(host):
        asked.append(host)
        if host.startswith("dead"):
            assert go.wait(30)
        return [PUBLIC]

    monkeypatch.setattr(dial, "_look_up", look_up)
    sender = Sender(PUBLIC_NETWORK)

    def begin(name):
        url = f"https://{name}.example.com:{receiver.server_address[1]}/"
        return asyncio.create_task(sender.send(url, BODY, HEADERS, lookups=asyncio.Semaphore(2)))

    dead = [begin(f"dead{number}") for number in range(30)]
    await until(lambda: len(asked) >= 8, what="lookups that wait")
    try:
        assert await begin("live") == Answered(None, "unreachable"), "looked up; nobody is there"
    finally:
        go.set()
        await asyncio.gather(*dead)
        sender.close()


async def test_environment_is_not_used(receiver, monkeypatch):
    receiver.script(reply(200, {}))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")

    assert await send(receiver.url) == Answered(200, None)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.2:{port}/",
        "http://[::1]:{port}/",
        "http://localhost:{port}/",
        "http://2130706433:{port}/",
        "http://169.254.169.254/",
        "http://u@127.0.0.1:{port}/",
    ],
)
async def test_url_that_is_not_taken_any_more_is_not_called(receiver, url):
    """It was, when it was given: the operator has changed the list since."""
    assert await send(url.format(port=receiver.server_address[1])) == Answered(None, "forbidden")

    assert receiver.connections == 0


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["169.254.169.254"],
        ["10.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        [PUBLIC, "127.0.0.1"],  # one of several is enough
    ],
)
async def test_name_that_leads_inside_is_not_called(receiver, addresses):
    port = receiver.server_address[1]

    outcome = await send(
        f"https://hooks.example.com:{port}/", PUBLIC_NETWORK, resolve=Names(hooks_example_com=[addresses])
    )

    assert outcome == Answered(None, "forbidden")
    assert receiver.connections == 0


async def test_name_that_changes_its_meaning_is_called_as_it_was_judged(tmp_path):
    """DNS rebinding: looked up once, and connected to what was judged."""
    server_tls, client_tls = tls_contexts(tmp_path, "hooks.example.com")
    server = EchoServer(answer=b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    await server.start(PUBLIC, tls=server_tls)
    names = Names(hooks_example_com=[[PUBLIC], ["127.0.0.1"]])
    url = f"https://hooks.example.com:{server.port}/"
    sender = Sender(PUBLIC_NETWORK, resolve=names, tls=client_tls)
    try:
        first = await sender.send(url, BODY, HEADERS, lookups=asyncio.Semaphore(2))
        second = await sender.send(url, BODY, HEADERS, lookups=asyncio.Semaphore(2))
    finally:
        sender.close()
        await server.close()

    assert (first, second) == (Answered(200, None), Answered(None, "forbidden"))
    assert names.asked == ["hooks.example.com"] * 2
    assert server.visits == 1


async def test_certificate_that_nobody_believes_is_said(tmp_path):
    server_tls, _ = tls_contexts(tmp_path, "hooks.example.com")
    server = EchoServer()
    await server.start(PUBLIC, tls=server_tls)
    try:
        outcome = await send(
            f"https://hooks.example.com:{server.port}/", PUBLIC_NETWORK, resolve=Names(hooks_example_com=[[PUBLIC]])
        )
    finally:
        await server.close()

    assert outcome == Answered(None, "tls")


async def test_listed_name_is_looked_up_as_this_machine_knows_it(receiver):
    receiver.script(reply(200, {}))
    url = f"http://localhost:{receiver.server_address[1]}/"

    assert await send(url, Reach(names=frozenset({"localhost"}))) == Answered(200, None)
