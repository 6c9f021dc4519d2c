"""Streams through a proxy that cuts them at every place where a reader could go wrong: each event once, in order.

The server is a real one, and its model writes what a careless reader trips over: line ends of other standards, carriage
returns, characters of several bytes. `BERAY_TEST_SEED` repeats the cuts of a run that failed.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from beray.client import BeRayClient
from beray.protocol.types import JsonObject, Task
from tests.support.cutting_proxy import PLACES, CuttingProxy
from tests.support.rounds import rounds, seeded
from tests.support.scripted_model import NAME, Reply, ScriptedModel, call, turns
from tests.support.server import ServerProcess

CUTS = 10 * rounds(short=5)  # of each of the two kinds of reading, by each client; 1,000 by `make soak`
STEPS = 24
PATIENCE_SECONDS = 0.4  # without a heartbeat; a server that is slow for once costs a further cut, no more
ODD = "行\u2028一\u2029\x85é\r\n\r😀\x1f中\ufeff"

Reader = Callable[[str, str, int], list[JsonObject]]


@pytest.fixture
def read(new_client: Any, waits: list[float]) -> Reader:
    """Reads a task's stream by either client, which doesn't really wait before it comes again."""

    def read(url: str, token: str, task_id: int) -> list[JsonObject]:
        client = new_client(url, token, stream_timeout=PATIENCE_SECONDS, max_retries=8)
        return list(client.stream_task_updates(task_id))

    return read


@pytest.fixture(scope="module")
def talker(module_dir: Path) -> Iterator[ServerProcess]:
    """A server whose tasks write many events."""
    with ScriptedModel(turns(*map(step, range(STEPS)), Reply([ODD, "end"]))) as model:
        settings = {"model": f"openai:{NAME}", "model_base_url": model.base_url, "model_api_key": "key"}
        server = ServerProcess(module_dir / "data", **settings).start()
        yield server
        assert server.stop() == 0


def step(number: int) -> Reply:
    plan = call("update_plan", items=[{"text": f"{ODD} {number}", "status": "done"}])
    return Reply([f"{number} {ODD}", ODD], calls=[plan], pause_seconds=0.002)  # the model's pace


@pytest.fixture(scope="module")
def direct(talker: ServerProcess) -> Iterator[BeRayClient]:
    """A client whose connections are never cut. A server's first task begins late, so that one is over."""
    with BeRayClient(talker.base_url, talker.register("reader@example.com")) as client:
        list(client.stream_task_updates(client.create_task("talk")["id"]))
        yield client


@pytest.fixture
def proxy(talker: ServerProcess) -> Iterator[CuttingProxy]:
    """Before the server; it says by which seed it cut."""
    seed, chance = seeded()
    print(f"BERAY_TEST_SEED={seed}")
    with CuttingProxy(int(talker.base_url.rpartition(":")[2]), chance) as running:
        yield running


def test_a_task_is_read_through_cuts_while_it_is_written(
    read: Reader, direct: BeRayClient, proxy: CuttingProxy
) -> None:
    while proxy.cuts < CUTS:
        before = proxy.cuts
        task_id = direct.create_task("talk")["id"]

        events = read(proxy.url, str(direct.token), task_id)

        check_whole(events, direct.get_task(task_id))
        assert proxy.cuts > before


def test_a_task_is_replayed_through_cuts(read: Reader, direct: BeRayClient, proxy: CuttingProxy) -> None:
    task_id = direct.create_task("talk")["id"]
    list(direct.stream_task_updates(task_id))
    task = direct.get_task(task_id)

    while proxy.cuts < CUTS:
        before = proxy.cuts
        check_whole(read(proxy.url, str(direct.token), task_id), task)
        assert proxy.cuts > before

    assert {place for place, _ in proxy.made} == set(PLACES)
    assert {how for _, how in proxy.made} == {"FIN", "RST", "silence"}


def check_whole(events: list[JsonObject], task: Task) -> None:
    """The events are all that the server has stored of the task, to its end."""
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events == task["events"]
    assert (events[-1]["type"], events[-1]["status"]) == ("task.finished", "completed"), events[-1]
    assert sum(ODD in str(event.get("delta")) for event in events) >= STEPS
