"""MCP servers that are commands: what the model sees of them, and what becomes of a run when they misbehave."""

import asyncio
import base64
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
from pydantic_ai import FunctionToolset, Tool

from beray.server.agent.mcp import toolset
from beray.server.agent.mcp.config import Command, McpServer
from beray.server.agent.mcp.source import McpSource
from beray.server.agent.tools.base import Answer
from tests.server.agent.test_loop import choice
from tests.server.agent.test_pictures import png, shown
from tests.support.agent_bench import Crash
from tests.support.mcp_server import PROGRAM
from tests.support.scripted_model import Reply, call, turns
from tests.support.waiting import until, wait_until

SECRET = "canary-of-the-operator-77"


def source(*modes, name="demo", env=None, **options):
    """A server of tests/support/mcp_server.py."""
    return McpSource(McpServer(name, Command(("python3", "-I", "-c", PROGRAM, *modes), env or {}), **options))


@pytest.fixture
def play(bench, scripted):
    """Run a task that makes these calls, one a turn, with servers; the model's server."""

    async def run(*calls, sources=None, tools=()):
        server = scripted(turns(*(Reply(calls=[made]) for made in calls), Reply("done")))
        used = (source(),) if sources is None else sources
        names = (*tools, *(one.name for one in used))
        outcome = await bench.run("go", model=choice(server), tools=names, sources=used)
        assert outcome.result == "done", outcome
        assert bench.sandbox.running == set()
        return server

    return run


def told(server):
    """What the model was told by its calls, in order."""
    return [message["content"] for message in server.requests[-1]["messages"] if message["role"] == "tool"]


def offered(server, number=0):
    return [tool["function"]["name"] for tool in server.requests[number].get("tools", ())]


def instructions(server, number):
    """What stands before the conversation of a request."""
    return "\n".join(said["content"] for said in server.requests[number]["messages"] if said["role"] == "system")


async def test_a_servers_tools_are_called_and_recorded_like_any_other(play, bench):
    server = await play(call("demo_echo", text="你好"), call("demo_structured"), call("demo_picture"))

    assert told(server) == [
        "你好",
        '{"degrees": 21}',
        "[image of type image/png, 6 bytes, which can't be shown here]",
    ]
    assert "demo_echo" in offered(server)
    assert all(name.startswith("demo_") for name in offered(server))
    echo = next(tool["function"] for tool in server.requests[0]["tools"] if tool["function"]["name"] == "demo_echo")
    assert echo["description"] == "echo it"
    assert echo["parameters"]["required"] == ["text"]
    events = await bench.events("tool.started", "tool.output", "tool.finished")
    assert [event["type"] for event in events[:3]] == ["tool.started", "tool.output", "tool.finished"]
    assert events[0]["title"] == "demo_echo 你好"
    assert events[2]["summary"] == "demo answered: 你好"
    assert all(event["ok"] for event in events if event["type"] == "tool.finished")


async def test_a_model_that_sees_is_shown_a_servers_picture(bench, scripted):
    server = scripted(turns(Reply(calls=[call("demo_dot")]), Reply("It is red.")))
    used = (source(env={"DOT": base64.b64encode(png()).decode()}),)

    await bench.run("go", model=choice(server, sees_images=True), tools=("demo",), sources=used)

    assert shown(server.requests[1]) == [("data:image/png", png())]
    assert f"[a PNG picture of 2 x 3 pixels, {len(png())} bytes]" in told(server)[0]


async def test_one_server_serves_the_whole_run_and_its_list_stays_the_same(play, bench):
    """What stands at the beginning of each request is cached by providers."""
    server = await play(call("demo_count"), call("demo_count"), call("demo_count"))

    assert told(server) == ["1", "2", "3"]
    assert len(bench.sandbox.started) == 1
    assert server.requests[0]["tools"] == server.requests[-1]["tools"]
    assert offered(server) == sorted(offered(server))


async def test_files_that_a_server_writes_are_shown_as_changed(play, bench):
    await play(call("demo_write", text="by the server"))

    assert (bench.work_dir / "made.txt").read_text() == "by the server"
    assert [event["path"] for event in await bench.events("file.changed")] == ["made.txt"]


async def test_a_servers_variables_are_its_own(play, bench):
    used = (source(env={"SECRET": SECRET}),)

    server = await play(call("demo_env", text="SECRET"), call("shell", command="env"), sources=used, tools=("shell",))

    assert told(server)[0] == SECRET
    assert SECRET not in told(server)[1]
    assert SECRET not in repr(used)


async def test_a_tools_error_is_told_and_counts_as_one(play, bench):
    server = await play(call("demo_fail"), call("demo_error"), call("demo_echo", text="still here"))

    assert told(server) == [
        "Error: no such city",
        "Error: The MCP server demo refused the call: text is missing",
        "still here",
    ]
    assert [event["ok"] for event in await bench.events("tool.finished")] == [False, False, True]
    assert len(bench.sandbox.started) == 1


async def test_a_long_result_is_cut_in_the_middle(play):
    server = await play(call("demo_big"))

    assert len(told(server)[0]) < 17_000
    assert "34000 bytes left out here; ask for less at once to see them" in told(server)[0]


async def test_a_server_that_asks_without_end_is_left(play):
    """Each of its requests would be kept until it takes the answer."""
    server = await play(call("demo_ask"), call("demo_count"))

    assert "failed: it has ended, or the connection to it was lost" in told(server)[0]
    assert told(server)[1] == "1"


async def test_a_server_that_tells_a_lot_is_listened_to(play):
    """Its notifications are read and dropped."""
    server = await play(call("demo_talk"), call("demo_count"))

    assert told(server) == ["asked", "2"]


async def test_what_is_no_message_among_a_servers_output_is_left_out(play):
    server = await play(call("demo_echo", text="in order"), sources=(source("noisy"),))

    assert told(server) == ["in order"]


@pytest.mark.parametrize(
    ("tool", "reason"),
    [
        ("demo_die", "it has ended, or the connection to it was lost"),
        ("demo_huge", "it has ended, or the connection to it was lost"),
        ("demo_rubbish", "it answered with something else than the protocol allows"),
    ],
)
async def test_a_server_that_fails_in_a_call_is_told_and_started_anew_by_the_next(play, bench, tool, reason):
    server = await play(call(tool), call("demo_count"))

    failed = f"Error: The MCP server demo failed: {reason}. Whether the call has done something is unknown."
    assert told(server) == [f"{failed} Inspect before you repeat the call, which starts it anew.", "1"]
    assert len(bench.sandbox.started) == 2


@pytest.mark.parametrize("tool", ["demo_half", "demo_deep", "demo_cut"])
async def test_an_answer_that_can_not_be_read_fails_its_call_at_once(play, bench, tool):
    """And the server stays, for what it says otherwise can be read."""
    server = await play(call(tool), call("demo_echo", text="in order"), sources=(source(timeout_seconds=600),))

    assert "its answer can't be read" in told(server)[0]
    assert told(server)[1] == "in order"
    assert len(bench.sandbox.started) == 1


@pytest.mark.parametrize("tool", ["demo_hang", "demo_wrong_id"])
async def test_a_server_that_does_not_answer_is_ended_and_started_anew(play, bench, tool):
    server = await play(call(tool), call("demo_count"), sources=(source(timeout_seconds=1),))

    assert "it did not answer within 1 s, and was ended" in told(server)[0]
    assert told(server)[1] == "1"


async def test_a_server_that_has_died_between_two_calls_is_started_anew_unseen(bench, scripted):
    """It had answered; nothing was lost."""
    played = turns(Reply(calls=[call("demo_crash_late")]), Reply(calls=[call("demo_count")]), Reply("done"))

    def script(request, number):
        if number == 1:
            wait_until(lambda: not bench.sandbox.running, what="the server to be gone")
        return played(request, number)

    server = scripted(script)
    await bench.run("go", model=choice(server), tools=("demo",), sources=(source(),))

    assert told(server)[1] == "1"
    assert len(bench.sandbox.started) == 2


async def test_a_server_that_died_three_times_is_left_alone(play, bench):
    server = await play(*[call("demo_die")] * 4, call("demo_echo", text="x"))

    assert "It has failed too often, and is not started again in this run" in told(server)[2]
    assert told(server)[3:] == ["Error: The MCP server demo is gone: it failed 3 times. Go on without its tools."] * 2
    assert len(bench.sandbox.started) == 3
    assert offered(server, 0) == offered(server, -1)


async def test_a_dying_servers_last_words_are_logged_without_its_secrets(play, caplog):
    await play(call("demo_die"), sources=(source(env={"SECRET": SECRET}),))

    assert r"MCP server demo ended by itself; its last words: 'dying, and ***\n'" in caplog.text
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    ("used", "reason"),
    [
        (source("dies"), "it ended before it had answered"),
        (source("silent"), "it was not ready within 1 s"),
        (McpSource(McpServer("demo", Command(("no-such-program",)))), "The command could not be started"),
    ],
    ids=["dies", "silent", "missing"],
)
async def test_a_server_that_cannot_be_had_is_told_to_the_model_and_the_log(play, caplog, monkeypatch, used, reason):
    """The run goes on without it, but never in silence."""
    monkeypatch.setattr(toolset, "START_SECONDS", 1.0)

    server = await play(call("shell", command="echo x"), sources=(used,), tools=("shell",))

    assert offered(server) == ["shell"]
    prompt = instructions(server, 0)
    assert "The tools of the MCP server demo can't be had in this run: " in prompt
    assert reason in prompt
    assert instructions(server, 1) == prompt
    assert f"MCP server demo, task 1: its tools can't be had: {reason}" in caplog.text


async def test_tools_no_model_can_be_given_are_left_out_and_logged(play, caplog):
    server = await play(sources=(source("odd_tools"),))

    assert offered(server) == ["demo_a_b_c", "demo_told"]
    described = server.requests[0]["tools"][1]["function"]["description"]
    assert len(described) == toolset.MOST_DESCRIPTION_CHARACTERS + 2
    for words in (
        "'a_b_c' is left out: there is a tool of this name already",
        "'large' is left out: its schema is larger than 65536 bytes",
        "is left out: its name is empty or, with the server's, longer than 64 characters",
    ):
        assert words in caplog.text


async def test_a_tool_named_like_one_built_in_is_left_out(play):
    """Else `read_file` of the server `read` would take the other's place."""
    tools = [toolset.mcp_types.Tool(name=name, input_schema={"type": "object"}) for name in ("file", "page")]

    made = toolset.offered_tools(McpServer("read", Command(("x",))), tools)

    assert [one.definition.name for one in made] == ["read_page"]


async def test_only_the_tools_of_the_configuration_are_offered(play, caplog):
    server = await play(sources=(source(tools=frozenset({"echo", "missing"})),))

    assert offered(server) == ["demo_echo"]
    assert "it does not offer the tool 'missing' of the configuration" in caplog.text


async def test_no_more_than_128_tools_of_a_server_are_taken():
    tools = [toolset.mcp_types.Tool(name=f"t{n}", input_schema={"type": "object"}) for n in range(300)]

    made = toolset.offered_tools(McpServer("demo", Command(("x",))), tools)

    assert len(made) == 128


async def test_rules_mode_starts_no_servers(bench):
    outcome = await bench.run("```bash\necho hi\n```", sources=(source(),))

    assert outcome.is_completed
    assert not [spec for spec in bench.sandbox.started if spec.has_input]


async def test_a_stop_ends_servers_in_the_middle_of_a_call_too(bench, scripted):
    server = scripted(turns(Reply(calls=[call("demo_hang")])))
    run = asyncio.create_task(bench.run("go", model=choice(server), tools=("demo",), sources=(source(),)))
    await until(lambda: bench.events("tool.started"))

    run.cancel()
    await asyncio.wait({run})

    assert run.cancelled()
    assert bench.sandbox.running == set()


async def test_a_server_may_end_in_order_when_the_run_does(play, bench, caplog):
    await play(call("demo_count"), sources=(source("leaves_a_note"),))

    assert "MCP server" not in caplog.text
    assert (bench.work_dir / "left.txt").read_text() == "in order"


async def test_after_a_takeover_the_server_is_new_and_finished_calls_are_not_repeated(bench, scripted):
    server = scripted(
        turns(Reply(calls=[call("demo_write", text="once")]), Reply(calls=[call("demo_count")]), Reply("ok"))
    )

    def crash(when, types):
        if when == "after" and "tool.finished" in types:
            raise Crash(when, types)

    bench.crash = crash
    with pytest.raises(Crash):
        await bench.run("go", model=choice(server), tools=("demo",), sources=(source(),))
    (bench.work_dir / "made.txt").unlink()
    bench.crash = None
    await bench.run("go", model=choice(server), tools=("demo",), sources=(source(),))

    assert told(server) == ["written", "1"]
    assert not (bench.work_dir / "made.txt").exists()
    assert len(bench.sandbox.started) == 2


async def test_a_call_that_a_crash_interrupted_is_reported_not_repeated(bench, scripted):
    server = scripted(turns(Reply(calls=[call("demo_write", text="perhaps")]), Reply("ok")))

    def crash(when, types):
        if when == "after" and "tool.started" in types:
            raise Crash(when, types)

    bench.crash = crash
    with pytest.raises(Crash):
        await bench.run("go", model=choice(server), tools=("demo",), sources=(source(),))
    bench.crash = None
    await bench.run("go", model=choice(server), tools=("demo",), sources=(source(),))

    assert told(server)[0].startswith("Interrupted: the server stopped while this call ran")
    assert not (bench.work_dir / "made.txt").exists()


@pytest.mark.parametrize(
    ("crash_after", "answer"),
    [
        (
            {"tool.requested"},
            "Error: The MCP server demo can't be had: it ended before it had answered. Do without its",
        ),
        ({"tool.finished", "tool.started"}, "Interrupted: the server stopped while this call ran"),
        ({"tool.finished", "step.finished"}, "kept"),
    ],
)
async def test_calls_end_as_recorded_when_the_server_can_not_be_had_after_a_takeover(
    bench, scripted, crash_after, answer
):
    """The process dies when the call is asked for, has begun, or has ended; a call before it makes these differ."""
    calls = [call("write_file", path="a", content="1"), call("demo_echo", text="kept")]
    server = scripted(turns(Reply(calls=calls), Reply("ok")))

    def crash(when, types):
        if when == "after" and crash_after <= set(types):
            raise Crash(when, types)

    bench.crash = crash
    with pytest.raises(Crash):
        await bench.run("go", model=choice(server), tools=("write_file", "demo"), sources=(source(),))
    bench.crash = None
    outcome = await bench.run("go", model=choice(server), tools=("write_file", "demo"), sources=(source("dies"),))

    assert outcome.result == "ok"
    assert told(server)[1].startswith(answer)
    assert offered(server, -1) == ["write_file"]
    assert len(await bench.events("tool.finished")) == 2


@dataclass
class OneTool:
    """A plug-in as it is seen here: one tool, of the source's name."""

    name: str

    @asynccontextmanager
    async def open(self, box):
        async def tool() -> Answer:
            """Says who it is."""
            return Answer("I am the plug-in.", "plug-in")

        yield FunctionToolset([Tool(tool, name=self.name)])


@pytest.mark.parametrize("dies", [False, True])
async def test_a_plug_in_keeps_its_name_before_a_servers_tool(bench, scripted, dies):
    """Both would be called `demo_echo`; so too when a takeover finds the server gone, and the call is open."""
    server = scripted(turns(Reply(calls=[call("demo_echo")]), Reply("ok")))
    plugin = OneTool("demo_echo")
    tools = ("demo", plugin.name)

    def crash(when, types):
        if when == "before" and "tool.started" in types:
            raise Crash(when, types)

    bench.crash = crash
    with pytest.raises(Crash):
        await bench.run("go", model=choice(server), tools=tools, sources=(source(), plugin))
    bench.crash = None
    outcome = await bench.run(
        "go", model=choice(server), tools=tools, sources=(source("dies") if dies else source(), plugin)
    )

    assert outcome.result == "ok"
    assert told(server) == ["I am the plug-in."]


async def test_two_servers_side_by_side(play):
    server = await play(
        call("demo_count"), call("other_count"), call("other_count"), sources=(source(), source(name="other"))
    )

    assert told(server) == ["1", "1", "2"]
