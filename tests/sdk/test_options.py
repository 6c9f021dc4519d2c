"""Options of both clients: hooks, log, deadlines, renewed tokens, the environment, with_options."""

import io
import json
import logging
import os
import pickle
import sys
import threading
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from beray import AuthenticationError, ConnectionFailed, NotConfigured, RequestTimeout, WaitTimeout
from beray.client import BeRayClient
from beray.credentials import Credentials, Login, write_credentials
from beray.protocol.sse import encode_event
from beray.protocol.watching import RequestInfo, ResponseInfo
from tests.support.loopback import Exchange, LoopbackServer, drop, events, old_token_refused, reply, silence

SESSION = {"access_token": "new", "token_type": "bearer", "expires_in": 3600, "user": {"id": 1}}


# Hooks and the log


def test_hooks_see_each_attempt(peer: LoopbackServer, waits: list[float], new_client: Any) -> None:
    seen: list[Any] = []
    peer.script(reply(503, {}), reply(200, {"id": 3}, {"X-Request-ID": "r9"}))

    client = new_client(peer.url, "t0k", on_request=seen.append, on_response=seen.append)
    client.get_task(3, events="none")

    first, refused, second, answered = seen
    assert first == RequestInfo(method="GET", url=f"{peer.url}/api/v1/tasks/3?events=none", attempt=1)
    assert isinstance(refused, ResponseInfo)
    assert refused.status_code == 503
    assert second.attempt == 2
    assert (answered.status_code, answered.request_id, answered.error) == (200, "r9", None)
    assert answered.elapsed_seconds >= 0


def test_hooks_see_what_brought_no_answer(peer: LoopbackServer, new_client: Any) -> None:
    seen: list[ResponseInfo] = []
    peer.script(drop)

    with pytest.raises(ConnectionFailed):
        new_client(peer.url, max_retries=0, on_response=seen.append).get_task(3)

    assert seen[0].status_code is None
    assert isinstance(seen[0].error, ConnectionFailed)


@pytest.fixture
def quiet_log() -> Iterator[logging.Logger]:
    """The SDK's logger as a program finds it, and as it was afterwards."""
    log = logging.getLogger("beray")
    yield log
    for handler in list(log.handlers):
        log.removeHandler(handler)
    log.setLevel(logging.NOTSET)


def test_beray_log_prints_calls_without_secrets(
    peer: LoopbackServer,
    new_client: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    quiet_log: logging.Logger,
) -> None:
    monkeypatch.setenv("BERAY_LOG", "debug")
    peer.script(reply(200, SESSION, {"X-Request-ID": "r1"}), reply(200, {"id": 3}))

    with monkeypatch.context() as without_a_log:
        without_a_log.setattr(logging.root, "handlers", [])  # pytest's own
        client = new_client(peer.url, "t0k-secret")
        client.login("a@b.c", "pass-secret")
        client.get_task(3)

    printed = capsys.readouterr().err
    assert f"POST {peer.url}/api/v1/auth/login: 200 in" in printed
    assert "request r1" in printed
    assert f"curl -X GET -H 'Authorization: Bearer ***' '{peer.url}/api/v1/tasks/3'" in printed
    assert "secret" not in printed
    assert "new" not in printed


def test_a_program_with_a_log_of_its_own_gets_each_line_once(
    peer: LoopbackServer,
    new_client: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    quiet_log: logging.Logger,
) -> None:
    monkeypatch.setenv("BERAY_LOG", "info")
    peer.script(reply(200, {}))

    with monkeypatch.context() as with_a_log:
        with_a_log.setattr(logging.root, "handlers", [logging.StreamHandler(sys.stderr)])
        new_client(peer.url).get_info()

    assert capsys.readouterr().err.count("/api/v1/info: 200 in") == 1


def test_nothing_is_logged_unasked(
    peer: LoopbackServer, peer_client: BeRayClient, capsys: pytest.CaptureFixture[str], quiet_log: logging.Logger
) -> None:
    peer.script(reply(200, {}))

    peer_client.get_info()

    assert capsys.readouterr() == ("", "")
    assert not quiet_log.handlers


# What becomes of tokens


def test_a_login_tells_when_its_token_ends(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(200, SESSION), reply(200, {"message": "bye"}))
    assert peer_client.token_expires_at is None

    before = datetime.now(UTC)
    peer_client.login("a@b.c", "p")

    ends = peer_client.token_expires_at
    assert ends is not None
    assert before + timedelta(seconds=3600) <= ends <= datetime.now(UTC) + timedelta(seconds=3600)
    peer_client.logout()
    assert peer_client.token_expires_at is None


def test_a_refused_token_is_renewed_once_and_the_call_made_again(peer: LoopbackServer, new_client: Any) -> None:
    asked: list[str] = []
    peer.script(reply(401, {}), reply(200, {"id": 3}))

    client = new_client(peer.url, "old", on_token_expired=lambda: asked.append("x") or "fresh")

    assert client.get_task(3) == {"id": 3}
    assert asked == ["x"]
    assert [one.headers["authorization"] for one in peer.received] == ["Bearer old", "Bearer fresh"]


def test_a_hook_that_brings_nothing_leaves_the_refusal(peer: LoopbackServer, new_client: Any) -> None:
    peer.script(reply(401, {}))

    with pytest.raises(AuthenticationError):
        new_client(peer.url, "old", on_token_expired=lambda: None).get_task(3)


def test_a_renewed_token_that_is_refused_too_is_the_end(peer: LoopbackServer, new_client: Any) -> None:
    tokens = iter(["one", "two", "three"])
    peer.always(reply(401, {}))

    with pytest.raises(AuthenticationError):
        new_client(peer.url, "old", on_token_expired=lambda: next(tokens)).get_task(3)

    assert [one.headers["authorization"] for one in peer.received] == ["Bearer old", "Bearer one"]


def test_a_token_known_to_have_ended_is_renewed_before_the_call(peer: LoopbackServer, new_client: Any) -> None:
    peer.script(reply(200, {"id": 3}))
    client = new_client(peer.url, on_token_expired=lambda: "fresh")
    client.set_token("old", expires_in=1)

    client.get_task(3)

    assert [one.headers["authorization"] for one in peer.received] == ["Bearer fresh"]


def test_a_hook_asked_ahead_in_vain_is_not_asked_again(peer: LoopbackServer, new_client: Any) -> None:
    asked: list[int] = []
    peer.script(reply(401, {}))
    client = new_client(peer.url, on_token_expired=lambda: asked.append(1))
    client.set_token("old", expires_in=1)

    with pytest.raises(AuthenticationError):
        client.get_task(3)

    assert asked == [1]


def test_the_hook_of_one_client_may_renew_that_of_another(peer: LoopbackServer) -> None:
    other = BeRayClient(peer.url, "other-old", on_token_expired=lambda: "other-new")

    def ask_the_other() -> str:
        return str(other.get_task(1)["goal"])

    peer.script(reply(401, {}), reply(401, {}), reply(200, {"goal": "fresh"}), reply(200, {"id": 3}))
    with other, BeRayClient(peer.url, "old", on_token_expired=ask_the_other) as client:
        client.get_task(3)

    sent = [one.headers["authorization"] for one in peer.received]
    assert sent == ["Bearer old", "Bearer other-old", "Bearer other-new", "Bearer fresh"]


def test_a_refused_login_asks_for_no_token(peer: LoopbackServer, new_client: Any) -> None:
    peer.script(reply(401, {}))

    with pytest.raises(AuthenticationError):
        new_client(peer.url, "old", on_token_expired=lambda: 1 / 0).login("a@b.c", "wrong")


def test_a_stream_goes_on_with_a_renewed_token(peer: LoopbackServer, waits: list[float], new_client: Any) -> None:
    def begin(exchange: Exchange) -> None:
        exchange.begin(200, {"Content-Type": "text/event-stream", "Content-Length": "1000"})
        exchange.wfile.write(b"id: 1\nevent: task.finished\n")
        exchange.close_connection = True

    whole = b'id: 1\nevent: task.finished\ndata: {"seq":1,"type":"task.finished"}\n\n'

    def rest(exchange: Exchange) -> None:
        exchange.begin(200, {"Content-Type": "text/event-stream", "Content-Length": str(len(whole))})
        exchange.wfile.write(whole)

    peer.script(begin, reply(401, {}), rest)
    client = new_client(peer.url, "old", on_token_expired=lambda: "fresh")

    assert [event["seq"] for event in client.stream_task_updates(3)] == [1]
    assert peer.received[2].headers["authorization"] == "Bearer fresh"


def test_a_cut_stream_asks_for_one_token_only(peer: LoopbackServer, waits: list[float], new_client: Any) -> None:
    tokens = iter(["one", "two", "three"])
    event = encode_event(1, "text.delta", b'{"seq":1,"type":"text.delta"}')
    peer.script(events([event], end="cut"))
    peer.always(reply(401, {}))
    client = new_client(peer.url, "old", on_token_expired=lambda: next(tokens))

    with pytest.raises(AuthenticationError):
        list(client.stream_task_updates(3))

    assert [one.headers["authorization"] for one in peer.received] == ["Bearer old", "Bearer old", "Bearer one"]


def test_of_many_threads_one_asks_for_a_token(peer: LoopbackServer) -> None:
    asked: list[int] = []
    peer.always(old_token_refused({"id": 3}, together=8))
    with (
        BeRayClient(peer.url, "old", on_token_expired=lambda: asked.append(1) or "fresh") as client,
        ThreadPoolExecutor(8) as threads,
    ):
        assert list(threads.map(client.get_task, range(8))) == [{"id": 3}] * 8

    assert asked == [1]


def test_of_a_client_and_its_copy_one_asks_for_a_token(peer: LoopbackServer) -> None:
    asked: list[int] = []

    def renew() -> str:
        asked.append(1)
        other_waits.wait(0.5)  # nothing sets it: time for the other one to ask too
        return "fresh"

    other_waits = threading.Event()
    peer.always(old_token_refused({"id": 3}, together=2))
    with BeRayClient(peer.url, "old", on_token_expired=renew) as client, ThreadPoolExecutor(2) as threads:
        both = [client, client.with_options(timeout=9.0)]
        assert list(threads.map(lambda one: one.get_task(3), both)) == [{"id": 3}] * 2

    assert asked == [1]


def test_a_hook_may_log_in_by_itself(peer: LoopbackServer, new_client: Any) -> None:
    peer.script(reply(401, {}), reply(200, SESSION), reply(200, {"id": 3}))
    holder: list[BeRayClient] = []

    def log_in() -> None:
        BeRayClient.login(holder[0], "a@b.c", "p")

    client = BeRayClient(peer.url, "old", on_token_expired=log_in)
    holder.append(client)

    with client:
        assert client.get_task(3) == {"id": 3}
    assert peer.received[2].headers["authorization"] == "Bearer new"


# Deadlines


def test_a_deadline_ends_a_call_with_all_its_repetitions(
    peer: LoopbackServer, waits: list[float], new_client: Any
) -> None:
    peer.always(silence)

    with pytest.raises(RequestTimeout):
        new_client(peer.url, deadline=0.3, max_retries=100).get_task(3)

    assert len(peer.received) == 1


def test_a_deadline_ends_an_answer_that_drips(peer: LoopbackServer, new_client: Any) -> None:
    left = threading.Event()

    def drip(exchange: Exchange) -> None:
        exchange.begin(200, {"Content-Length": "1000000"})
        try:
            while not left.wait(0.01):
                exchange.wfile.write(b" ")
        except OSError:
            left.set()
        exchange.close_connection = True

    peer.script(drip)

    with pytest.raises(RequestTimeout):
        new_client(peer.url, deadline=0.4, max_retries=0).get_task(3)

    left.set()


def test_a_deadline_ends_redirects(peer: LoopbackServer, new_client: Any) -> None:
    def hop(exchange: Exchange) -> None:
        if len(peer.received) == 1:
            enough.wait(0.25)
            reply(307, b"", {"Location": f"{peer.url}/api/v1/tasks/3"})(exchange)
        else:
            silence(exchange)

    enough = threading.Event()
    peer.always(hop)

    with pytest.raises(RequestTimeout, match="not there in time"):
        new_client(peer.url, deadline=0.5, max_retries=0).get_task(3)

    assert len(peer.received) == 2
    assert peer.client_left.wait(10)


class Slow(io.BytesIO):
    """Content that comes slowly, in pieces of 256 KiB."""

    pieces = 0

    def read1(self, size: int | None = -1) -> bytes:
        self.pieces += 1
        threading.Event().wait(0.1)
        return super().read1(size)


def test_a_deadline_ends_an_upload(peer: LoopbackServer, new_client: Any) -> None:
    slow = Slow(bytes(40 * 256 * 1024))
    peer.always(silence)

    with pytest.raises(RequestTimeout, match="not there in time"):
        new_client(peer.url, deadline=0.4).upload_file(3, "a", slow)

    assert slow.pieces < 20


def test_a_deadline_ends_the_opening_of_a_stream(peer: LoopbackServer, new_client: Any) -> None:
    peer.always(silence)

    with pytest.raises(RequestTimeout):
        list(new_client(peer.url, stream_timeout=60, deadline=0.3).stream_task_updates(3))

    assert peer.client_left.wait(10)


def test_a_wait_ends_in_time_on_a_silent_stream(peer: LoopbackServer, new_client: Any) -> None:
    def stream(exchange: Exchange) -> None:
        exchange.begin(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
        exchange.write_chunk(b": hello\n\n")
        exchange.wait_for_close()

    peer.script(reply(200, {"id": 3, "status": "running", "last_seq": 0}), stream)

    with pytest.raises(WaitTimeout):
        new_client(peer.url, stream_timeout=60).wait_for_task(3, timeout=0.3)

    assert peer.client_left.wait(10)


# with_options, pickling


def test_other_options_for_one_call(peer: LoopbackServer, waits: list[float], new_client: Any) -> None:
    peer.always(reply(503, {}))
    client = new_client(peer.url, "t0k", max_retries=3)

    other = client.with_options(max_retries=0, language="en", timeout=1.0)
    with pytest.raises(Exception, match="503"):
        other.get_task(3)

    assert len(peer.received) == 1
    assert peer.received[0].headers["accept-language"] == "en"
    other.set_token("changed")
    assert client.token == "changed", "it is the same login"
    with pytest.raises(ValueError, match="max_retries"):
        client.with_options(max_retries=-1)


def test_what_a_copy_learns_of_the_server_counts_for_all(
    peer: LoopbackServer, waits: list[float], new_client: Any
) -> None:
    peer.script(reply(200, {}, {"Idempotency-Supported": "true"}), drop, reply(201, {"id": 1}))
    client = new_client(peer.url)

    client.with_options(timeout=9.0).get_info()

    assert client.create_task("g") == {"id": 1}


class NamedClient(BeRayClient):
    """A user's own, with another constructor."""

    def __init__(self, name: str) -> None:
        super().__init__("http://h", "t0k")
        self.name = name


def test_a_subclass_and_its_tokens_end_survive_pickling() -> None:
    client = NamedClient("ada")
    client.set_token("t0k", expires_in=60)

    again = pickle.loads(pickle.dumps(client))

    assert (again.name, again.base_url, again.token) == ("ada", "http://h", "t0k")
    assert again.token_expires_at == client.token_expires_at


def test_every_option_survives_pickling() -> None:
    client = BeRayClient("http://h", "t0k", deadline=9.0, on_response=print, on_token_expired=str)

    again = pickle.loads(pickle.dumps(client))

    assert again._options == client._options
    assert again.token == "t0k"


# The environment


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user who has set up nothing."""
    for name in ("BERAY_BASE_URL", "BERAY_TOKEN", "BERAY_LOG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("BERAY_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


def test_the_environment_names_server_and_token(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERAY_BASE_URL", "https://beray.example/")
    monkeypatch.setenv("BERAY_TOKEN", "t0k")

    client = BeRayClient.from_env(max_retries=7)

    assert (client.base_url, client.token) == ("https://beray.example", "t0k")
    assert client._options.max_retries == 7
    assert BeRayClient.from_env(token="own").token == "own"


def test_the_command_lines_login_is_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logins = {"http://a": Login("ta", "a@b.c"), "http://b": Login("tb", "a@b.c")}
    write_credentials(home / "config" / "beray" / "credentials.toml", Credentials("http://a", logins))

    assert BeRayClient.from_env().token == "ta"
    monkeypatch.setenv("BERAY_BASE_URL", "http://b/")
    assert BeRayClient.from_env().token == "tb"
    monkeypatch.setenv("BERAY_TOKEN", "own")
    assert BeRayClient.from_env().token == "own"


def test_the_background_server_of_this_machine_is_found(home: Path) -> None:
    (home / "data").mkdir()
    file = {"base_url": "http://127.0.0.1:4321", "token": "local", "pid": os.getpid(), "version": "0"}
    (home / "data" / "server.json").write_text(json.dumps(file))

    client = BeRayClient.from_env()

    assert (client.base_url, client.token) == ("http://127.0.0.1:4321", "local")


@pytest.mark.parametrize("content", [None, "", "[]", '{"pid": 0}', '{"pid": 99999999, "base_url": "http://h"}'])
def test_where_nothing_is_set_up_the_remedy_is_named(home: Path, content: str | None) -> None:
    if content is not None:
        (home / "data").mkdir()
        (home / "data" / "server.json").write_text(content)

    with pytest.raises(NotConfigured, match="Set BERAY_BASE_URL"):
        BeRayClient.from_env()


def test_a_wrong_address_in_the_environment_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERAY_BASE_URL", "localhost:8000")

    with pytest.raises(NotConfigured, match="base_url must begin with"):
        BeRayClient.from_env()


def test_an_option_that_cannot_be_right_is_no_matter_of_the_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BERAY_BASE_URL", "http://h")

    with pytest.raises(ValueError, match="timeout must be"):
        BeRayClient.from_env(timeout=-1)


def test_an_environment_that_tells_all_needs_no_logins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "config" / "beray").mkdir(parents=True)
    (home / "config" / "beray" / "credentials.toml").write_text("= broken")
    monkeypatch.setenv("BERAY_BASE_URL", "http://h")
    monkeypatch.setenv("BERAY_TOKEN", "t0k")

    assert BeRayClient.from_env().token == "t0k"


def test_a_user_without_a_home_has_no_logins(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobodys_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("XDG_CONFIG_HOME", "BERAY_DATA_DIR", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", nobodys_home)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(NotConfigured, match="Set BERAY_BASE_URL"):
        BeRayClient.from_env()
    monkeypatch.setenv("BERAY_BASE_URL", "http://h")
    assert BeRayClient.from_env().token is None


def test_logins_that_cannot_be_read_are_named(home: Path) -> None:
    (home / "config" / "beray").mkdir(parents=True)
    (home / "config" / "beray" / "credentials.toml").write_text("= broken")

    with pytest.raises(NotConfigured, match="can't be read"):
        BeRayClient.from_env()


# A trace that goes on


def test_a_trace_of_the_program_goes_on_in_the_server(
    peer: LoopbackServer, peer_client: BeRayClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry import trace

    context = trace.SpanContext(trace_id=1, span_id=2, is_remote=False, trace_flags=trace.TraceFlags(1))
    peer.script(reply(200, {}), reply(200, {}))

    with trace.use_span(trace.NonRecordingSpan(context)):
        peer_client.get_info()
    peer_client.get_info()

    assert peer.received[0].headers["traceparent"] == f"00-{1:032x}-{2:016x}-01"
    assert "traceparent" not in peer.received[1].headers


def test_a_program_without_opentelemetry_is_left_alone(
    peer: LoopbackServer, peer_client: BeRayClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.script(reply(200, {}))
    monkeypatch.setitem(sys.modules, "opentelemetry", types.ModuleType("opentelemetry"))  # another package's

    peer_client.get_info()

    assert "traceparent" not in peer.received[0].headers
