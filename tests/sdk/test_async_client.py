"""`AsyncBeRayClient` is `BeRayClient` to be awaited: the same surface; what both do is tested beside, for both."""

import asyncio
import gc
import inspect
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from beray import AsyncBeRayClient, BeRayClient, ProtocolError
from beray.protocol.effects import Do
from beray.protocol.sse import encode_event
from tests.support.loopback import Exchange, LoopbackServer, events, loopback_server, old_token_refused, reply, silence
from tests.support.waiting import until


def surface(client: type) -> dict[str, list[tuple[str, Any, Any]]]:
    """Public methods with the names, kinds and defaults of their parameters."""
    found = {}
    for name, member in inspect.getmembers(client, callable):
        if not name.startswith("_") or name == "__init__":
            parameters = inspect.signature(member).parameters.values()
            found[name] = [(one.name, one.kind, one.default) for one in parameters]
    return found


def test_both_clients_have_the_same_surface() -> None:
    assert surface(AsyncBeRayClient) == surface(BeRayClient)


def test_what_blocks_there_is_awaited_here() -> None:
    for name in surface(BeRayClient):
        if name == "__init__" or hasattr(BeRayClient.__mro__[1], name):
            continue
        there, here = getattr(BeRayClient, name), getattr(AsyncBeRayClient, name)
        is_iterator = "Generator" in str(inspect.signature(there).return_annotation)
        assert inspect.iscoroutinefunction(here) is not is_iterator, name


def test_both_say_the_same_in_their_first_line() -> None:
    for name in surface(BeRayClient):
        there, here = getattr(BeRayClient, name).__doc__, getattr(AsyncBeRayClient, name).__doc__
        if name not in {"__init__", "get_file_content", "download_files_as_zip"}:  # these name their library's response
            assert (there or "").split("\n\n")[0] == (here or "").split("\n\n")[0], name


# Files as responses of aiohttp


async def test_files_come_as_responses(peer: LoopbackServer) -> None:
    peer.script(reply(200, b"bytes \xff"), reply(200, b"PK zip"))

    async with AsyncBeRayClient(peer.url) as client:
        file = await client.get_file_content(1, "results/总结.txt")
        archive = await client.download_files_as_zip(1, ["results/", "a"])

        assert isinstance(file, aiohttp.ClientResponse)
        assert (file.ok, await file.read()) == (True, b"bytes \xff")
        assert await archive.read() == b"PK zip"
    assert peer.received[0].query == {"path": ["results/总结.txt"]}


async def test_an_output_comes_as_bytes(peer: LoopbackServer) -> None:
    peer.script(reply(200, b"bytes \xff"))

    async with AsyncBeRayClient(peer.url) as client:
        assert await client.get_tool_output(1, "call_1_1_0") == b"bytes \xff"


async def test_a_streamed_file_is_read_as_it_comes(peer: LoopbackServer) -> None:
    peer.script(reply(200, b"x" * 100_000))

    async with AsyncBeRayClient(peer.url) as client, await client.get_file_content(1, "x", stream=True) as response:
        assert sum([len(chunk) async for chunk in response.content.iter_any()]) == 100_000


# What belongs to event loops


def test_a_closed_client_works_on_in_another_event_loop(peer: LoopbackServer) -> None:
    peer.always(reply(200, {"id": 3}))
    client = AsyncBeRayClient(peer.url)

    async def call() -> object:
        async with client:
            return await client.get_task(3)

    assert asyncio.run(call()) == asyncio.run(call()) == {"id": 3}
    assert peer.connections == 2


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # asyncio's own, of the loop that was left
def test_connections_of_an_event_loop_that_is_over_are_left(peer: LoopbackServer) -> None:
    peer.always(reply(200, {"id": 3}))
    client = AsyncBeRayClient(peer.url)

    async def call() -> object:
        return await client.get_task(3)

    async def call_and_close() -> object:
        async with client:
            return await client.get_task(3)

    assert asyncio.run(call()) == asyncio.run(call_and_close()) == {"id": 3}
    assert peer.connections == 2
    gc.collect()


def test_event_loops_of_several_threads_have_connections_of_their_own(peer: LoopbackServer) -> None:
    may_answer = threading.Event()

    def answer(exchange: Exchange) -> None:
        if exchange.path.endswith("/1"):
            may_answer.wait(10)
        reply(200, {"id": 3})(exchange)

    peer.always(answer)
    client = AsyncBeRayClient(peer.url, max_retries=0)

    async def call_that_is_held() -> object:
        async with client:
            return await client.get_task(1)

    async def call_meanwhile() -> object:
        await until(lambda: bool(peer.received))
        async with client:
            task = await client.get_task(2)
        may_answer.set()
        return task

    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(asyncio.run, call()) for call in (call_that_is_held, call_meanwhile)]
        assert [call.result(20) for call in calls] == [{"id": 3}] * 2
    assert peer.connections == 2


FORKING = """
import asyncio, multiprocessing, sys
from beray import AsyncBeRayClient

client = AsyncBeRayClient(sys.argv[1], "t0k")

async def call():
    async with client:
        await client.get_task(3)

async def main():
    async with client:
        updates = client.stream_task_updates(3)
        seen = [(await anext(updates))["seq"]]
        child = multiprocessing.get_context("fork").Process(target=lambda: asyncio.run(call()))
        child.start()
        await asyncio.to_thread(child.join, 20)
        assert child.exitcode == 0, child.exitcode
        async with asyncio.timeout(10):
            seen += [update["seq"] async for update in updates]
        assert seen == [1, 2], seen

asyncio.run(main())
"""


def test_a_fork_leaves_the_parents_event_loop_its_connections(peer: LoopbackServer) -> None:
    """The two processes have one epoll: what the child closes there, the parent hears no more of."""
    has_forked = threading.Event()

    def stream(exchange: Exchange) -> None:
        events([encode_event(1, "a", b'{"seq":1,"type":"a"}')], end="open")(exchange)
        assert has_forked.wait(20)
        exchange.write_chunk(encode_event(2, "task.finished", b'{"seq":2,"type":"task.finished"}'))
        exchange.wfile.write(b"0\r\n\r\n")

    def answer_the_child(exchange: Exchange) -> None:
        reply(200, {"id": 3})(exchange)
        has_forked.set()

    peer.script(stream, answer_the_child)

    command = [sys.executable, "-W", "error", "-c", FORKING, peer.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stderr) == (0, "")


async def test_many_calls_run_at_once(peer: LoopbackServer) -> None:
    all_here = threading.Barrier(16)

    def answer(exchange: Exchange) -> None:
        all_here.wait(10)
        reply(200, {"id": 3})(exchange)

    peer.always(answer)
    async with AsyncBeRayClient(peer.url) as client:
        results = await asyncio.gather(*(client.get_task(number) for number in range(16)))

    assert results == [{"id": 3}] * 16


async def test_of_many_calls_one_asks_for_a_token(peer: LoopbackServer) -> None:
    asked: list[int] = []

    async def renew() -> str:
        asked.append(1)
        return "fresh"

    peer.always(old_token_refused({"id": 3}, together=8))
    async with AsyncBeRayClient(peer.url, "old", on_token_expired=renew) as client:
        results = await asyncio.gather(*(client.get_task(number) for number in range(8)))

    assert results == [{"id": 3}] * 8
    assert asked == [1]


async def test_a_cancelled_call_closes_its_connection(peer: LoopbackServer) -> None:
    peer.script(silence)
    async with AsyncBeRayClient(peer.url) as client:
        call = asyncio.create_task(client.get_task(3))
        await until(lambda: bool(peer.received))
        call.cancel()

        with pytest.raises(asyncio.CancelledError):
            await call


async def test_cancelled_work_in_a_thread_is_over_before_its_file_is_closed(tmp_path: Path) -> None:
    """Else a download's part could be written and closed at the same time."""
    begun, may_end = threading.Event(), threading.Event()
    opened: list[Any] = []

    def work() -> Any:
        begun.set()
        may_end.wait(10)
        opened.append((tmp_path / "part").open("wb"))
        return opened[0]

    def flow() -> Any:
        try:
            yield Do(work)
        finally:
            assert opened[0].closed, "nobody else can close what nobody got"

    driver = AsyncBeRayClient("http://h")._driver
    running = asyncio.create_task(driver.run(flow()))
    await until(begun.is_set)
    running.cancel()
    asyncio.get_running_loop().call_soon(may_end.set)

    with pytest.raises(asyncio.CancelledError):
        await running


async def test_leaving_a_stream_by_break_closes_its_connection(peer: LoopbackServer) -> None:
    def stream(exchange: Exchange) -> None:
        exchange.begin(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        exchange.write_chunk(encode_event(1, "text.delta", b'{"seq":1,"type":"text.delta"}'))
        exchange.wait_for_close()

    peer.script(stream)
    async with AsyncBeRayClient(peer.url) as client:
        async for event in client.stream_task_updates(3):
            assert event["seq"] == 1
            break
        await until(peer.client_left.is_set)


async def test_callbacks_may_be_coroutine_functions(peer: LoopbackServer) -> None:
    seen: list[int] = []

    def stream(exchange: Exchange) -> None:
        body = encode_event(1, "task.finished", b'{"seq":1,"type":"task.finished"}')
        exchange.begin(200, {"Content-Type": "text/event-stream", "Content-Length": str(len(body))})
        exchange.wfile.write(body)

    async def note(event: Any) -> None:
        await asyncio.to_thread(seen.append, event["seq"])

    ended = {"id": 3, "status": "completed", "last_seq": 1}
    peer.script(reply(200, {**ended, "status": "running", "last_seq": 0}), stream, reply(200, ended))
    async with AsyncBeRayClient(peer.url) as client:
        assert (await client.wait_for_task(3, on_event=note))["status"] == "completed"

    assert seen == [1]


async def test_hooks_may_be_coroutine_functions(peer: LoopbackServer) -> None:
    seen: list[Any] = []

    async def note(info: Any) -> None:
        await asyncio.to_thread(seen.append, info)

    peer.script(reply(200, {"id": 3}))
    async with AsyncBeRayClient(peer.url, on_request=note, on_response=note) as client:
        await client.get_task(3)

    assert [type(info).__name__ for info in seen] == ["RequestInfo", "ResponseInfo"]


async def test_a_session_of_ones_own_is_used_and_left_open(peer: LoopbackServer) -> None:
    peer.script(reply(200, {"id": 3}))
    async with aiohttp.ClientSession(headers={"X-Own": "1"}) as session:
        async with AsyncBeRayClient(peer.url, session=session) as client:
            await client.get_task(3)
            with pytest.raises(TypeError, match="session of your own"):
                pickle.dumps(client)

        assert not session.closed
    assert peer.received[0].headers["x-own"] == "1"


def test_a_client_can_be_pickled() -> None:
    again = pickle.loads(pickle.dumps(AsyncBeRayClient("http://h", "t0k", max_retries=4)))

    assert (again.base_url, again.token, again._options.max_retries) == ("http://h", "t0k", 4)


# Proxies, redirects (TLS: test_tls.py)


async def test_a_proxy_of_the_environment_is_used(peer: LoopbackServer, monkeypatch: pytest.MonkeyPatch) -> None:
    peer.script(reply(200, {"id": 3}))
    monkeypatch.setenv("http_proxy", peer.url)
    async with AsyncBeRayClient("http://beray.example") as client:
        assert await client.get_task(3) == {"id": 3}

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    peer.script(reply(200, {"id": 4}))
    async with AsyncBeRayClient(peer.url) as client:
        assert await client.get_task(3) == {"id": 4}


async def test_a_redirect_to_another_host_does_not_get_the_token(peer: LoopbackServer) -> None:
    with loopback_server() as other:
        peer.script(reply(307, b"", {"Location": f"{other.url}/api/v1/tasks/3"}))
        other.script(reply(200, {"id": 3}))

        async with AsyncBeRayClient(peer.url, "t0k") as client:
            assert await client.get_task(3) == {"id": 3}

        assert "authorization" in peer.received[0].headers
        assert "authorization" not in other.received[0].headers


async def test_a_redirect_that_loses_the_body_is_told(peer: LoopbackServer) -> None:
    peer.script(reply(302, b"", {"Location": f"{peer.url}/elsewhere"}), reply(200, {}))

    async with AsyncBeRayClient(peer.url) as client:
        with pytest.raises(ProtocolError, match="loses its body"):
            await client.create_task("g")


async def test_cookies_are_kept(peer: LoopbackServer) -> None:
    """A load balancer may set one to find the same node again."""
    peer.script(reply(200, {}, {"Set-Cookie": "node=a"}), reply(200, {}))

    async with AsyncBeRayClient(peer.url) as client:
        await client.get_info()
        await client.get_info()

    assert peer.received[1].headers["cookie"] == "node=a"
