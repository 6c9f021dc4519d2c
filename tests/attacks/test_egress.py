"""Attacks 16 and 17 where the network is open to some hosts: real commands in bubblewrap, the real proxy, listeners on
this machine. two loopback addresses stand for the public internet (`tests/support/egress.py`).
"""

import contextlib
import json
import secrets
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from beray.server.sandbox.egress.allowlist import AllowList
from beray.server.sandbox.egress.proxy import Egress
from tests.support.egress import PUBLIC, SECOND_PUBLIC, EchoServer, Names, open_box, public_is_public
from tests.support.sandbox_cases import Box

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.needs("bubblewrap")]

TASK = 4711

ASK_ALL = """
import json, socket, sys
answers = {}
for name, request in json.load(sys.stdin).items():
    with socket.create_connection(("127.0.0.1", 3128), 20) as proxy:
        proxy.sendall(request.encode("latin-1"))
        answers[name] = proxy.makefile("rb").readline().decode("latin-1").strip()
print(json.dumps(answers))
"""

TUNNEL = """
import socket, sys
with socket.create_connection(("127.0.0.1", 3128), 20) as proxy:
    reader = proxy.makefile("rb")
    proxy.sendall(f"CONNECT {sys.argv[1]} HTTP/1.1\\r\\n\\r\\n".encode())
    print(reader.readline().decode().strip())
    reader.readline()
    proxy.sendall(sys.argv[2].encode())
    proxy.shutdown(socket.SHUT_WR)
    print(reader.read().decode())
"""

# name: (what a command sends, the answer's status, a part of the reason). {port}: where host.example listens.
REFUSED: dict[str, tuple[str, int, str]] = {
    "another host": ("CONNECT evil.example:443 HTTP/1.1\r\n\r\n", 403, "allowed: host.example"),
    "another port": ("CONNECT host.example:443 HTTP/1.1\r\n\r\n", 403, "not allowed"),
    "below the host": ("CONNECT a.host.example:{port} HTTP/1.1\r\n\r\n", 403, "not allowed"),
    "ends like the host": ("CONNECT evilhost.example:{port} HTTP/1.1\r\n\r\n", 403, "not allowed"),
    "begins like the host": ("CONNECT host.example.evil.example:{port} HTTP/1.1\r\n\r\n", 403, "not allowed"),
    "the wildcard's own host": ("CONNECT inside.example:{port} HTTP/1.1\r\n\r\n", 403, "not allowed"),
    "ends like the wildcard": ("CONNECT evilinside.example:{port} HTTP/1.1\r\n\r\n", 403, "not allowed"),
    "upper case": ("CONNECT EVIL.EXAMPLE:443 HTTP/1.1\r\n\r\n", 403, "not allowed"),
    "public address": (f"CONNECT {PUBLIC}:{{port}} HTTP/1.1\r\n\r\n", 403, "host names"),
    "metadata address": ("CONNECT 169.254.169.254:80 HTTP/1.1\r\n\r\n", 403, "host names"),
    "decimal address": ("CONNECT 2130706433:{port} HTTP/1.1\r\n\r\n", 403, "host names"),
    "octal address": ("CONNECT 0177.0.0.1:{port} HTTP/1.1\r\n\r\n", 403, "host names"),
    "hex address": ("CONNECT 0x7f000001:{port} HTTP/1.1\r\n\r\n", 403, "host names"),
    "dotted hex address": ("CONNECT 0x7f.0.0.0x1:{port} HTTP/1.1\r\n\r\n", 403, "host names"),
    "short address": ("CONNECT 127.1:{port} HTTP/1.1\r\n\r\n", 403, "host names"),
    "IPv6 address": ("CONNECT [::1]:{port} HTTP/1.1\r\n\r\n", 403, "host names"),
    "IPv6 without brackets": ("CONNECT ::1:{port} HTTP/1.1\r\n\r\n", 403, "host names"),
    "IPv6 with a zone": ("CONNECT [fe80::1%25lo]:{port} HTTP/1.1\r\n\r\n", 403, "host names"),
    "IPv4 as IPv6": ("CONNECT [::ffff:127.0.0.1]:{port} HTTP/1.1\r\n\r\n", 403, "host names"),
    "localhost": ("CONNECT localhost:{port} HTTP/1.1\r\n\r\n", 403, "host names"),
    "user before the host": ("CONNECT host.example@evil.example:443 HTTP/1.1\r\n\r\n", 403, "user names"),
    "user that is a host": ("CONNECT evil.example@host.example:{port} HTTP/1.1\r\n\r\n", 403, "user names"),
    "user and password": ("CONNECT host.example:{port}@evil.example:443 HTTP/1.1\r\n\r\n", 403, "user names"),
    "dot at the end": ("CONNECT host.example.:{port} HTTP/1.1\r\n\r\n", 403, "dots at the end"),
    "two dots": ("CONNECT host..example:{port} HTTP/1.1\r\n\r\n", 403, "host names"),
    "percent encoding": ("CONNECT host%2eexample:{port} HTTP/1.1\r\n\r\n", 403, "host names"),
    "letters that look alike": (
        "CONNECT hоst.example:{port} HTTP/1.1\r\n\r\n".encode().decode("latin-1"),
        403,
        "ASCII",
    ),
    "wide letters": ("CONNECT ｈost.example:{port} HTTP/1.1\r\n\r\n".encode().decode("latin-1"), 403, "ASCII"),
    "other letters in ASCII": ("CONNECT xn--hst-sed.example:{port} HTTP/1.1\r\n\r\n", 403, "not allowed"),
    "a URL": ("CONNECT https://host.example:{port} HTTP/1.1\r\n\r\n", 403, "host names"),
    "a path": ("CONNECT evil.example/host.example:{port} HTTP/1.1\r\n\r\n", 403, "host names"),
    "plain http": ("GET http://host.example:{port}/ HTTP/1.1\r\nHost: host.example\r\n\r\n", 403, "use https"),
    "a request to the proxy": ("GET / HTTP/1.1\r\nHost: host.example\r\n\r\n", 403, "Only CONNECT"),
    "another method": ("POST http://host.example:{port}/ HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 403, "Only CONNECT"),
    "method in lower case": ("connect host.example:{port} HTTP/1.1\r\n\r\n", 403, "Only CONNECT"),
    "name of this machine": ("CONNECT loopback.inside.example:{port} HTTP/1.1\r\n\r\n", 403, "public internet"),
    "name of the proxy": ("CONNECT proxy.example:3128 HTTP/1.1\r\n\r\n", 403, "public internet"),
    "name of the metadata": ("CONNECT metadata.inside.example:{port} HTTP/1.1\r\n\r\n", 403, "public internet"),
    "name in the network": ("CONNECT lan.inside.example:{port} HTTP/1.1\r\n\r\n", 403, "public internet"),
    "name of IPv6 loopback": ("CONNECT six.inside.example:{port} HTTP/1.1\r\n\r\n", 403, "public internet"),
    "name of a mapped address": ("CONNECT mapped.inside.example:{port} HTTP/1.1\r\n\r\n", 403, "public internet"),
    "name of a translated one": ("CONNECT nat64.inside.example:{port} HTTP/1.1\r\n\r\n", 403, "public internet"),
    "public and private": ("CONNECT mixed.inside.example:{port} HTTP/1.1\r\n\r\n", 403, "public internet"),
    "NUL": ("CONNECT host.example\0.evil.example:{port} HTTP/1.1\r\n\r\n", 400, "malformed"),
    "line end in the host": ("CONNECT evil.example\r\nhost.example:{port} HTTP/1.1\r\n\r\n", 400, "malformed"),
    "bare line end": ("CONNECT host.example:{port} HTTP/1.1\nX: y\r\n\r\n", 400, "malformed"),
    "bare carriage return": ("CONNECT host.example:{port}\r HTTP/1.1\r\n\r\n", 400, "malformed"),
    "two spaces": ("CONNECT  host.example:{port} HTTP/1.1\r\n\r\n", 400, "malformed"),
    "tab": ("CONNECT\thost.example:{port} HTTP/1.1\r\n\r\n", 400, "malformed"),
    "continued header": ("CONNECT host.example:{port} HTTP/1.1\r\nX: y\r\n z: w\r\n\r\n", 400, "header"),
    "no port": ("CONNECT host.example HTTP/1.1\r\n\r\n", 400, "port"),
    "port out of range": ("CONNECT host.example:65536 HTTP/1.1\r\n\r\n", 400, "port"),
    "port with a sign": ("CONNECT host.example:+{port} HTTP/1.1\r\n\r\n", 400, "port"),
    "old version": ("CONNECT host.example:{port}\r\n\r\n", 400, "malformed"),
    "TLS without a request": ("\x16\x03\x01\x02\x00\x01\n\n", 400, "malformed"),
    "endless head": ("CONNECT host.example:{port} HTTP/1.1\r\nX: " + 9000 * "y", 400, "too long"),
}


@dataclass
class World:
    """A sandbox whose commands may reach host.example, *.inside.example, rebind.example and proxy.example."""

    box: Box
    names: Names
    host: EchoServer
    inside: EchoServer

    async def tunnel(self, host: str, message: str) -> list[str]:
        ended = await self.box.py(TUNNEL, f"{host}:{self.host.port}", message, task_id=TASK)
        assert ended.stderr == ""
        return ended.stdout.splitlines()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(module_dir: Path) -> AsyncIterator[World]:
    names = Names(
        host_example=[[PUBLIC]],
        tls_example=[[SECOND_PUBLIC]],
        rebind_example=[[PUBLIC], ["127.0.0.1"]],
        proxy_example=[["127.0.0.1"]],
        loopback_inside_example=[["127.0.0.1"]],
        metadata_inside_example=[["169.254.169.254"]],
        lan_inside_example=[["10.0.0.1"]],
        six_inside_example=[["::1"]],
        mapped_inside_example=[["::ffff:127.0.0.1"]],
        nat64_inside_example=[["64:ff9b::7f00:1"]],
        mixed_inside_example=[[PUBLIC, "127.0.0.1"]],
    )
    async with contextlib.AsyncExitStack() as stack:
        host, inside = EchoServer(), EchoServer()
        await host.start(PUBLIC)
        await inside.start("127.0.0.1", port=host.port)  # where a name that points inwards would lead
        for server in (host, inside):
            stack.push_async_callback(server.close)
        port = host.port
        allowed = [f"host.example:{port}", f"*.inside.example:{port}", f"rebind.example:{port}", "proxy.example:3128"]
        allowed.append(f"tls.example:{port}")
        egress = Egress(AllowList(allowed), resolve=names, why_refused=public_is_public)
        box = await stack.enter_async_context(open_box(egress, module_dir))
        yield World(box, names, host, inside)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def answers(world: World) -> dict[str, str]:
    """The first line of the answer to each of the refused requests, all sent by one command."""
    requests = {name: row[0].replace("{port}", str(world.host.port)) for name, row in REFUSED.items()}
    ended = await world.box.py(ASK_ALL, stdin=json.dumps(requests).encode(), task_id=TASK)
    assert ended.stderr == ""
    found: dict[str, str] = json.loads(ended.stdout)
    return found


@pytest.mark.parametrize("name", REFUSED)
async def test_attack_17_what_is_not_allowed_is_refused(name: str, answers: dict[str, str]) -> None:
    _, status, reason = REFUSED[name]

    assert answers[name].startswith(f"HTTP/1.1 {status} ")
    assert reason in answers[name]


async def test_attack_17_what_is_refused_is_neither_looked_up_nor_connected_to(
    world: World, answers: dict[str, str]
) -> None:
    """A name that is looked up carries a message to whoever answers for it."""
    assert {name for name in world.names.asked if not name.endswith("inside.example")} <= {
        "host.example",
        "rebind.example",
        "proxy.example",
        "tls.example",
    }
    assert world.inside.visits == 0


async def test_attack_17_an_allowed_host_is_reached(world: World) -> None:
    assert await world.tunnel("HOST.example", "hello") == ["HTTP/1.1 200 Connection established", "echo hello"]


async def test_attack_17_a_request_inside_a_tunnel_goes_to_its_host(world: World) -> None:
    """The proxy reads one request of a connection; a second CONNECT is the host's to answer."""
    status, *received = await world.tunnel("host.example", "CONNECT evil.example:443 HTTP/1.1\r\n\r\n")

    assert status == "HTTP/1.1 200 Connection established"
    assert received[0] == "echo CONNECT evil.example:443 HTTP/1.1"
    assert "evil.example" not in world.names.asked


async def test_attack_17_a_name_that_answers_differently_the_second_time_is_looked_up_once(world: World) -> None:
    """DNS rebinding: what was checked is what is connected to."""
    world.names.asked.clear()

    first = await world.tunnel("rebind.example", "hello")
    asked = list(world.names.asked)
    second = await world.tunnel("rebind.example", "hello")

    assert first == ["HTTP/1.1 200 Connection established", "echo hello"]
    assert asked == ["rebind.example"]
    assert second[0].startswith("HTTP/1.1 403 ")
    assert world.inside.visits == 0


OTHER_NAME = """
import socket, ssl, sys
trusting = ssl.create_default_context()
trusting.check_hostname = False
trusting.verify_mode = ssl.CERT_NONE
with socket.create_connection(("127.0.0.1", 3128), 20) as proxy:
    proxy.sendall(f"CONNECT tls.example:{sys.argv[1]} HTTP/1.1\\r\\n\\r\\n".encode())
    proxy.recv(64)
    trusting.wrap_socket(proxy, server_hostname="evil.example")
"""


@pytest.mark.needs("openssl")
async def test_attack_17_tls_is_between_the_command_and_the_host(world: World, tmp_path: Path) -> None:
    """curl takes the proxy from its environment and checks the host's own certificate. Whoever asks for another host at
    the same address, as in a content delivery network, gets no further than the proxy.
    """
    certificate, key = make_certificate(tmp_path, "tls.example")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    shutil.copy(certificate, world.box.work_dir / "ca.pem")
    world.box.give(world.box.work_dir / "ca.pem")
    secure = EchoServer(answer=b"HTTP/1.0 200 OK\r\n\r\nover TLS")
    await secure.start(SECOND_PUBLIC, port=world.host.port, tls=tls)
    try:
        url = f"https://tls.example:{world.host.port}"
        ended = await world.box.sh(f"curl -sS --max-time 20 --cacert ca.pem {url}", task_id=TASK)
        neighbour = await world.box.py(OTHER_NAME, str(world.host.port), task_id=TASK)
    finally:
        await secure.close()

    assert ended.stdout == "over TLS", ended.stderr
    assert "UNRECOGNIZED_NAME" in neighbour.stderr
    assert secure.visits == 1


def make_certificate(folder: Path, host: str) -> tuple[Path, Path]:
    """A certificate for the host, made for this test, and its key."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(key), "-out", str(certificate), "-subj", f"/CN={host}"]
    command += ["-addext", f"subjectAltName=DNS:{host}"]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return certificate, key


CONNECT_DIRECTLY = """
import json, socket, sys
done = []
for family, kind, address in json.loads(sys.argv[1]):
    with socket.socket(getattr(socket, family), getattr(socket, kind)) as connection:
        connection.settimeout(5)
        try:
            connection.connect(tuple(address) if isinstance(address, list) else address)
            connection.send(b"attack")
            done.append(address)
        except OSError:
            pass
print(json.dumps(done))
"""


async def test_attack_16_beside_the_proxy_nothing_is_reached(world: World) -> None:
    """Loopback, metadata, the network, an abstract socket: with the proxy on, they are as far away as without it."""
    abstract = f"\0beray-{secrets.token_hex(8)}"
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(abstract)
        listener.listen()
        listener.setblocking(False)
        datagrams = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        datagrams.bind(("127.0.0.1", 0))
        datagrams.setblocking(False)
        port = world.host.port
        targets: list[tuple[str, str, Any]] = [
            *(("AF_INET", "SOCK_STREAM", (address, port)) for address in ("127.0.0.1", PUBLIC, "0.0.0.0")),
            *(("AF_INET", "SOCK_STREAM", (address, 80)) for address in ("169.254.169.254", "10.0.0.1", "192.168.0.1")),
            *(("AF_INET6", "SOCK_STREAM", (address, 80)) for address in ("fd00::1", "2001:4860:4860::8888")),
            ("AF_INET", "SOCK_DGRAM", ("10.0.0.1", 53)),
            ("AF_UNIX", "SOCK_STREAM", abstract),
        ]
        visits = world.host.visits, world.inside.visits
        udp = ("AF_INET", "SOCK_DGRAM", datagrams.getsockname())

        ended = await world.box.py(CONNECT_DIRECTLY, json.dumps([*targets, udp]), task_id=TASK)

        # A datagram to the sandbox's own loopback is sent, and goes nowhere.
        assert [address for address in json.loads(ended.stdout) if address != list(udp[2])] == [], ended.stderr
        assert (world.host.visits, world.inside.visits) == visits
        for silent in (listener, datagrams):
            with pytest.raises(BlockingIOError):
                silent.recv(16) if silent is datagrams else silent.accept()


async def test_attack_16_a_command_without_a_task_has_no_proxy(world: World) -> None:
    """Such as the search tool's: only what runs for the agent has the way out."""
    ended = await world.box.py(CONNECT_DIRECTLY, json.dumps([("AF_INET", "SOCK_STREAM", ("127.0.0.1", 3128))]))

    assert ended.stdout == "[]\n"
    assert "proxy" not in (await world.box.run("env")).stdout.lower()
