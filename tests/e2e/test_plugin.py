"""The example plug-in of the documentation, installed beside a real server."""

from pathlib import Path

from beray.client import BeRayClient
from tests.support.plugins import install, install_project
from tests.support.scripted_model import Reply, ScriptedModel, call, turns
from tests.support.server import failing_start

EXAMPLE = Path(__file__).parents[2] / "examples" / "tool_plugin"


def test_a_task_uses_the_tools_of_an_installed_package(make_server, tmp_path, monkeypatch):
    install_project(tmp_path, EXAMPLE, module="office_tools")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    story = turns(
        Reply(calls=[call("look_up_term", term="chrun")]),
        Reply(calls=[call("look_up_term", term="churn", save_to="terms/churn.md")]),
        Reply(calls=[call("working_days", first="2026-05-01", last="2026-05-08")]),
        Reply("May has 5 of them."),
    )
    with ScriptedModel(story) as model:
        server = make_server(model="openai:scripted", model_base_url=model.base_url)
        server.is_forked = False  # an interpreter looks at PYTHONPATH when it starts
        server.start()
        with BeRayClient(server.base_url, token=server.register("a@example.com")) as client:
            tools = {tool["name"]: tool for tool in client.get_info()["tools"]}
            task_id = client.create_task("What is churn?")["id"]
            events = list(client.stream_task_updates(task_id))
            chosen = client.create_task("Only one of them.", tools=["working_days"])["id"]
            list(client.stream_task_updates(chosen))
            meaning = client.get_file_content(task_id, "terms/churn.md").text

    assert tools["look_up_term"]["is_default"]
    assert tools["look_up_term"]["description"].startswith("Look up what a term means in this company.")
    assert meaning == "churn: Customers lost in a month, divided by those at its beginning.\n"
    told = [message["content"] for message in model.requests[3]["messages"] if message["role"] == "tool"]
    assert told == [
        "Error: The glossary does not have 'chrun'. Ask for one of: churn.",
        "churn: Customers lost in a month, divided by those at its beginning.",
        "5",
    ]
    assert [event["path"] for event in events if event["type"] == "file.changed"] == ["terms/churn.md"]
    assert [tool["function"]["name"] for tool in model.requests[-1]["tools"]] == ["working_days"]


def test_a_broken_plugin_stops_the_start_and_is_named(tmp_path, monkeypatch):
    install(tmp_path, "broken", module="broken_tool", source="import nothing_there", tools={"look": "broken_tool:look"})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("BERAY_MODEL", "rules")

    told = failing_start(tmp_path / "data")

    assert "The tool look (broken_tool:look) of broken 1.0 cannot be used: it could not be loaded" in told
    assert "No module named 'nothing_there'" in told
    assert "Mend that package or uninstall it." in told
