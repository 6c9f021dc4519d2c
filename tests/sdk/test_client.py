"""What a client is made of, and how it lives: address, options, token, threads, processes."""

import json
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from beray.client import BeRayClient
from beray.drivers.on_requests import Connections
from beray.drivers.requests_session import TunedSession
from beray.protocol.sse import encode_event
from tests.support.loopback import Exchange, LoopbackServer, events, reply


@pytest.fixture
def client_kind() -> str:
    """The asynchronous client has test_async_client.py."""
    return "sync"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://localhost:8000/", "http://localhost:8000"),
        ("http://localhost:8000/api/v1/", "http://localhost:8000"),
        ("HTTPS://Example.COM", "https://example.com"),
        ("https://例子.中国/beray/", "https://xn--fsqu00a.xn--fiqs8s/beray"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_the_base_url_is_brought_in_form(given: str, kept: str) -> None:
    assert BeRayClient(given).base_url == kept


@pytest.mark.parametrize(
    "given", ["", "localhost:8000", "ftp://h", "http://", "http://h?a=b", "http://h#f", "http://user:secret@h", None]
)
def test_a_base_url_that_cannot_be_right_is_refused(given: Any) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  # the library's own words for some
        BeRayClient(given)

    assert "secret" not in str(error.value)


def test_a_base_url_may_end_in_slashes_and_hold_a_path(peer: LoopbackServer) -> None:
    peer.always(reply(200, {}))
    with BeRayClient(f"{peer.url}/proxy//") as client:
        client.get_info()

    assert peer.received[0].path == "/proxy/api/v1/info"


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"timeout": (1, None)}, {"stream_timeout": -1}, {"max_retries": -1}]
)
def test_an_option_out_of_range_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        BeRayClient("http://h", **options)


def test_language_is_asked_for(peer: LoopbackServer) -> None:
    peer.script(reply(200, {}))
    with BeRayClient(peer.url, language="en") as client:
        client.get_info()

    assert peer.received[0].headers["accept-language"] == "en"


# The token


def test_set_token_counts_from_the_next_call(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(200, []), reply(200, []))

    peer_client.set_token("other")
    peer_client.list_tasks()
    peer_client.set_token(None)
    peer_client.list_tasks()

    assert [received.headers.get("authorization") for received in peer.received] == ["Bearer other", None]


@pytest.mark.parametrize("token", ["", " x", "a\nb", "a\r\nX: y", "é", "a\0"])
def test_a_token_that_is_no_header_value_is_refused(token: str) -> None:
    with pytest.raises(ValueError, match="token"):
        BeRayClient("http://localhost", token=token)


def test_the_token_never_shows_in_a_repr() -> None:
    assert repr(BeRayClient("http://h", token="s3cret")) == "BeRayClient('http://h', with token)"


def test_a_password_of_netrc_does_not_replace_the_token(
    peer: LoopbackServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests would send it in the token's place."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login u password p\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    peer.always(reply(200, []))

    with requests.Session() as session:
        BeRayClient(peer.url, token="t0k", session=session).list_tasks()
    BeRayClient(peer.url, token="t0k").list_tasks()
    BeRayClient(peer.url).list_tasks()

    assert [one.headers.get("authorization") for one in peer.received] == ["Bearer t0k", "Bearer t0k", None]


# Its life


def test_many_threads_share_a_client(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    def echo(exchange: Exchange) -> None:
        reply(200, {"path": exchange.path})(exchange)

    peer.always(echo)

    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(peer_client.get_task, range(300)))

    assert [task["path"] for task in results] == [f"/api/v1/tasks/{n}" for n in range(300)]
    assert peer.connections <= 16


def test_threads_that_begin_at_once_use_one_session(monkeypatch: pytest.MonkeyPatch) -> None:
    both_make_one = threading.Barrier(2)

    def make(base_url: str) -> TunedSession:
        both_make_one.wait(10)
        return TunedSession(base_url)

    monkeypatch.setattr("beray.drivers.on_requests.TunedSession", make)
    connections = Connections("http://h", None)

    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(lambda _: connections.session(), range(2))

    assert one is other


def test_closing_ends_the_connections(peer: LoopbackServer) -> None:
    left = threading.Event()

    def answer_then_watch(exchange: Exchange) -> None:
        reply(200, [])(exchange)
        exchange.wfile.flush()
        exchange.wait_for_close()
        left.set()

    peer.script(answer_then_watch)

    with BeRayClient(peer.url) as client:
        client.list_tasks()
        assert not left.is_set()

    assert left.wait(10)


def test_a_client_can_be_pickled(peer: LoopbackServer) -> None:
    peer.always(reply(200, []))
    client = BeRayClient(peer.url, "t0k", timeout=(1, 2), stream_timeout=3, max_retries=4, language="en")
    client.list_tasks()

    again = pickle.loads(pickle.dumps(client))
    again.list_tasks()

    assert peer.received[1].headers == peer.received[0].headers
    with requests.Session() as session, pytest.raises(TypeError, match="session of your own"):
        pickle.dumps(BeRayClient(peer.url, session=session))


FORKING = """
import json, os, sys
from beray import BeRayClient

client = BeRayClient(sys.argv[1], "t0k")
client.list_tasks()
updates = client.stream_task_updates(3)
seen = [next(updates)["seq"]]
child = os.fork()
if child == 0:
    client.list_tasks()
    client.close()
    os._exit(0)
_, status = os.waitpid(child, 0)
client.list_tasks()
seen += [update["seq"] for update in updates]
print(json.dumps({"status": status, "seen": seen}))
"""


def test_after_a_fork_parent_and_child_share_no_connection(peer: LoopbackServer) -> None:
    """Also not the one whose stream the parent is reading."""
    has_forked = threading.Event()

    def stream(exchange: Exchange) -> None:
        events([encode_event(1, "a", b'{"seq":1,"type":"a"}')], end="open")(exchange)
        assert has_forked.wait(20)
        exchange.write_chunk(encode_event(2, "task.finished", b'{"seq":2,"type":"task.finished"}'))
        exchange.wfile.write(b"0\r\n\r\n")

    def list_after_the_fork(exchange: Exchange) -> None:
        has_forked.set()
        reply(200, [])(exchange)

    peer.script(reply(200, []), stream, list_after_the_fork, reply(200, []))

    done = subprocess.run(
        [sys.executable, "-c", FORKING, peer.url], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"status": 0, "seen": [1, 2]}
    assert peer.connections == 3  # the first call's, which the stream took over; the child's; the parent's last call's


FORKING_WHILE_A_TOKEN_IS_ASKED_FOR = """
import os, signal, sys, threading
from beray import BeRayClient

asked, may_go_on = threading.Event(), threading.Event()

def another_token():
    asked.set()
    may_go_on.wait(20)
    return "fresh"

client = BeRayClient(sys.argv[1], "old", on_token_expired=another_token)
thread = threading.Thread(target=client.get_task, args=[3])
thread.start()
asked.wait(20)
child = os.fork()
if child == 0:
    signal.alarm(10)
    may_go_on.set()
    client.get_task(3)
    os._exit(0)
_, status = os.waitpid(child, 0)
may_go_on.set()
thread.join()
sys.exit(status)
"""


def test_a_fork_while_a_token_is_asked_for_leaves_the_child_free(peer: LoopbackServer) -> None:
    def answer(exchange: Exchange) -> None:
        reply(401 if exchange.headers["Authorization"] == "Bearer old" else 200, {})(exchange)

    peer.always(answer)
    command = [sys.executable, "-c", FORKING_WHILE_A_TOKEN_IS_ASKED_FOR, peer.url]

    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr


# Files as responses of requests


def test_files_come_as_responses(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(200, b"bytes \xff"), reply(200, b"PK zip"))

    file = peer_client.get_file_content(1, "results/总结.txt")
    archive = peer_client.download_files_as_zip(1, ["results/", "a"])

    assert isinstance(file, requests.Response)
    assert (file.ok, file.content) == (True, b"bytes \xff")
    assert archive.content == b"PK zip"
    assert peer.received[0].query == {"path": ["results/总结.txt"]}
    assert peer.received[1].json == {"paths": ["results/", "a"]}


def test_an_output_comes_as_bytes_and_its_call_is_one_part_of_the_path(
    peer: LoopbackServer, peer_client: BeRayClient
) -> None:
    peer.script(reply(200, b"bytes \xff"), reply(200, b""))

    assert peer_client.get_tool_output(1, "call_1_1_0") == b"bytes \xff"
    assert peer_client.get_tool_output(1, "a/../b?c#") == b""

    assert [received.path for received in peer.received] == [
        "/api/v1/tasks/1/output/call_1_1_0",
        "/api/v1/tasks/1/output/a%2F..%2Fb%3Fc%23",
    ]
    for nothing in ("", ".", ".."):
        with pytest.raises(ValueError, match="names nothing"):
            peer_client.get_tool_output(1, nothing)


def test_a_streamed_file_is_read_as_it_comes(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(200, b"x" * 100_000))

    with peer_client.get_file_content(1, "x", stream=True) as response:
        assert sum(len(chunk) for chunk in response.iter_content(4096)) == 100_000
