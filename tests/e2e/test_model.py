"""A real model's path: an OpenAI-compatible server does the goal through tool calls, streaming."""

from beray.client import BeRayClient
from tests.support.scripted_model import HELLO, Reply, ScriptedModel, failure, turns

GOAL = "写一个打印 hello world 的 Python 脚本"


def test_the_goal_is_done_by_the_model_through_tools(make_server):
    with ScriptedModel(HELLO) as model:
        server = make_server(model="openai:scripted", model_base_url=model.base_url, model_api_key="sk-canary").start()
        with BeRayClient(server.base_url, token=server.register("a@example.com")) as client:
            task_id = client.create_task(GOAL)["id"]
            events = list(client.stream_task_updates(task_id))
            task = client.get_task(task_id)

            assert (task["status"], task["model"], task["model_kind"]) == ("completed", "openai:scripted", "model")
            assert task["result"] == "hello.py prints hello world."
            assert "".join(event["delta"] for event in events if event["type"] == "tool.output") == "hello world\n"
            assert "".join(event["delta"] for event in events if event["type"] == "text.delta") == "I run it."
            assert client.get_file_content(task_id, "hello.py").text == 'print("hello world")\n'
            assert task["usage"]["input_tokens"] == 300
            assert task["usage"]["output_tokens"] == 60
            assert task["usage"]["cost_usd"] is None
            assert all(request["stream"] for request in model.requests)
            assert model.requests[0]["messages"][-1]["content"] == GOAL
            assert set(model.keys) == {"Bearer sk-canary"}
        for path in server.data_dir.rglob("*"):
            if path.is_file():
                assert b"sk-canary" not in path.read_bytes(), path
        assert "sk-canary" not in server.log_text()


REFUSALS = {
    "model_auth": failure(401, "Incorrect API key provided: sk-canary"),
    "model_not_found": failure(404, "no such model", code="model_not_found"),
    "model_quota": failure(429, "quota", code="insufficient_quota"),
}


def test_a_model_that_refuses_fails_the_task_with_what_to_do(make_server):
    """The goal names the refusal that the scripted model gives."""
    with ScriptedModel(lambda request, number: REFUSALS[request["messages"][-1]["content"]]) as model:
        server = make_server(model="openai:scripted", model_base_url=model.base_url, model_api_key="sk-canary").start()
        with BeRayClient(server.base_url, token=server.register("a@example.com")) as client:
            for code in REFUSALS:
                events = list(client.stream_task_updates(client.create_task(code)["id"]))

                error = events[-1]["error"]
                assert (events[-1]["status"], error["code"]) == ("failed", code)
                assert error["message"]
                assert error["hint"]
                assert "sk-canary" not in str(events)
                assert model.base_url not in str(events)
            assert model.base_url not in str(client.get_info())
            assert len(model.requests) == len(REFUSALS), "what can't pass is not tried again"


def test_text_of_a_slow_model_is_seen_while_it_comes(make_server):
    """The first words are shown before the last have been sent."""
    script = turns(Reply(["First words.", " More."], hangs_after=2))
    with ScriptedModel(script) as model:
        server = make_server(model="openai:scripted", model_base_url=model.base_url, model_api_key="key").start()
        with BeRayClient(server.base_url, token=server.register("a@example.com")) as client:
            task_id = client.create_task(GOAL)["id"]

            for event in client.stream_task_updates(task_id):
                if event["type"] == "text.delta":
                    assert event["delta"] == "First words."
                    break

            assert client.stop_task(task_id)["status"] == "stopped"
