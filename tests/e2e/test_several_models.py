"""Models a task may ask for, and those that take over, on a real server."""

import json

import pytest
import requests

from beray.client import BeRayClient
from beray.exceptions import AuthenticationError, UnprocessableEntityError
from tests.support.scripted_model import Reply, ScriptedModel, failure

DEFAULT, OTHER, SPARE, BROKEN = "openai:default", "openai:other", "openai:spare", "openai:broken"


def by_name(request, number):
    """Each model says its name; one has no key."""
    return failure(401, "no such key") if request["model"] == "broken" else Reply(f"I am {request['model']}.")


@pytest.fixture
def provider():
    with ScriptedModel(by_name) as model:
        yield model


@pytest.fixture
def settings(provider):
    return {
        "model": DEFAULT,
        "models": f"{OTHER},{BROKEN},rules",
        "model_fallback": SPARE,
        "model_base_url": provider.base_url,
        "model_api_key": "key",
    }


@pytest.fixture
def client(make_server, settings):
    server = make_server(**settings).start()
    with BeRayClient(server.base_url, token=server.register("a@example.com"), language="en") as client:
        yield client


def finish(client, **asked):
    """A task's events, and how it then is."""
    task_id = client.create_task("Who are you?", **asked)["id"]
    return list(client.stream_task_updates(task_id)), client.get_task(task_id, events="none")


def test_a_task_gets_the_model_it_asks_for_and_others_are_refused(client):
    info = client.get_info()
    assert [model["name"] for model in info["models"]] == [DEFAULT, OTHER, BROKEN, "beray:rules"]
    assert (info["model"], info["model_fallback"]) == (DEFAULT, [SPARE])

    for asked, name in ((None, DEFAULT), (OTHER, OTHER)):
        events, task = finish(client, model=asked)
        assert (task["model"], task["result"]) == (name, f"I am {name.removeprefix('openai:')}.")
        assert {event["model"] for event in events if "model" in event} == {name}

    _, task = finish(client, model="beray:rules")
    assert (task["model_kind"], task["error"]["code"]) == ("rules", "rules_unsupported")

    for refused in ("openai:unknown", SPARE, "other", ""):
        with pytest.raises(UnprocessableEntityError) as error:
            client.create_task("Who are you?", model=refused)
        assert error.value.code == "unknown_model"
        assert f"{DEFAULT}, {OTHER}" in error.value.error_detail


def test_another_model_takes_over_and_the_task_shows_it(client):
    events, task = finish(client, model=BROKEN)

    assert (task["status"], task["model"], task["result"]) == ("completed", SPARE, "I am spare.")
    shown = [(event["type"], event["model"]) for event in events if "model" in event]
    assert shown == [("task.created", BROKEN), ("task.started", BROKEN), ("task.status", SPARE)]
    fallback = next(event for event in events if event["type"] == "model.fallback")
    assert (fallback["from"], fallback["to"], fallback["code"]) == (BROKEN, SPARE, "model_auth")


def test_a_check_leaves_no_part_of_the_key_in_the_log(make_server):
    with ScriptedModel(lambda request, number: failure(401, "Incorrect API key provided: sk-canary")) as provider:
        server = make_server(model=DEFAULT, model_base_url=provider.base_url, model_api_key="sk-canary").start()
        with BeRayClient(server.base_url, token=server.register("a@example.com")) as client:
            checked = client.check_model()

    assert checked["error"]["code"] == "model_auth"
    assert "sk-canary" not in str(checked)
    assert "sk-canary" not in server.log_text()


def test_a_model_is_asked_once_whether_it_answers(client, provider):
    for asked, name in ((None, "default"), (OTHER, "other"), (SPARE, "spare")):
        checked = client.check_model(asked)
        assert (checked["ok"], checked["answered"], checked["error"]) == (True, f"I am {name}.", None)
        assert client.check_model(asked) == checked
    assert [request["model"] for request in provider.requests] == ["default", "other", "spare"]

    broken = client.check_model(BROKEN)
    assert (broken["ok"], broken["answered"], broken["error"]["code"]) == (False, None, "model_auth")
    assert broken["error"]["hint"]

    assert client.check_model("beray:rules")["model_kind"] == "rules"
    with pytest.raises(UnprocessableEntityError) as error:
        client.check_model("openai:unknown")
    assert error.value.code == "unknown_model"
    client.set_token(None)
    with pytest.raises(AuthenticationError):
        client.check_model()


def test_a_limit_on_money_needs_the_price_of_every_model_that_may_work(make_server, settings, tmp_path):
    """The fallback's too: it would spend unseen."""
    prices = tmp_path / "prices.json"
    prices.write_text(json.dumps({"models": {DEFAULT: {"input": 1, "output": 1}, BROKEN: {"input": 1, "output": 1}}}))
    server = make_server(**settings, prices=prices).start()
    headers = {"Authorization": f"Bearer {server.register('a@example.com')}", "Accept-Language": "en"}
    body = {"goal": "Who are you?", "limits": {"cost_usd": 1}}

    answer = requests.post(f"{server.base_url}/api/v1/tasks/", json=body, headers=headers, timeout=30)

    assert (answer.status_code, answer.json()["code"]) == (422, "cost_limit_unknown")
    assert SPARE in answer.json()["detail"]


def test_a_task_whose_model_is_no_longer_offered_fails_and_says_so(make_server, settings):
    """It is not given to another model silently."""
    server = make_server(**settings).start()
    token = server.register("a@example.com")
    with BeRayClient(server.base_url, token=token) as client:
        task_id = client.create_task("Who are you?", model=OTHER, hold=True)["id"]
    server.stop()
    server.settings["BERAY_MODELS"] = BROKEN
    server.start()

    with BeRayClient(server.base_url, token=token) as client:
        client.start_task(task_id)
        last = list(client.stream_task_updates(task_id))[-1]

    assert (last["status"], last["error"]["code"]) == ("failed", "model_not_offered")
    assert OTHER in last["error"]["message"]
    assert "BERAY_MODELS" in last["error"]["hint"]


def test_a_task_that_named_no_model_gets_the_default_of_the_day(make_server, settings):
    """It was queued when another was the default; what works is said at its start."""
    server = make_server(**settings).start()
    token = server.register("a@example.com")
    with BeRayClient(server.base_url, token=token) as client:
        task = client.create_task("Who are you?", hold=True)
    server.stop()
    server.settings["BERAY_MODEL"] = OTHER
    server.settings["BERAY_MODELS"] = BROKEN
    server.start()

    with BeRayClient(server.base_url, token=token) as client:
        client.start_task(task["id"])
        events = list(client.stream_task_updates(task["id"]))

    assert task["model"] == DEFAULT
    assert next(event["model"] for event in events if event["type"] == "task.started") == OTHER
    assert events[-1]["status"] == "completed"
