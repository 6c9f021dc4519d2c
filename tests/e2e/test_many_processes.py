"""Two API processes, two workers, killed again and again: nothing is lost, nothing happens twice."""

import itertools
import json
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from beray.client import BeRayClient
from beray.exceptions import BeRayException
from tests.support.cluster import Cluster
from tests.support.proxy import Proxy, randomly
from tests.support.rounds import is_long, seeded
from tests.support.scripted_model import Reply, ScriptedModel, call
from tests.support.server import ServerProcess

TASKS, KILLS = (200, 30) if is_long() else (14, 3)
USERS = 4
STEPS = 4
SECONDS = 60 + 8 * KILLS + TASKS


def script(request: dict[str, Any], number: int) -> Reply:
    """Each step appends its line; whatever the model is told of it, it goes on with the next."""
    answered = sum(message["role"] == "assistant" for message in request["messages"])
    if answered < STEPS:
        return Reply(calls=[call("shell", command=f"echo step-{answered} >> log; cat log")])
    return Reply("All steps are done.")


@dataclass
class Watched:
    """A task, and every event that one watcher saw of it, over all cuts of its connection."""

    client: BeRayClient
    task_id: int
    events: list[dict[str, Any]] = field(default_factory=list)

    def follow(self, count: Callable[[], None], deadline: threading.Event) -> None:
        while not deadline.is_set():
            after = self.events[-1]["seq"] if self.events else 0
            try:
                for event in self.client.stream_task_updates(self.task_id, after=after):
                    self.events.append(event)
                    count()
                return
            except BeRayException:  # nobody was there to answer for longer than the client is patient
                continue


class Chaos:
    """Kills a process whenever so and so many events more have been seen, and starts it again."""

    def __init__(self, cluster: Cluster, generator: random.Random, *, events: int) -> None:
        self._victims = itertools.cycle([cluster.workers, cluster.apis])
        self._generator = generator
        self._seen = 0
        self._changed = threading.Condition()
        self._every = max(1, events // (KILLS + 1))
        self.killed: list[str] = []

    def count(self) -> None:
        with self._changed:
            self._seen += 1
            self._changed.notify_all()

    def work(self) -> None:
        for number in range(1, KILLS + 1):
            with self._changed:
                if not self._changed.wait_for(lambda: self._seen >= number * self._every, timeout=SECONDS):  # noqa: B023  # called before the next round
                    return
            victim: ServerProcess = self._generator.choice(next(self._victims))
            victim.kill()
            self.killed.append(victim.data_dir.name)
            victim.start()


def in_threads(works: list[Callable[[], None]]) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    return threads


def check_events(watched: Watched) -> None:
    """1..n without gap or repeat, and exactly one end."""
    seqs = [event["seq"] for event in watched.events]
    assert seqs == list(range(1, len(seqs) + 1)), watched.task_id
    kinds = Counter(event["type"] for event in watched.events)
    assert kinds["task.finished"] == 1, watched.task_id
    attempts = [event["attempt"] for event in watched.events if event["type"] == "task.started"]
    assert attempts == list(range(1, len(attempts) + 1)), watched.task_id


def check_steps(watched: Watched) -> int:
    """Each step ran once; one that was cut is reported as such, and not repeated. How many were cut."""
    lines = Counter(watched.client.get_file_content(watched.task_id, "log").text.split())
    started = [event for event in watched.events if event["type"] == "tool.started"]
    finished = [event for event in watched.events if event["type"] == "tool.finished"]
    assert len(started) == len(finished) == STEPS, watched.task_id
    assert max(lines.values()) == 1, (watched.task_id, lines)
    missing = {f"step-{number}" for number in range(STEPS)} - lines.keys()
    cut = [event for event in finished if not event["ok"]]
    assert len(missing) <= len(cut), (watched.task_id, missing)
    return len(cut)


@pytest.mark.timeout(SECONDS + 120)
def test_killed_processes_lose_nothing_and_repeat_nothing(service_dir, postgres_url):
    seed, generator = seeded()
    print(f"seed {seed}")
    over = threading.Event()
    with ScriptedModel(script) as model:
        settings = {
            "model": "openai:scripted",
            "model_base_url": model.base_url,
            "model_api_key": "key",
            "max_streams_per_user": TASKS,
            "max_running_tasks": 6,
        }
        folder = service_dir / f"chaos-{seed}"
        with Cluster(folder, postgres_url, apis=2, workers=2, **settings) as cluster:

            def ports() -> list[int]:
                return [api.port for api in cluster.apis]

            with (
                Proxy(ports) as balancer,
                Proxy(ports, cut_after=randomly(generator, mean_bytes=6000)) as cutter,
            ):
                tokens = [cluster.apis[0].register(f"user-{n}@example.com") for n in range(USERS)]
                clients = [BeRayClient(balancer.url, token=token, max_retries=8) for token in tokens]
                watching = [BeRayClient(cutter.url, token=token, max_retries=8) for token in tokens]
                chaos = Chaos(cluster, generator, events=TASKS * (4 * STEPS + 4))
                killing = in_threads([chaos.work])
                watched = [
                    Watched(watching[n % USERS], clients[n % USERS].create_task("Four steps")["id"])
                    for n in range(TASKS)
                ]
                followers = in_threads(
                    [lambda one=one: one.follow(chaos.count, over) for one in watched]  # type: ignore[misc]  # bound early
                )
                for thread in [*followers, *killing]:
                    thread.join(SECONDS)
                still = [thread for thread in [*followers, *killing] if thread.is_alive()]
                over.set()
                assert not still, json.dumps(
                    {"killed": chaos.killed, "logs": [p.log_tail() for p in cluster.processes]}
                )

                for one in watched:
                    check_events(one)
                    one.client = clients[watched.index(one) % USERS]
                    assert one.client.get_task(one.task_id)["status"] == "completed"
                cut = sum(check_steps(one) for one in watched)
                for client in [*clients, *watching]:
                    client.close()
                print(f"killed {chaos.killed}; connections cut {cutter.cuts}; steps cut {cut}")
                assert len(chaos.killed) == KILLS
                assert cutter.cuts > 0
