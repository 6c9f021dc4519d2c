"""What a user has used today, and what a task may ask for, over HTTP."""

import pytest
import requests

from beray.client import BeRayClient
from tests.support.scripted_model import Reply, ScriptedModel, call, sequence

TOOL = Reply(calls=[call("shell", command="true")])


def usage_of(server, token):
    answer = requests.get(
        f"{server.base_url}/api/v1/users/me/usage", headers={"Authorization": f"Bearer {token}"}, timeout=10
    )
    assert answer.status_code == 200
    return answer.json()


def run(client, goal="work", **options):
    task = client.create_task(goal, **options)
    events = list(client.stream_task_updates(task["id"]))
    return events[-1]


def test_use_of_the_day_is_counted_for_each_user_and_ends_their_tasks(make_server):
    """The limit of a user's day is met by the second task, and says so; another user's day is untouched."""
    with ScriptedModel(sequence(TOOL, Reply("Done."), TOOL, Reply("Done."))) as model:
        server = make_server(
            model="openai:scripted",
            model_base_url=model.base_url,
            model_api_key="k",
            max_requests_per_user_day=3,
        ).start()
        ann, bob = server.register("ann@example.com"), server.register("bob@example.com")
        with BeRayClient(server.base_url, token=ann) as client:
            first = run(client)
            client.delete_task(first["task_id"])
            second = run(client)
        with BeRayClient(server.base_url, token=bob) as client:
            third = run(client)

        assert (first["status"], third["status"]) == ("completed", "completed")
        assert second["error"]["code"] == "budget_exceeded"
        assert second["error"]["budget"] == {
            "limit": "requests",
            "scope": "user_day",
            "used": 3,
            "allowed": 3,
            "setting": "BERAY_MAX_REQUESTS_PER_USER_DAY",
        }
        used = usage_of(server, ann)
        assert (used["used"]["requests"], used["used"]["tool_calls"], used["used"]["input_tokens"]) == (3, 2, 300)
        assert used["used"]["requests_of_unknown_cost"] == 3
        assert used["limits"] == {
            "requests": 3,
            "tool_calls": None,
            "tokens": None,
            "wall_seconds": None,
            "cost_usd": None,
        }
        assert used["resets_at"] > used["day"]
        assert usage_of(server, bob)["used"]["requests"] == 1


def test_a_task_may_lower_its_limits(make_server):
    with ScriptedModel(sequence(TOOL)) as model:
        server = make_server(model="openai:scripted", model_base_url=model.base_url, model_api_key="k").start()
        with BeRayClient(server.base_url, token=server.register("a@example.com")) as client:
            ended = run(client, limits={"requests": 2})

            assert ended["error"]["budget"]["allowed"] == 2
            assert "limits.requests" in ended["error"]["hint"]
            with pytest.raises(Exception, match="BERAY_PRICES"):
                run(client, limits={"cost_usd": 0.5})


def test_money_that_is_none_is_refused(server):
    token = server.register("money@example.com")

    for wrong in ("0", "-1", '"1"', "true", "1e400", "[]"):
        answer = requests.post(
            f"{server.base_url}/api/v1/tasks",
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            data=f'{{"goal": "$ true", "limits": {{"cost_usd": {wrong}}}}}',
            timeout=10,
        )

        assert answer.status_code == 422, wrong
        assert answer.json()["errors"][0]["loc"][:3] == ["body", "limits", "cost_usd"]


@pytest.mark.parametrize(
    ("reply", "until", "used", "unknown"),
    [
        (Reply(calls=[call("shell", command="sleep 1000")]), "tool.started", (1, 1, 100), 1),
        (Reply(["word " * 1000, "never"], hangs_after=2), "text.delta", (1, 0, None), 1),
    ],
    ids=["in a tool", "in an answer"],
)
def test_a_stopped_task_has_used_what_it_used(make_server, reply, until, used, unknown):
    """Its last turn counts: the call that ran, and the request whose answer never came whole."""
    with ScriptedModel(sequence(reply)) as model:
        server = make_server(model="openai:scripted", model_base_url=model.base_url, model_api_key="k").start()
        token = server.register("a@example.com")
        with BeRayClient(server.base_url, token=token) as client:
            task_id = client.create_task("work")["id"]
            for event in client.stream_task_updates(task_id):
                if event["type"] == until:
                    client.stop_task(task_id)
            usage = client.get_task(task_id)["usage"]

        assert (event["type"], event["status"], event["usage"]) == ("task.finished", "stopped", usage)
        assert (usage["requests"], usage["tool_calls"], usage["input_tokens"]) == used
        day = usage_of(server, token)["used"]
        assert (day["requests"], day["tool_calls"], day["requests_of_unknown_cost"]) == (*used[:2], unknown)
