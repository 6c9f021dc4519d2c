"""How much of a model server's answer is taken."""

import asyncio
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beray.server.agent.models import http_client as bounded
from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.models.http_client import AnswerTooLarge, http_client

MOST = 40
EMPTY_LINE = re.compile(rb"(?<=\n)\r?\n|(?<=\r)\r")


@pytest.fixture
async def answer():
    """Starts a server that answers each request with these bytes, and ends the connection; its URL."""
    servers = []

    async def start(content: bytes) -> str:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(content)
            await writer.drain()
            writer.close()

        servers.append(await asyncio.start_server(serve, "127.0.0.1", 0))
        return f"http://127.0.0.1:{servers[-1].sockets[0].getsockname()[1]}/"

    yield start
    for server in servers:
        server.close()


async def get(url: str) -> bytes:
    async with http_client(ModelChoice("openai:x", "model", base_url=url)) as client:
        return (await client.get(url)).content


def head(**headers: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()]
    return f"HTTP/1.1 200 OK\r\n{''.join(lines)}\r\n".encode()


async def test_an_answer_that_is_no_stream_is_taken_up_to_a_bound(answer, monkeypatch):
    monkeypatch.setattr(bounded, "MOST_EVENT_BYTES", MOST)

    assert await get(await answer(head() + b"\n\n" * 20)) == b"\n\n" * 20
    with pytest.raises(AnswerTooLarge):
        await get(await answer(head() + b"\n\n" * 21))


async def test_a_redirect_is_bounded_too(answer, monkeypatch):
    monkeypatch.setattr(bounded, "MOST_EVENT_BYTES", MOST)
    further = await answer(head())
    moved = f"HTTP/1.1 307 Moved\r\nLocation: {further}\r\n\r\n".encode() + b"x" * (MOST + 1)

    with pytest.raises(AnswerTooLarge):
        await get(await answer(moved))


async def test_a_compressed_answer_is_not_taken(answer):
    """A few bytes of it can hold gigabytes, and nobody has asked for one."""
    with pytest.raises(AnswerTooLarge, match="compressed"):
        await get(await answer(head(Content_Encoding="gzip") + b"\x1f\x8b"))


@given(
    st.lists(st.sampled_from(["data: x", "event: a", ": y", ""]), max_size=30),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.lists(st.integers(min_value=1, max_value=9), min_size=1),
)
def test_only_what_comes_without_an_empty_line_counts(lines, end, cuts):
    """Wherever the bytes are cut."""
    content = "".join(line + end for line in lines).encode()
    body = bounded._Bounded(None, is_event_stream=True)  # type: ignore[arg-type] - only its counting is used
    at, turn = 0, 0
    while at < len(content):
        piece = content[at : at + cuts[turn % len(cuts)]]
        at, turn = at + len(piece), turn + 1
        body._note_events(piece)
        begun = len(content[:at]) - max((found.end() for found in EMPTY_LINE.finditer(content[:at])), default=0)
        assert begun <= body._begun <= begun + 1
