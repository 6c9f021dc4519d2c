"""MCP servers beside a real server: in its sandbox, of its tasks' choice, gone with them."""

import json
import subprocess

import pytest

from beray.client import BeRayClient
from beray.exceptions import UnprocessableEntityError
from tests.support.mcp_server import entry, write_config
from tests.support.sandbox_cases import new_marker, processes_with
from tests.support.scripted_model import Reply, ScriptedModel, call, turns
from tests.support.server import BERAY
from tests.support.waiting import wait_until


def told(model, number=-1):
    return [message["content"] for message in model.requests[number]["messages"] if message["role"] == "tool"]


def test_tasks_use_the_servers_of_the_operators_file(make_server, tmp_path, monkeypatch):
    """One that is default is there unasked, another is named; what is not there is refused with the list."""
    monkeypatch.setenv("OPERATORS_SECRET", "canary-91")
    config = write_config(
        tmp_path / "mcp.json",
        demo=entry(default=True, env={"SECRET": "${OPERATORS_SECRET}"}, tools=["echo", "env", "write", "whoami"]),
        other=entry(tools=["echo"]),
    )
    story = turns(
        Reply(calls=[call("demo_env", text="SECRET"), call("demo_env", text="OPERATORS_SECRET")]),
        Reply(calls=[call("demo_write", text="by the server")]),
        Reply(calls=[call("demo_whoami")]),
        Reply("done"),
    )
    with ScriptedModel(story) as model:
        server = make_server(model="openai:scripted", model_base_url=model.base_url, mcp_config=config).start()
        with BeRayClient(server.base_url, token=server.register("a@example.com")) as client:
            tools = {tool["name"]: tool for tool in client.get_info()["tools"]}
            task_id = client.create_task("Use it.")["id"]
            events = list(client.stream_task_updates(task_id))
            made = client.get_file_content(task_id, "made.txt").text
            first = len(model.requests)
            chosen = client.create_task("Use the other.", tools=["other"])["id"]
            list(client.stream_task_updates(chosen))
            with pytest.raises(UnprocessableEntityError) as error:
                client.create_task("x", tools=["other", "nonsense", "demo_echo"])

    assert (tools["demo"]["is_default"], tools["other"]["is_default"]) == (True, False)
    assert told(model, first - 1)[:3] == ["canary-91", "(unset)", "written"]
    assert made == "by the server"
    assert [event["path"] for event in events if event["type"] == "file.changed"] == ["made.txt"]
    assert [tool["function"]["name"] for tool in model.requests[first]["tools"]] == ["other_echo"]
    assert "nonsense, demo_echo" in error.value.error_detail
    assert "demo, other" in error.value.error_detail
    assert "canary-91" not in server.log_text()


@pytest.mark.needs("bubblewrap")
def test_a_server_is_confined_like_any_command_and_dies_with_the_process(make_server, tmp_path):
    """Nothing of the server's own files or network is in its reach, and a killed BeRay leaves none behind."""
    marker = new_marker()
    config = write_config(tmp_path / "mcp.json", demo=entry(marker, default=True))
    story = turns(Reply(calls=[call("demo_whoami")]), Reply(calls=[call("demo_hang")]))
    with ScriptedModel(story) as model:
        server = make_server(
            model="openai:scripted", model_base_url=model.base_url, mcp_config=config, sandbox="bubblewrap"
        ).start()
        with BeRayClient(server.base_url, token=server.register("a@example.com")) as client:
            client.create_task("Hang.")
            wait_until(lambda: len(model.requests) == 2 and processes_with(marker), what="a server that hangs")
            assert int(told(model)[0]) < 10  # a number of its own namespace of processes

            server.kill()

            wait_until(lambda: not processes_with(marker), what="the end of its processes")


def test_a_stop_ends_a_server_that_hangs(make_server, tmp_path):
    marker = new_marker()
    config = write_config(tmp_path / "mcp.json", demo=entry(marker, default=True))
    with ScriptedModel(turns(Reply(calls=[call("demo_hang")]))) as model:
        server = make_server(model="openai:scripted", model_base_url=model.base_url, mcp_config=config).start()
        with BeRayClient(server.base_url, token=server.register("a@example.com")) as client:
            task_id = client.create_task("Hang.")["id"]
            started = (event for event in client.stream_task_updates(task_id) if event["type"] == "tool.started")
            assert next(started)["name"] == "demo_hang"

            client.stop_task(task_id)

            wait_until(lambda: client.get_task(task_id)["status"] == "stopped", what="the stop")
            assert processes_with(marker) == []


@pytest.mark.parametrize(
    ("servers", "said"),
    [
        ({"demo": {"command": "x", "env": {"KEY": "${NOT_THERE}"}}}, '"env.KEY" names ${NOT_THERE}'),
        ({"shell": {"command": "x"}}, "'shell' is the name of a tool already"),
    ],
)
def test_a_file_that_can_not_be_used_stops_the_start(tmp_path, monkeypatch, servers, said):
    path = tmp_path / "mcp.json"
    path.write_text(json.dumps({"mcpServers": servers}))
    monkeypatch.setenv("BERAY_MODEL", "rules")
    monkeypatch.setenv("BERAY_MCP_CONFIG", str(path))

    ended = subprocess.run(
        [*BERAY, "serve", "--port", "0", "--data", str(tmp_path / "data")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode != 0
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "sandbox", [pytest.param(name, marks=pytest.mark.needs(name)) for name in ("bubblewrap", "landlock")]
)
def test_a_servers_secret_is_out_of_reach_of_the_tasks_commands(make_server, tmp_path, sandbox):
    """They have the same user and run at the same time."""
    config = write_config(tmp_path / "mcp.json", demo=entry(default=True, env={"SECRET": "canary-92"}))
    search = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep -c canary-9[2]"
    story = turns(
        Reply(calls=[call("demo_env", text="SECRET")]),
        Reply(calls=[call("shell", command=search), call("demo_env", text="SECRET")]),
        Reply("done"),
    )
    with ScriptedModel(story) as model:
        server = make_server(
            model="openai:scripted", model_base_url=model.base_url, mcp_config=config, sandbox=sandbox
        ).start()
        with BeRayClient(server.base_url, token=server.register("a@example.com")) as client:
            task_id = client.create_task("Look for it.")["id"]
            list(client.stream_task_updates(task_id))

    first, found, last = told(model)
    assert (first, last) == ("canary-92", "canary-92")
    assert found.splitlines()[-1] == "0"
