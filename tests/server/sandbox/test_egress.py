"""The way out of a sandbox: what may be allowed, which addresses are public, and how connections are carried."""

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import ssl
import stat
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from beray.server.sandbox.backend import Place as CommandPlace
from beray.server.sandbox.base import Limits, SandboxError, SandboxUnavailable
from beray.server.sandbox.bubblewrap import BubblewrapConfine
from beray.server.sandbox.choose import open_sandbox
from beray.server.sandbox.egress.addresses import is_of_this_machine, is_public, why_refused
from beray.server.sandbox.egress.allowlist import AllowList, is_host_name
from beray.server.sandbox.egress.dial import SystemResolver
from beray.server.sandbox.egress.hello import is_for
from beray.server.sandbox.egress.limits import EgressLimits
from beray.server.sandbox.egress.proxy import Egress
from beray.server.sandbox.egress.request import Refusal, Target, parse_connect, split_head
from beray.server.sandbox.environment import Layout
from beray.server.sandbox.guard.egress import PORT as PROXY_PORT
from beray.server.sandbox.guard.wire import JobFiles
from beray.server.settings import SettingError, Settings
from tests.support.egress import LINGER_NOT, PUBLIC, RESET, SECOND_PUBLIC, EchoServer, Names, open_box, public_is_public
from tests.support.sandbox_cases import Box, read_line
from tests.support.waiting import until

# What may be allowed


@pytest.mark.parametrize(
    ("entry", "host", "port", "is_allowed"),
    [
        ("data.gov", "data.gov", 443, True),
        ("Data.GOV", "data.gov", 443, True),
        ("data.gov", "data.gov", 80, False),
        ("data.gov", "files.data.gov", 443, False),
        ("data.gov:80", "data.gov", 80, True),
        ("data.gov:80", "data.gov", 443, False),
        ("*.example.com", "a.example.com", 443, True),
        ("*.example.com", "a.b.example.com", 443, True),
        ("*.example.com", "example.com", 443, False),
        ("*.example.com", "badexample.com", 443, False),
        ("*.example.com:8443", "a.example.com", 8443, True),
        ("*", "anything.example.com", 443, True),
        ("*", "anything.example.com", 22, False),
        ("*:22", "anything.example.com", 22, True),
        ("bücher.example", "xn--bcher-kva.example", 443, True),
        ("BÜCHER.example", "xn--bcher-kva.example", 443, True),
        ("faß.example", "xn--fa-hia.example", 443, True),
        ("faß.example", "fass.example", 443, False),  # what the older IDNA would have made of it
    ],
)
def test_host_and_port_are_compared_whole(entry: str, host: str, port: int, is_allowed: bool) -> None:
    assert AllowList(["other.example", entry]).allows(host, port) is is_allowed


@pytest.mark.parametrize(
    "entry",
    [
        *("localhost", "com", "*.com", "*.*.example.com", "a*.example.com", "a.*.example.com", "**", "*example.com"),
        *("10.0.0.1", "1.1.1.1", "127.1", "0x7f.1", "[::1]", "::1", "[2001:db8::1]:443", "2130706433"),
        *("https://data.gov", "data.gov/simple", "user@data.gov", "data.gov.", ".data.gov", "data..gov", "-a.org"),
        *(
            "data.gov:",
            "data.gov:0",
            "data.gov:65536",
            "data.gov:https",
            "data.gov:+443",
            ":443",
            "a b.org",
            "a\0b.org",
        ),
        *("a" * 64 + ".org", "a." * 127 + "org", "xn--\u00e4.example", "\u2024example.org"),
    ],
)
def test_what_is_no_host_can_not_be_allowed(entry: str) -> None:
    with pytest.raises(ValueError, match="is not a") as error:
        AllowList([entry])

    assert repr(entry) in str(error.value)


def test_the_list_is_shown_as_it_is_meant() -> None:
    allowed = AllowList(["Data.GOV", "data.gov:443", "*.example.com:8443"])

    assert str(allowed) == "data.gov, *.example.com:8443"
    assert "data.gov, *.example.com:8443" in allowed.note
    assert len(AllowList([f"host-{number}.example.com" for number in range(100)]).shown) < 400
    assert not AllowList([])


# Which addresses are public


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "10.1.2.3", "100.64.0.1", "100.127.255.254", "127.0.0.1", "127.255.255.254", "169.254.169.254"),
        *("172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1", "192.88.99.1", "192.168.1.1", "198.18.0.1"),
        *("198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "64:ff9b:1::1", "100::1"),
        *("2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:20::1", "2001:db8::1", "2002:7f00:1::1"),
        *("2002:808:808::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1"),
        *("4000::1", "2620:4f:8000::1"),
    ],
)
def test_address_of_no_public_host_is_refused(address: str) -> None:
    assert why_refused(ipaddress.ip_address(address)) is not None


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "8.8.8.8", "100.63.255.255", "172.32.0.1", "2606:4700:4700::1111", "2a00:1450:4001::1"]
)
def test_address_of_a_public_host_is_taken(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_this_machines_own_address_is_known() -> None:
    """One it has on the internet would be reached past its firewall."""
    assert is_of_this_machine(ipaddress.ip_address("127.0.0.1"))
    assert not is_of_this_machine(ipaddress.ip_address("192.0.2.1"))


# What is asked for


@given(st.binary(max_size=200) | st.text(max_size=60).map(lambda target: f"CONNECT {target} HTTP/1.1\r\n\r\n".encode()))
def test_whatever_is_sent_is_a_host_or_refused(received: bytes) -> None:
    target, status = None, None
    try:
        head = split_head(received)
        target = None if head is None else parse_connect(head[0])
    except Refusal as refusal:
        status = refusal.status
    assert status in {None, 400, 403}
    if target is not None:
        assert is_host_name(target.host)
        assert target.host.isascii()
        assert 0 < target.port < 65536


@given(
    st.from_regex(r"[a-z][a-z0-9-]{0,20}[a-z0-9](\.[a-z]{2,10}){1,3}", fullmatch=True),
    st.integers(1, 65535),
    st.binary(max_size=40),
)
def test_a_plain_request_is_read_however_it_is_cut(host: str, port: int, rest: bytes) -> None:
    head = f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\nProxy-Connection: keep-alive\r\n\r\n".encode()

    assert [split_head(head[:length]) for length in range(len(head))] == [None] * len(head)
    found = split_head(head + rest)
    assert found is not None
    assert found[1] == rest
    assert str(parse_connect(found[0])) == f"{host}:{port}"


# Which host a TLS connection is for


def client_hello(name: str | None, *, cut: int = 0) -> bytes:
    """What Python's own TLS says first; `cut` puts it into records of that many bytes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    output = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), output, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    hello = output.read()
    if not cut:
        return hello
    message = hello[5:]
    pieces = [message[at : at + cut] for at in range(0, len(message), cut)]
    return b"".join(hello[:3] + len(piece).to_bytes(2, "big") + piece for piece in pieces)


def with_extension(hello: bytes, kind: int, content: bytes) -> bytes:
    """The hello, one record, with one more extension at its end."""
    extension = kind.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content
    body = bytearray(hello[9:])
    at = 34
    for size in (1, 2, 1):
        at += size + int.from_bytes(body[at : at + size], "big")
    body[at : at + 2] = (int.from_bytes(body[at : at + 2], "big") + len(extension)).to_bytes(2, "big")
    message = b"\1" + (len(body) + len(extension)).to_bytes(3, "big") + body + extension
    return hello[:3] + len(message).to_bytes(2, "big") + message


HOST = Target("data.gov", 443)
NEIGHBOUR = b"\0\x0f\0\0\x0cevil.example"


@pytest.mark.parametrize("cut", [0, 50, 100])
def test_tls_for_the_host_itself_is_carried(cut: int) -> None:
    hello = client_hello("Data.GOV", cut=cut)

    assert [length for length in range(len(hello)) if is_for(HOST, hello[:length])] == []
    assert is_for(HOST, hello)
    assert is_for(HOST, hello + b"more")


@pytest.mark.parametrize(
    ("received", "reason"),
    [
        (client_hello("evil.example"), "another host"),
        (client_hello("evil.example", cut=70), "another host"),
        (client_hello("sub.data.gov"), "another host"),
        (client_hello(None), "another host"),
        (with_extension(client_hello("data.gov"), 0, NEIGHBOUR), "another host"),
        (with_extension(client_hello("data.gov"), 0xFE0D, b"hidden"), "hides its host"),
        (b"GET / HTTP/1.1\r\n", "Only TLS"),
        (b"SSH-2.0-OpenSSH\r\n", "Only TLS"),
        (b"\x80\x2e\1\0\2", "Only TLS"),
        (b"\x14\3\3\0\1\1" + client_hello("data.gov"), "does not begin"),
        (b"\x16\3\1\0\4\2\0\0\0", "does not begin"),
        (b"\x16\3\1\0\0" * 3, "does not begin"),
        pytest.param(client_hello("data.gov", cut=1)[: 16 * 6], "does not begin", id="many records"),
        (b"\x16\3\1\0\5\1\0\0\1\0", "does not begin"),
        (b"\x16\3\1\x40\0" + b"\1\xff\xff\xff" + bytes(1 << 16), "does not begin"),
    ],
)
def test_tls_for_another_host_and_what_is_no_tls_is_refused(received: bytes, reason: str) -> None:
    with pytest.raises(Refusal, match=reason) as error:
        is_for(HOST, received)

    assert error.value.status == 403


def test_other_protocols_are_carried_to_ports_that_are_named() -> None:
    assert is_for(Target("data.gov", 22), b"SSH-2.0-OpenSSH\r\n")
    with pytest.raises(Refusal, match="another host"):
        is_for(Target("data.gov", 8443), client_hello("evil.example"))


@given(st.binary(max_size=300), st.binary(max_size=60), st.integers(0, 300))
def test_whatever_begins_a_connection_is_judged(random: bytes, planted: bytes, at: int) -> None:
    hello = client_hello("data.gov")
    for received in (random, b"\x16\3\1" + random, hello[:at] + planted + hello[at + len(planted) :]):
        with contextlib.suppress(Refusal):
            assert is_for(HOST, received) in {True, False}


# How connections are carried: the proxy alone, with a listener of the test's in place of a sandbox's


LIMITS = EgressLimits()


class Street:
    """The proxy with one command's door, and clients that come to it."""

    def __init__(self, names: Names, host: EchoServer) -> None:
        self.names = names
        self.host = host
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> "Street":
        await self.host.start(PUBLIC)
        self._stack.push_async_callback(self.host.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def build(self, limits: EgressLimits = LIMITS) -> None:
        self.egress = Egress(
            AllowList([f"*.example.org:{self.host.port}"]),
            resolve=self.names,
            why_refused=public_is_public,
            limits=limits,
        )
        self._stack.push_async_callback(self.egress.close)
        self.address = self.open_door(1)

    def open_door(self, task_id: int) -> tuple[str, int]:
        self.door, control = self.egress.open_door(task_id)
        listener = self._stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        with socket.socket(fileno=control) as channel:
            socket.send_fds(channel, [b"listening"], [listener.fileno()])
        address: tuple[str, int] = listener.getsockname()
        return address

    async def come(self, address: tuple[str, int] | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*(address or self.address))
        self._stack.callback(writer.close)
        return reader, writer

    async def ask(self, host: str = "a.example.org", *, early: bytes = b"") -> "Client":
        reader, writer = await self.come()
        writer.write(f"CONNECT {host}:{self.host.port} HTTP/1.1\r\n\r\n".encode() + early)
        return Client(reader, writer)


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def status(self) -> str:
        """The first line of the answer; the rest of a tunnel's head is read too."""
        line = (await self.reader.readline()).decode().strip()
        if " 200 " in line:
            await self.reader.readline()
        return line


@pytest.fixture
async def street() -> AsyncIterator[Street]:
    names = Names(a_example_org=[[PUBLIC]], b_example_org=[[PUBLIC]], c_example_org=[[PUBLIC]])
    async with Street(names, EchoServer()) as built:
        yield built


async def test_what_comes_with_the_request_is_carried(street: Street) -> None:
    street.build()
    client = await street.ask(early=b"early")

    assert await client.status() == "HTTP/1.1 200 Connection established"
    assert await client.reader.readexactly(10) == b"echo early"


async def test_much_is_carried_both_ways_to_its_last_byte(street: Street) -> None:
    """Also by a reader that is slow to begin: what it does not take is not taken from the other side."""
    street.build()
    client = await street.ask()
    await client.status()
    sent = os.urandom(4 << 20)

    async def send() -> None:
        client.writer.write(sent)
        await client.writer.drain()
        client.writer.write_eof()

    sending = asyncio.create_task(send())
    received = await client.reader.read()
    await sending

    assert received.replace(b"echo ", b"") == sent


async def test_further_connections_of_a_task_wait_for_their_turn(street: Street) -> None:
    """All its commands count together; another task does not wait for them."""
    street.build(EgressLimits(task_connections=2))
    first, second = [await street.ask() for _ in range(2)]
    assert [await client.status() for client in (first, second)] == ["HTTP/1.1 200 Connection established"] * 2
    street.address = street.open_door(1)
    waiting = await street.ask()
    street.address = street.open_door(2)
    other = await street.ask()

    assert " 200 " in await other.status()
    assert street.host.visits == 3
    first.writer.close()
    assert " 200 " in await waiting.status()


async def test_connections_of_all_tasks_are_bounded_too(street: Street) -> None:
    street.build(EgressLimits(all_connections=1))
    first = await street.ask()
    await first.status()
    street.address = street.open_door(2)
    waiting = await street.ask()
    first.writer.close()

    assert " 200 " in await waiting.status()
    await until(lambda: street.host.open == 1)


async def test_a_name_that_is_never_answered_holds_up_its_own_task_only(street: Street) -> None:
    street.build(EgressLimits(task_lookups=1))
    never = asyncio.Event()
    street.names.waits["b.example.org"] = never
    stuck = await street.ask("b.example.org")
    await until(lambda: street.names.asked == ["b.example.org"])
    behind = await street.ask("a.example.org")
    street.address = street.open_door(2)
    other = await street.ask("c.example.org")

    assert " 200 " in await other.status()
    assert street.names.asked == ["b.example.org", "c.example.org"]
    never.set()
    assert [" 200 " in await client.status() for client in (stuck, behind)] == [True, True]


async def test_a_lookup_that_is_given_up_keeps_its_place_until_its_thread_is_free(street: Street) -> None:
    """Else a task could fill all threads with names that are answered late, and nobody could look up any more."""
    street.build(EgressLimits(task_lookups=1, lookup_seconds=0.01))
    street.names.waits["b.example.org"] = asyncio.Event()

    answers = [await (await street.ask(host)).status() for host in ("b.example.org", "a.example.org")]

    assert [" 504 " in answer for answer in answers] == [True, True]
    assert street.names.asked == ["b.example.org"]


@pytest.mark.parametrize(
    ("limits", "host", "answer"),
    [
        (
            EgressLimits(lookup_seconds=0.01),
            "slow.example.org",
            "HTTP/1.1 504 Gateway Timeout: slow.example.org was not",
        ),
        (EgressLimits(), "unknown.example.org", "HTTP/1.1 502 Bad Gateway: unknown.example.org could not be looked up"),
        (EgressLimits(), "nothing.example.org", "HTTP/1.1 502 Bad Gateway: nothing.example.org has no address"),
        (EgressLimits(), "nonsense.example.org", "HTTP/1.1 403 Forbidden: nonsense.example.org has an address that"),
        (EgressLimits(), "zone.example.org", "HTTP/1.1 403 Forbidden: zone.example.org may not be reached"),
    ],
)
async def test_a_host_that_can_not_be_had_is_told(street: Street, limits: EgressLimits, host: str, answer: str) -> None:
    street.names.add("nothing.example.org", [])
    street.names.add("nonsense.example.org", ["300.1.2.3"])
    street.names.add("zone.example.org", ["fe80::1%lo"])
    street.names.waits["slow.example.org"] = asyncio.Event()
    street.build(limits)

    assert (await (await street.ask(host)).status()).startswith(answer)


async def test_a_closed_port_is_told(street: Street) -> None:
    street.build()
    await street.host.close()

    status = await (await street.ask()).status()

    await street.host.start(PUBLIC, port=street.host.port)
    assert status.startswith("HTTP/1.1 502 ")
    assert "Connection refused" in status


async def test_the_next_address_is_tried_when_one_is_dead(street: Street) -> None:
    """Of the same answer: the name is not looked up again."""
    street.names.add("two.example.org", [SECOND_PUBLIC, PUBLIC])
    street.build()

    assert " 200 " in await (await street.ask("two.example.org")).status()
    assert street.names.asked == ["two.example.org"]


async def test_a_request_that_does_not_come_is_not_waited_for(street: Street) -> None:
    street.build(EgressLimits(head_seconds=0.01))
    reader, writer = await street.come()
    writer.write(b"CONNECT a.exam")

    assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("limits", [EgressLimits(idle_seconds=0.05), EgressLimits(most_seconds=0.05)])
async def test_an_idle_or_old_connection_is_cut(
    street: Street, limits: EgressLimits, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    street.build(limits)
    client = await street.ask()
    await client.status()

    assert await client.reader.read() == b""
    await until(lambda: street.host.open == 0)
    assert [record.__dict__["reason"] for record in caplog.records if "verdict" in record.__dict__] == [
        "cut, for it was idle or open too long"
    ]


async def test_shutting_the_door_cuts_its_connections_and_no_others(street: Street) -> None:
    street.build()
    client = await street.ask()
    await client.status()
    door = street.door
    street.address = street.open_door(1)
    other = await street.ask()
    await other.status()

    door.shut()
    await door.ended()

    assert await client.reader.read() == b""
    await until(lambda: street.host.open == 1)
    other.writer.write(b"still here")
    assert await other.reader.readexactly(15) == b"echo still here"


async def test_a_host_that_breaks_off_ends_the_connection(street: Street) -> None:
    street.build()
    client = await street.ask()
    await client.status()

    client.writer.write(RESET)

    assert await client.reader.read() == b""
    await until(lambda: street.host.open == 0)


async def test_each_connection_is_logged_with_its_task(street: Street, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    street.build()
    client = await street.ask(early=b"hello")
    await client.status()
    await client.reader.readexactly(10)
    client.writer.close()
    await (await street.ask("evil.example")).status()

    def logged() -> list[dict[str, object]]:
        names = ("task_id", "host", "port", "verdict", "sent_bytes", "received_bytes")
        found = [record.__dict__ for record in caplog.records]
        return [{name: fields[name] for name in names} for fields in found if "verdict" in fields]

    await until(lambda: len(logged()) == 2)
    port = street.host.port
    zero = {"sent_bytes": 0, "received_bytes": 0}
    carried = {"verdict": "carried", "sent_bytes": 5, "received_bytes": 10}
    rows = sorted(logged(), key=lambda row: str(row["verdict"]))
    assert rows[0] == {"task_id": 1, "host": "a.example.org", "port": port, **carried}
    assert rows[1] == {"task_id": 1, "host": "evil.example", "port": port, "verdict": "refused", **zero}


async def test_a_flood_of_requests_is_not_a_flood_of_log_lines(
    street: Street, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    street.build(EgressLimits(log_lines=3, refusal_pause_seconds=0))
    for _ in range(8):
        await (await street.ask("evil.example")).status()
    await street.egress.close()

    lines = [record.__dict__ for record in caplog.records if record.name.endswith("egress.door")]
    assert [line.get("verdict") for line in lines] == ["refused"] * 3 + [None]
    assert lines[-1]["refused"] == 8


async def test_a_door_that_is_shut_at_once_leaves_nothing(street: Street) -> None:
    street.build()
    before = len(os.listdir("/proc/self/fd"))
    door, control = street.egress.open_door(3)
    os.close(control)

    door.shut()
    await door.ended()

    assert len(os.listdir("/proc/self/fd")) == before


async def test_connections_that_come_to_nothing_keep_their_place_for_a_while(street: Street) -> None:
    """Refused, reset, or without a request: their number a second is bounded."""
    street.build(EgressLimits(task_connections=2, refusal_pause_seconds=60))
    _, writer = await street.come()
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
    writer.write(b"CONN")
    await writer.drain()
    writer.transport.abort()
    refused = await street.ask("evil.example")
    assert " 403 " in await refused.status()
    waiting = await street.ask()
    street.address = street.open_door(2)
    other = await street.ask()

    assert " 200 " in await other.status()
    assert street.names.asked == ["a.example.org"]
    assert not waiting.reader.at_eof()


@pytest.mark.parametrize("kind", ["file", "datagram", "connected"])
async def test_what_is_no_listener_is_not_accepted_on(
    street: Street, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    street.build()
    door, control = street.egress.open_door(3)
    with socket.socket(fileno=control) as channel, contextlib.ExitStack() as stack:
        if kind == "file":
            given_fd = stack.enter_context(open(os.devnull)).fileno()
        elif kind == "datagram":
            given_fd = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)).fileno()
        else:
            given_fd = stack.enter_context(socket.create_connection((PUBLIC, street.host.port))).fileno()
        socket.send_fds(channel, [b"listening"], [given_fd])
        await door.ended()

    assert "the way out of a command failed" in caplog.text


async def test_the_machines_own_resolver_is_asked_for_the_whole_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """And for nothing else: no search domain of the machine is put behind it."""
    asked = []

    def look_up(host: str, port: None, **_: object) -> list[tuple[object, ...]]:
        asked.append(host)
        found = [("2606:4700::1", 0, 0, 0), ("1.1.1.1", 0), ("1.1.1.1", 0)]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    resolver = SystemResolver()

    assert await resolver("a.example.org") == ["2606:4700::1", "1.1.1.1"]
    resolver.close()
    assert asked == ["a.example.org."]


# In bubblewrap


LAYOUT = Layout(Path("/srv/sandbox"), interpreter="/usr/bin/python3")
PLACE = CommandPlace("/srv/tasks/1/work", "/srv/tasks/1/work.home", 4711, LAYOUT)


def test_nothing_is_started_for_a_command_without_a_way_out() -> None:
    confine = BubblewrapConfine("/usr/bin/bwrap", scopes_signals=True)

    without = confine.confine(PLACE, Limits())
    having = confine.confine(CommandPlace(PLACE.work_dir, PLACE.home, PLACE.uid, LAYOUT, has_egress=True), Limits())

    assert without.opener == ()
    assert "/run/beray/egress.py" not in without.made_files
    assert having.opener == ("/usr/bin/python3", "-I", "-S", "/run/beray/egress.py")
    assert (having.options, having.wrapper) == (without.options, without.wrapper)


@pytest.mark.parametrize(("report", "egress"), [(None, None), (6, None), (None, 7), (6, 7)])
def test_descriptors_of_a_job_arrive_as_what_they_are(report: int | None, egress: int | None) -> None:
    files = JobFiles(1, 2, 3, 4, 5, report, egress)

    assert JobFiles.received(files.message, files.as_list()) == files


BEHAVIOUR: dict[str, tuple[Sequence[str], dict[str, object]]] = {
    "exit code": (["sh", "-c", "exit 3"], {}),
    "signal": (["sh", "-c", "kill -TERM $$"], {}),
    "broken pipe": (["bash", "-c", "yes | head -1; echo ${PIPESTATUS[0]}"], {}),
    "ignored signals": (["grep", "SigIgn", "/proc/self/status"], {}),
    "input": (["cat"], {"stdin": b"from the server"}),
    "report": (["sh", "-c", "echo report >&3"], {"has_report": True}),
    "descriptors": (["sh", "-c", "ls -1 /proc/self/fd; ls -1 /proc/1/fd 2>&1"], {}),
    "processes": (["sh", "-c", "echo /proc/[0-9]*"], {}),
    "odd arguments": (["sh", "-c", 'printf "%s|" "$@" | od -c', "sh", "", "a b", "\udcff", "é\n'\""], {}),
    "odd variables": (["sh", "-c", 'printf "%s|" "$A" "$B" | od -c'], {"env": {"A": "x=y\n", "B": "\udcfe"}}),
    "preload": (["sh", "-c", "echo ran"], {"env": {"LD_PRELOAD": "/nowhere.so", "PYTHONPATH": "/nowhere"}}),
    "environment": (["sh", "-c", "env | grep -vi proxy | sort"], {}),
    "unknown program": (["sh", "-c", "exec nothing-like-it"], {}),
    "folder": (["pwd"], {"cwd": "below"}),
    "limits": (["sh", "-c", "ulimit -a"], {"limits": Limits(wall_seconds=30, processes=20, open_files=99)}),
}


@dataclass
class Place:
    box: Box
    host: EchoServer


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(module_dir: Path) -> AsyncIterator[Place]:
    """A sandbox whose commands may reach host.example."""
    host = EchoServer()
    await host.start(PUBLIC)
    allowed = AllowList([f"host.example:{host.port}"])
    egress = Egress(allowed, resolve=Names(host_example=[[PUBLIC]]), why_refused=public_is_public)
    async with open_box(egress, module_dir) as box:
        yield Place(box, host)
    await host.close()


@pytest.mark.needs("bubblewrap")
@pytest.mark.asyncio(loop_scope="module")
async def test_a_command_with_a_way_out_can_be_written_to(place: Place) -> None:
    """What opens the way before it leaves the command's input to the command."""
    process = await place.box.start("cat", task_id=1, has_input=True)

    await process.write(b"first\n")
    assert await read_line(process) == "first"
    await process.close_input()

    assert (await process.wait()).code == 0


@pytest.mark.needs("bubblewrap")
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("name", BEHAVIOUR)
async def test_a_command_with_a_way_out_runs_as_one_without(name: str, place: Place) -> None:
    argv, options = BEHAVIOUR[name]
    (place.box.work_dir / "below").mkdir(exist_ok=True)

    ended = [await place.box.run(*argv, task_id=task_id, **options) for task_id in (None, 1)]

    assert ended[0] == ended[1]


HOLD = """
import os, socket, sys
proxy = socket.create_connection(("127.0.0.1", 3128), 20)
proxy.sendall(f"CONNECT host.example:{sys.argv[1]} HTTP/1.1\\r\\n\\r\\n".encode())
print(proxy.makefile("rb").readline().decode().strip(), flush=True)
proxy.settimeout(None)
if sys.argv[2] == "leave" and os.fork() > 0:
    os._exit(0)
proxy.recv(1)
"""


@pytest.mark.needs("bubblewrap")
@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("how", ["stay", "leave"])
async def test_connections_end_with_their_command(how: str, place: Place) -> None:
    """Killed, or ended by itself with a process left behind."""
    process = await place.box.start(place.box.python, "-I", "-c", HOLD, str(place.host.port), how, task_id=1)
    assert "200" in await read_line(process)
    if how == "stay":
        assert place.host.open == 1
        await process.kill()

    ended = await process.wait()

    assert ended.reason == ("stopped" if how == "stay" else "exit")
    await until(lambda: place.host.open == 0)


@pytest.mark.needs("bubblewrap")
@pytest.mark.asyncio(loop_scope="module")
async def test_nothing_of_a_way_out_is_left_after_its_command(place: Place) -> None:
    """Ended, killed, or never begun: the server keeps no listener, and no namespace by it."""
    await place.box.run("true", task_id=1)
    with pytest.raises(SandboxError, match="was not found"):
        await place.box.start("no-such-program", task_id=1)
    process = await place.box.start("sleep", "1000", task_id=1)
    await until(lambda: len(kept_listeners()) == 1)
    await process.kill()

    await until(lambda: kept_listeners() == [])


def kept_listeners() -> list[int]:
    """Descriptors of ours that are the listener of some sandbox."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as copy:
            if copy.family == socket.AF_INET and copy.getsockname() == ("127.0.0.1", PROXY_PORT):
                found.append(int(name))
    return found


@pytest.mark.needs("bubblewrap")
@pytest.mark.asyncio(loop_scope="module")
async def test_commands_at_the_same_time_have_each_their_own_way_out(place: Place) -> None:
    box = place.box
    processes = [
        await box.start(box.python, "-I", "-c", HOLD, str(place.host.port), "stay", task_id=task_id)
        for task_id in (1, 1, 2)
    ]

    assert ["200" in await read_line(process) for process in processes] == [True] * 3
    assert place.host.open == 3
    await asyncio.gather(*(process.kill() for process in processes))


@pytest.mark.needs("bubblewrap")
@pytest.mark.asyncio(loop_scope="module")
async def test_a_command_is_told_what_is_allowed(place: Place) -> None:
    """In the words a program shows: the status line."""
    script = "import urllib.request\nurllib.request.urlopen('https://evil.example/')"

    ended = await place.box.py(script, task_id=1)

    assert f"evil.example:443 is not allowed; allowed: host.example:{place.host.port}" in ended.stderr


# Which server has it


@pytest.mark.needs("bubblewrap")
async def test_a_server_that_allows_hosts_says_which(service_dir: Path) -> None:
    sandbox, capabilities = await open_sandbox(
        Settings(sandbox_allow_hosts=("data.gov", "*.example.com")), data_dir=service_dir / "egress-chosen"
    )
    await sandbox.close()

    assert capabilities.backend == "bubblewrap"
    assert any("data.gov, *.example.com" in note for note in capabilities.notes)
    assert next(row for row in capabilities.confinements if row.name == "network").is_confined


@pytest.mark.parametrize("backend", ["landlock", "none"])
async def test_a_backend_that_can_not_enforce_it_is_refused(backend: str, service_dir: Path) -> None:
    settings = Settings(sandbox=backend, sandbox_allow_hosts=("data.gov",))

    with pytest.raises(SettingError, match="Only bubblewrap") as error:
        await open_sandbox(settings, data_dir=service_dir / "egress-refused")

    assert backend in str(error.value)
    assert "unset BERAY_SANDBOX_ALLOW_HOSTS" in str(error.value)


async def test_without_bubblewrap_there_is_no_quiet_way_without_the_network(
    service_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    settings = Settings(sandbox_allow_hosts=("data.gov",))

    with pytest.raises(SandboxUnavailable, match=r"bwrap is not installed.*unset BERAY_SANDBOX_ALLOW_HOSTS"):
        await open_sandbox(settings, data_dir=service_dir / "egress-none")


async def test_a_host_that_is_none_stops_the_start(service_dir: Path) -> None:
    settings = Settings.load({"BERAY_SANDBOX_ALLOW_HOSTS": "data.gov, 10.0.0.1:443"})

    with pytest.raises(
        SettingError, match=r"BERAY_SANDBOX_ALLOW_HOSTS cannot be used: '10\.0\.0\.1:443' is not a full"
    ):
        await open_sandbox(settings, data_dir=service_dir / "egress-bad")
