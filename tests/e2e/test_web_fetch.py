"""`web_fetch` beside a real server: there when it is switched on, for the allowed hosts only."""

import pytest

from beray.client import BeRayClient
from tests.support.scripted_model import Reply, ScriptedModel, call, turns
from tests.support.server import failing_start


@pytest.mark.needs("bubblewrap")
def test_the_agent_has_the_tool_and_is_told_which_hosts_are_allowed(make_server):
    story = turns(Reply(calls=[call("web_fetch", url="https://elsewhere.example/")]), Reply("done"))
    with ScriptedModel(story) as model:
        server = make_server(
            model="openai:scripted", model_base_url=model.base_url, web_fetch=1, sandbox_allow_hosts="docs.example.com"
        ).start()
        with BeRayClient(server.base_url, token=server.register("a@example.com")) as client:
            tools = {tool["name"]: tool for tool in client.get_info()["tools"]}
            list(client.stream_task_updates(client.create_task("Read it.")["id"]))
            list(client.stream_task_updates(client.create_task("Don't.", tools=["shell"])["id"]))

    assert tools["web_fetch"]["is_default"]
    assert model.requests[1]["messages"][-1]["content"] == (
        "Error: elsewhere.example:443 is not allowed; allowed: docs.example.com. Other hosts can't be read; tell the"
        " user if one is needed."
    )
    assert [tool["function"]["name"] for tool in model.requests[-1]["tools"]] == ["shell"]


def test_without_an_allowed_host_the_start_fails_and_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("BERAY_MODEL", "rules")
    monkeypatch.setenv("BERAY_WEB_FETCH", "1")

    told = failing_start(tmp_path / "data")

    assert "BERAY_WEB_FETCH=1 needs hosts that may be read: name them in BERAY_SANDBOX_ALLOW_HOSTS" in told
