"""The types of events are true: what a run stores has the fields that `beray.types` tells, and no others."""

import asyncio
from typing import Any, get_args

from beray.client import BeRayClient
from beray.protocol.events import Event, EventType
from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.run import Asking
from tests.server.agent.test_compaction import GOAL, long_work
from tests.support.agent_bench import Bench
from tests.support.scripted_model import Reply, ScriptedModel, call, sequence, turns
from tests.support.typed_dicts import faults
from tests.support.waiting import until

CUT = Reply(["Words that are shown at once. " * 100, "never"], cuts_after=2)
WORK = turns(
    Reply("I plan.", calls=[call("update_plan", items=[{"text": "Paint", "status": "doing"}])]),
    Reply(calls=[call("shell", command="echo out; echo err >&2; touch painted")]),
    Reply(calls=[call("ask_user", question="Which colour?", choices=["red", "green"])]),
    Reply("Painted."),
)


def choice(server: ScriptedModel, name: str) -> ModelChoice:
    return ModelChoice(f"openai:{name}", "model", base_url=server.base_url, is_own_url=True)


async def events_of_agent(bench: Bench, scripted: Any) -> list[dict[str, Any]]:
    """Those of a run whose model fails, asks and plans, and of a long one after it."""
    first, second = choice(scripted(sequence(CUT)), "first"), choice(scripted(WORK), "second")
    asking = Asking(600, lambda: bench.log.watching(1))
    running = asyncio.create_task(bench.run("Paint it.", model=first, fallback=(second,), asking=asking))
    await until(lambda: _is_waiting(bench), what="a question")
    await bench.say("red")
    assert (await running).result == "Painted."

    await bench.end("completed")
    await bench.say(GOAL)
    await bench.run(GOAL, model=choice(scripted(long_work(14)), "third"), context_tokens=14_000)
    return await bench.events()


async def _is_waiting(bench: Bench) -> bool:
    return (await bench.task()).status == "waiting"


def events_of_server(client: BeRayClient) -> list[Any]:
    """Those of a task that does its work, of one that fails, and of one that is said something more."""
    done, failed = client.create_task("`echo hello > file; cat file`"), client.create_task("`false`")
    events: list[Any] = list(client.stream_task_updates(done["id"]))
    client.send_message(done["id"], "`echo again`")
    events += client.stream_task_updates(done["id"], after=events[-1]["seq"])
    return events + list(client.stream_task_updates(failed["id"]))


async def test_every_event_has_the_fields_of_its_type(bench: Bench, scripted: Any, client: BeRayClient) -> None:
    events = await events_of_agent(bench, scripted)
    events += await asyncio.to_thread(events_of_server, client)

    assert [fault for event in events for fault in faults(event, Event, event["type"])] == []
    assert {event["type"] for event in events} == set(get_args(EventType))
