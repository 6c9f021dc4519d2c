"""Why a model's server could not be reached, in words."""

import asyncio
import socket
import ssl
from contextlib import asynccontextmanager

import pytest

from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.models.one_call import ask_for_a_word, describe
from beray.server.agent.models.prices import PriceTable
from beray.server.agent.models.unreachable import why_unreachable
from tests.support.certificates import tls_contexts


async def told(base_url, provider="openai"):
    """What a check says of this address."""
    choice = ModelChoice(f"{provider}:a", "model", base_url=base_url, is_own_url=True, timeout_seconds=10)
    with pytest.raises(Exception, match="onnection") as error:  # whichever the library gives
        await ask_for_a_word(choice, PriceTable())
    described = describe(error.value, choice, "en", seconds=28)
    assert described["code"] == "model_unreachable"
    assert described["retryable"]
    return described["message"]


def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@asynccontextmanager
async def listening(tls=None):
    """The port of a server that ends every connection at its first bytes."""

    async def hang_up(reader, writer):
        await reader.read(100)
        writer.write(b"no model\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("provider", ["openai", "anthropic", "ollama"])
async def test_address_where_nothing_listens(provider):
    assert "connection refused" in await told(f"http://127.0.0.1:{closed_port()}/v1", provider)


async def test_server_that_speaks_no_tls():
    async with listening() as port:
        assert "TLS failed: " in await told(f"https://127.0.0.1:{port}/v1")


async def test_certificate_that_nobody_vouches_for(tmp_path):
    context, _ = tls_contexts(tmp_path, "localhost")
    async with listening(context) as port:
        assert "its TLS certificate is not trusted: self-signed" in await told(f"https://localhost:{port}/v1")


async def test_certificate_of_another_host_names_neither(tmp_path, monkeypatch):
    server, trusting = tls_contexts(tmp_path, "another.example")
    monkeypatch.setattr("beray.server.agent.models.http_client._trusted", lambda: trusting)
    async with listening(server) as port:
        message = await told(f"https://localhost:{port}/v1")

    assert message.endswith("its TLS certificate is not trusted: Hostname mismatch")


def caused_by(cause):
    """As the library raises it: behind two errors that say less."""
    try:
        try:
            raise OSError("All connection attempts failed") from cause
        except OSError as error:
            raise RuntimeError("Connection error.") from error
    except RuntimeError as error:
        return error


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (socket.gaierror(-2, "Name or service not known"), "unknown host (Name or service not known)"),
        (TimeoutError(), "the connection timed out"),
        (ConnectionResetError(104, "reset"), "the connection was cut by the other side"),
        (OSError(113, "no route"), "No route to host"),
        (ssl.SSLError("odd"), "TLS failed: ('odd',)"),
        (ExceptionGroup("two addresses", [ConnectionRefusedError(), ConnectionRefusedError()]), "connection refused"),
        (ValueError("something else"), None),
    ],
)
def test_reason_is_found_among_the_causes(cause, words):
    why = why_unreachable(caused_by(cause), "en")

    assert why == words or (words is not None and why is not None and why.startswith(words))


def test_causes_in_a_circle_come_to_an_end():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first

    assert why_unreachable(first, "en") is None


def test_reason_is_in_the_readers_language():
    assert why_unreachable(caused_by(ConnectionRefusedError()), "zh") == "连接被拒绝，该端口上没有服务"
