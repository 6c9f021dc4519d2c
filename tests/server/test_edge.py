"""The outermost callable answers when everything inside fails, and cuts what it can no longer mend."""

import logging
import socket
from urllib.parse import urlsplit

import pytest
import requests
from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from beray.server.app import install_error_handlers
from beray.server.edge import Edge
from tests.support.asgi import served
from tests.support.waiting import wait_until


def crashing_app() -> Edge:
    web = FastAPI()

    @web.get("/crash")
    async def crash() -> None:
        raise RuntimeError("a secret of ours")

    @web.get("/late")
    async def late() -> StreamingResponse:
        async def body():
            yield b"begun"
            raise RuntimeError("a secret of ours")

        return StreamingResponse(body())

    @web.get("/kept")
    async def kept() -> Response:
        return Response(headers={"Cache-Control": "no-cache"})

    install_error_handlers(web)
    return Edge(web, default_language="zh", max_body_bytes=1000)


@pytest.fixture
def url():
    with served(crashing_app()) as url:
        yield url


def test_crash_is_answered_in_the_one_shape_and_logged(url, caplog):
    with caplog.at_level(logging.ERROR, logger="beray.http"):
        answer = requests.get(f"{url}/crash", headers={"X-Request-ID": "mine", "Accept-Language": "en"}, timeout=10)

    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert answer.json()["code"] == "internal_error"
    assert "mine" in answer.json()["detail"]
    assert "secret" not in answer.text
    logged = wait_until(lambda: [r for r in caplog.records if r.name == "beray.http"], what="the log's record")
    assert [record.request_id for record in logged] == ["mine"]


def test_no_cache_keeps_an_answer_that_does_not_speak_of_it(url):
    """Nor an error: whoever asks by a cookie asks without what keeps a shared cache from keeping an answer."""
    told = [requests.get(f"{url}/{path}", timeout=10).headers["cache-control"] for path in ("crash", "nothing", "kept")]

    assert told == ["no-store", "no-store", "no-cache"]


def test_crash_after_the_answer_began_cuts_the_connection(url):
    """A client must notice that what it has is not the whole."""
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        requests.get(f"{url}/late", timeout=10)


def test_client_that_hangs_up_in_the_middle_of_its_body_is_no_failure(caplog):
    begun: list[str] = []
    web = FastAPI()

    @web.post("/read")
    async def read(request: Request) -> None:
        begun.append("read")
        await request.body()

    install_error_handlers(web)
    edge = Edge(web, default_language="zh", max_body_bytes=1000)
    with caplog.at_level(logging.INFO), served(edge) as url:
        parts = urlsplit(url)
        with socket.create_connection((parts.hostname, parts.port), timeout=10) as client:
            client.sendall(b"POST /read HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
            wait_until(lambda: begun, what="the route's call")

    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
