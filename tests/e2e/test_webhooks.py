"""Webhooks of a real server: set by the SDK, made by a real run, taken by a receiver on loopback."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import HTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

from beray import AuthenticationError, BeRayClient, UnprocessableEntityError, webhooks
from beray.types import WebhookEvent
from tests.contract.test_docs import both_languages, page
from tests.support.loopback import LoopbackServer, loopback_server, reply, silence
from tests.support.server import ServerProcess
from tests.support.snippets import Program, is_as_told, programs_of, run_programs
from tests.support.typed_dicts import faults
from tests.support.waiting import wait_until

GOAL = "`echo done`"


@pytest.fixture(scope="module")
def service(module_dir: Path) -> Iterator[ServerProcess]:
    """Which may call this machine, as its operator says."""
    server = ServerProcess(module_dir / "data", webhook_allow_private="127.0.0.1").start()
    yield server
    server.kill()


@pytest.fixture
def receiver() -> Iterator[LoopbackServer]:
    with loopback_server() as server:
        server.always(reply(204, b""))
        yield server


def user(service: ServerProcess, name: str) -> BeRayClient:
    return BeRayClient(service.base_url, token=service.register(f"{name}@example.com"), language="en")


def run(client: BeRayClient, **options: Any) -> int:
    """A task that has ended; its id."""
    task_id: int = client.create_task(GOAL, **options)["id"]
    list(client.stream_task_updates(task_id))
    return task_id


def test_task_that_was_about_to_be_told_when_the_server_was_killed_is_told_after_the_restart(
    service: ServerProcess, receiver: LoopbackServer
) -> None:
    receiver.script(silence)
    with user(service, "killed") as client:
        secret = client.set_webhook(f"{receiver.url}/hook")["secret"]
        task_id = run(client)
        wait_until(lambda: receiver.received, what="the first attempt")

        service.kill()
        service.port = int(service.base_url.rpartition(":")[2])
        service.start()
        wait_until(lambda: len(receiver.received) == 2, what="the attempt of the next server")
        wait_until(lambda: client.get_webhook()["pending"] == 0, what="it to be settled")

        first, second = receiver.received
        assert secret is not None
        event = webhooks.verify(second.headers, second.body, secret)
        assert (
            first.headers["webhook-id"]
            == second.headers["webhook-id"]
            == f"msg_{task_id}_1_{event['data']['last_seq']}"
        )
        assert event["data"] == client.get_task(task_id, events="none")
        assert faults(event, WebhookEvent) == []
        told = client.get_webhook()
        assert (told["last_status"], told["last_error"], told["given_up"]) == (204, None, 0)


def test_tasks_own_webhook_is_told_alone_and_the_same_request_makes_one_task(
    service: ServerProcess, receiver: LoopbackServer
) -> None:
    with user(service, "own") as client:
        task_id = run(client, webhook_url=f"{receiver.url}/own", idempotency_key="k")
        again = client.create_task(GOAL, webhook_url=f"{receiver.url}/own", idempotency_key="k")
        wait_until(lambda: receiver.received, what="the message")
        wait_until(lambda: client.get_webhook()["pending"] == 0, what="it to be settled")

        told = client.set_webhook(None, rotate_secret=True)

        assert again["id"] == task_id
        assert [got.path for got in receiver.received] == ["/own"]
        assert (told["url"], told["pending"]) == (None, 0)
        assert told["secret"] is not None
        assert client.delete_webhook()["url"] is None


def test_program_with_an_api_token_sees_the_webhook_but_cannot_set_it(service: ServerProcess) -> None:
    """What it set would tell of the user's tasks long after the token was deleted."""
    with user(service, "token") as client:
        client.set_webhook("http://127.0.0.1:9/")
        token = client.create_token("leaked")["token"]
        with BeRayClient(service.base_url, token=token) as program:
            assert program.get_webhook()["url"] == "http://127.0.0.1:9/"
            with pytest.raises(AuthenticationError) as error:
                program.set_webhook("https://attacker.example/")

        assert (error.value.status_code, error.value.code) == (403, "login_needed")
        assert client.get_webhook()["url"] == "http://127.0.0.1:9/"


REFUSED = (
    "https://127.0.0.2/",
    "http://localhost/",
    "http://example.com/",
    "https://2130706433/",
    "ftp://127.0.0.1/",
    "https://user:password@example.com/",
    "https://example.com/" + "x" * 3000,
)


def test_url_that_is_not_called_is_refused_with_what_would_be(service: ServerProcess) -> None:
    told = r"begin with https.*BERAY_WEBHOOK_ALLOW_PRIVATE"
    with user(service, "refused") as client:
        for url in REFUSED:
            with pytest.raises(UnprocessableEntityError, match=told) as at_the_account:
                client.set_webhook(url)
            with pytest.raises(UnprocessableEntityError, match=told) as at_the_task:
                client.create_task(GOAL, webhook_url=url)

            for error, field in ((at_the_account.value, "url"), (at_the_task.value, "webhook_url")):
                assert (error.code, error.errors[0]["loc"]) == ("webhook_url_invalid", ["body", field])
        assert client.list_tasks() == []
        assert client.get_webhook()["url"] is None


@both_languages
def test_receiver_of_the_page_takes_what_the_server_sends(
    language: str,
    service: ServerProcess,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    *setting_up, receiving = programs_of(page(language, "webhooks"))
    with user(service, f"page-{language}") as client:
        assert client.token is not None
        secret = client.set_webhook(None)["secret"]
        assert secret is not None
        monkeypatch.setenv("WEBHOOK_SECRET", secret)
        with served(receiving.source, told) as url:
            assert requests.post(url, b"{}", timeout=30).status_code == 400
            own = [Program(each.source.replace("https://hooks.example.com/beray", url)) for each in setting_up]
            shown = run_programs(own, service, tmp_path, token=client.token)
            tasks = client.list_tasks()
            wait_until(lambda: len(told) == 3, what="the messages to be taken")

    assert shown == [f"{secret}\n"] * 2
    assert all(is_as_told(f"{secret}\n", each.output or "") for each in setting_up)
    refused, *finished = told
    assert refused == "The webhook was not accepted: the header webhook-id is missing"
    assert sorted(finished) == sorted(f"task.finished {task['id']} completed" for task in tasks)


@contextmanager
def served(program: str, told: list[str]) -> Iterator[str]:
    """The program's receiver, on a port of its own; what it prints is told."""
    names: dict[str, Any] = {"print": lambda *words: told.append(" ".join(map(str, words)))}
    exec(compile(program.rpartition("HTTPServer(")[0], "receiver.py", "exec"), names)
    handler = names["Receiver"]
    handler.log_message = lambda *args: None
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join(20)
        server.server_close()
