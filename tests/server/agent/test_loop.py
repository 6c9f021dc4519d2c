"""The loop with a model that plays a script over a real connection; what goes wrong stands in test_fault_matrix.py."""

import itertools
from types import SimpleNamespace

from beray.server.agent import memory
from beray.server.agent.budget import RunLimits
from beray.server.agent.models.choice import ModelChoice
from tests.support.scripted_model import HELLO, Reply, call, failure, sequence, turns

GOAL = "Write a program that greets."


def choice(server, **changes):
    values = {"base_url": server.base_url, "api_key": "sk-secret-key-1234567890", "is_own_url": True}
    return ModelChoice("openai:scripted", "model", **{**values, **changes})


def types(events):
    return [event["type"] for event in events]


async def test_a_model_does_the_task_by_tool_calls(bench, scripted):
    server = scripted(HELLO)

    outcome = await bench.run(GOAL, model=choice(server))

    assert outcome.is_completed
    assert outcome.result == "hello.py prints hello world."
    assert outcome.usage == {
        "requests": 3,
        "tool_calls": 3,
        "input_tokens": 300,
        "cached_input_tokens": 0,
        "output_tokens": 60,
        "cost_usd": None,
    }
    output = "".join(event["delta"] for event in await bench.events("tool.output"))
    assert output == "hello world\n"
    assert server.keys[0] == "Bearer sk-secret-key-1234567890"


async def test_events_tell_the_whole_story_in_order(bench, scripted):
    await bench.run(GOAL, model=choice(scripted(HELLO)))

    events = await bench.events()
    first, last = [index for index, event in enumerate(events) if event.get("step") == 2]
    assert list(dict.fromkeys(types(events[first : last + 1]))) == [
        "step.started",
        "text.delta",
        "text.done",
        "tool.requested",
        "usage.updated",
        "tool.started",
        "tool.output",
        "tool.finished",
        "step.finished",
    ]
    done = (await bench.events("text.done"))[0]
    deltas = [event["delta"] for event in await bench.events("text.delta")]
    assert done["text"] == "".join(deltas) == "I run it."
    changed = await bench.events("file.changed")
    assert [(event["path"], event["change"], event["size"]) for event in changed] == [("hello.py", "created", 21)]


async def test_calls_get_ids_of_their_own_though_the_server_repeats_its(bench, scripted):
    await bench.run(GOAL, model=choice(scripted(HELLO)))

    requested = [event["call_id"] for event in await bench.events("tool.requested")]
    finished = [event["call_id"] for event in await bench.events("tool.finished")]
    assert len(set(requested)) == 3
    assert requested == finished


async def test_plain_text_ends_the_task(bench, scripted):
    outcome = await bench.run(GOAL, model=choice(scripted(turns(Reply(["All ", "done."])))))

    assert (outcome.is_completed, outcome.result) == (True, "All done.")


async def test_a_request_the_server_finds_strange_ends_the_task_at_once(bench, scripted):
    server = scripted(sequence(failure(400, "strange")))

    outcome = await bench.run(GOAL, model=choice(server))

    assert (outcome.error["code"], outcome.error["retryable"]) == ("model_error", False)
    assert "strange" in outcome.error["message"]
    assert len(server.requests) == 1


async def test_where_a_server_is_that_is_not_there_the_log_says_and_the_task_does_not(bench, caplog):
    """An address may be of a private network."""
    model = ModelChoice("openai:x", "model", base_url="http://127.0.0.1:9/v1", is_own_url=True)

    outcome = await bench.run(GOAL, model=model)

    assert outcome.error["code"] == "model_unreachable"
    assert "openai:x" in outcome.error["message"]
    assert "127.0.0.1" not in str(outcome)
    assert "127.0.0.1" not in str(await bench.events())
    assert "http://127.0.0.1:9/v1" in caplog.text


async def test_where_a_server_is_is_not_shown_if_it_says_so_itself(bench, scripted):
    server = scripted(sequence(failure(404, "")))
    place = server.base_url.split("/")[2]
    server.script = sequence(failure(404, f"POST http://{place}/v1/chat/completions, by {place}: nothing there"))

    outcome = await bench.run(GOAL, model=choice(server))

    assert "POST http://***/v1/chat/completions, by ***: nothing there" in outcome.error["message"]


async def test_calls_of_one_answer_run_in_order_and_their_failures_are_told(bench, scripted):
    server = scripted(
        turns(
            Reply(
                calls=[
                    call("write_file", id="a", path="a.txt", content="1"),
                    call("shell", id="b", command="cat a.txt; exit 3"),
                    call("finish", id="c", summary="done"),
                ]
            ),
            Reply("I see it failed."),
        )
    )

    outcome = await bench.run(GOAL, model=choice(server))

    assert outcome.result == "I see it failed."
    finished = await bench.events("tool.finished")
    assert [(event["ok"], event["exit_code"]) for event in finished] == [(True, None), (False, 3), (False, None)]
    told = [message["content"] for message in server.requests[1]["messages"] if message["role"] == "tool"]
    assert told[1].startswith("exit code 3")
    assert "earlier call" in told[2]


async def test_wall_time_ends_a_command_and_leaves_nothing(bench, scripted):
    server = scripted(sequence(Reply(calls=[call("shell", command="sleep 60")])))

    outcome = await bench.run(GOAL, model=choice(server), limits=RunLimits(wall_seconds=1))

    assert "(wall_seconds)" in outcome.error["message"]
    assert bench.sandbox.running == set()
    assert [event["ok"] for event in await bench.events("tool.finished")] == [False]


async def test_wall_time_counts_the_last_call_of_each_turn(bench, scripted, monkeypatch):
    """Each command takes 100 seconds here, by a clock that goes on with it alone."""
    seconds = 0

    def work(when, types):
        nonlocal seconds
        seconds += 100 if (when, "tool.started" in types) == ("after", True) else 0

    monkeypatch.setattr(memory, "time", SimpleNamespace(monotonic=lambda: seconds))
    bench.crash = work
    server = scripted(sequence(*[Reply(calls=[call("shell", command="true")])] * 4, Reply("Done.")))

    outcome = await bench.run(GOAL, model=choice(server), limits=RunLimits(wall_seconds=150))

    assert outcome.error["budget"]["limit"] == "wall_seconds"
    assert len(server.requests) == 2


async def test_clock_that_is_set_uses_up_no_wall_time(bench, scripted):
    server = scripted(sequence(Reply(calls=[call("shell", command="true")]), Reply("Done.")))
    hours = itertools.count(step=2 * 3_600_000)

    outcome = await bench.run(GOAL, model=choice(server), clock=lambda: next(hours))

    assert outcome.is_completed, outcome.error


async def test_what_postgresql_cannot_hold_is_replaced(bench, scripted):
    outcome = await bench.run(GOAL, model=choice(scripted(sequence(Reply("here: \0 done")))))

    assert outcome.result == "here: \ufffd done"


async def test_a_silent_stream_is_a_fault(bench, scripted):
    server = scripted(sequence(Reply(["Once"], hangs_after=2), Reply("done")))

    outcome = await bench.run(GOAL, model=choice(server, timeout_seconds=1))

    assert outcome.result == "done"


async def test_half_an_emoji_from_the_model_harms_nothing(bench, scripted):
    raw = '{"path": "a.txt", "content": "x\\ud83d"}'
    server = scripted(turns(Reply("a\ud83d", calls=[call("write_file", raw=raw)]), Reply("done\udc00")))

    outcome = await bench.run(GOAL, model=choice(server))

    assert outcome.result == "done\ufffd"
    assert (bench.work_dir / "a.txt").read_text() == "x\ufffd"
