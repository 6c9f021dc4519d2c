"""The types that the SDK promises are true: each answer of a real server is what its type says, no more and no less."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

import pytest
import requests
from pydantic import BaseModel

import beray.types
from beray.async_client import AsyncBeRayClient
from beray.client import BeRayClient
from beray.protocol import types
from beray.protocol.events import Event, EventType
from beray.server.admin import bodies as admin_bodies
from beray.server.auth import routes as auth_routes
from beray.server.files import routes as files_routes
from beray.server.refusals import ErrorItemBody, ProblemBody
from beray.server.tasks import bodies
from beray.server.webhooks import routes as webhook_routes
from tests.support.server import PASSWORD, ServerProcess
from tests.support.typed_dicts import faults
from tests.support.waiting import wait_until

TAG_OF_NAME = {"TaskStatusEvent": "task.status", "ErrorEvent": "error"}


def members_of_event() -> dict[str, Any]:
    """Each class of the union, by the type of the events that it describes."""
    return {get_args(get_type_hints(member)["type"])[0]: member for member in get_args(Event)}


def typed_methods(client: type) -> dict[str, Any]:
    """What the public methods answer that answer JSON at once."""
    methods = inspect.getmembers(client, inspect.isfunction)
    answers = {name: get_type_hints(method).get("return") for name, method in methods if not name.startswith("_")}
    return {name: type_ for name, type_ in answers.items() if is_typed(type_)}


def is_typed(annotation: Any) -> bool:
    """Whether it is a TypedDict or a list of them."""
    return is_typeddict(annotation) or (get_origin(annotation) is list and is_typeddict(get_args(annotation)[0]))


# What is promised


def test_every_type_of_event_is_a_class_of_the_union() -> None:
    assert list(members_of_event()) == list(get_args(EventType))


def test_events_are_named_by_their_type() -> None:
    for type_, member in members_of_event().items():
        words = type_.replace(".", " ").title().replace(" ", "")
        assert TAG_OF_NAME.get(member.__name__, type_) == type_
        assert member.__name__ == words or member.__name__ in TAG_OF_NAME


def test_users_find_every_type_in_one_module() -> None:
    named = {value for value in vars(types).values() if is_typeddict(value)} | set(get_args(Event))

    assert {value.__name__ for value in named} <= set(beray.types.__all__)
    assert len(set(beray.types.__all__)) == len(beray.types.__all__)
    assert all(hasattr(beray.types, name) for name in beray.types.__all__)


@pytest.mark.parametrize(
    ("body", "type_"),
    [
        (bodies.TaskWithEventsBody, types.Task),
        (bodies.UsageBody, types.Usage),
        (bodies.BudgetBody, types.Budget),
        (bodies.TaskErrorBody, types.TaskError),
        (bodies.DayUsageBody, types.DayUsage),
        (bodies.DayUsedBody, types.DayUsed),
        (bodies.DayLimitsBody, types.DayLimits),
        (bodies.StopBody, types.StopAnswer),
        (bodies.MessageBody, types.Message),
        (auth_routes.UserBody, types.User),
        (auth_routes.SessionBody, types.Session),
        (auth_routes.ApiTokenBody, types.ApiToken),
        (auth_routes.CreatedApiTokenBody, types.CreatedApiToken),
        (webhook_routes.WebhookBody, types.Webhook),
        (admin_bodies.LimitsBody, types.ServerLimits),
        (admin_bodies.PartBody, types.ReadyCheck),
        (files_routes.FileNodeBody, types.FileNode),
        (files_routes.UploadBody, types.UploadAnswer),
        (ProblemBody, types.Problem),
        (ErrorItemBody, types.ErrorItem),
    ],
)
def test_the_api_document_has_the_fields_of_the_type(body: type[BaseModel], type_: Any) -> None:
    described = body.model_fields

    assert described.keys() == get_type_hints(type_).keys()
    assert {name for name, field in described.items() if field.is_required()} == type_.__required_keys__


# What is answered


class Asked:
    """Calls a client's methods, and holds each answer against the method's own annotation."""

    def __init__(self, client: BeRayClient) -> None:
        self.client = client
        self.names: set[str] = set()

    def __call__(self, method: Callable[..., Any], *args: Any, **named: Any) -> Any:
        answer = method(*args, **named)
        name = method.__name__
        assert faults(answer, get_type_hints(getattr(BeRayClient, name))["return"], name) == []
        self.names.add(name)
        return answer


def test_every_answer_is_what_the_method_says(server: ServerProcess, tmp_path: Path) -> None:
    with BeRayClient(server.base_url) as client:
        asked = Asked(client)
        asked(client.request_verification_code, "typed@example.com")
        asked(client.register, "typed@example.com", server.code_for("typed@example.com"), PASSWORD)
        asked(client.login, "typed@example.com", PASSWORD)
        asked(client.login_with_form, "typed@example.com", PASSWORD)
        asked(client.get_current_user)
        token_id = asked(client.create_token, "nightly")["id"]
        asked(client.create_token, "once", expires_in=3600)
        asked(client.list_tokens)
        asked(client.delete_token, token_id)
        asked(client.set_webhook, "https://hooks.example.com/beray")
        asked(client.get_webhook)
        asked(client.delete_webhook)
        for service in (client.get_health, client.get_ready, client.get_info, client.check_model, client.get_usage):
            asked(service)

        task_id = asked(client.create_task, "`mkdir -p a/b; ln -s b a/link; cat in`", hold=True)["id"]
        asked(client.upload_file, task_id, "in", "text")
        (tmp_path / "file").touch()
        assert asked(client.upload_dir, task_id, tmp_path, "folder")
        asked(client.start_task, task_id)
        list(client.stream_task_updates(task_id))
        assert asked(client.get_task, task_id)["status"] == "completed"
        asked(client.send_message, task_id, "`false`")
        list(client.stream_task_updates(task_id))
        assert asked(client.get_task, task_id)["error"]
        asked(client.get_task, task_id, events="none")
        asked(client.list_tasks)
        asked(client.wait_for_task, task_id)
        asked(client.list_files_tree, task_id)
        asked(client.delete_file, task_id, "in")
        asked(client.stop_task, asked(client.create_task, "`true`", hold=True)["id"])
        asked(client.delete_task, task_id)
        asked(client.logout)
        mails = len(server.mails())
        asked(client.request_password_reset, "typed@example.com")
        wait_until(lambda: len(server.mails()) > mails, what="the mail")
        asked(client.reset_password, "typed@example.com", server.code_for("typed@example.com"), "another password")

    assert asked.names == typed_methods(BeRayClient).keys()


def test_both_clients_answer_the_same() -> None:
    awaited = typed_methods(AsyncBeRayClient)

    assert awaited == {name: type_ for name, type_ in typed_methods(BeRayClient).items() if name in awaited}
    for name in ("stream_task_updates", "iter_tasks"):
        here, there = (get_type_hints(getattr(kind, name))["return"] for kind in (BeRayClient, AsyncBeRayClient))
        assert get_args(here)[0] == get_args(there)[0]


def test_a_day_and_a_refusal_are_what_their_types_say(server: ServerProcess, client: BeRayClient) -> None:
    headers = {"Authorization": f"Bearer {client.token}"}

    day = requests.get(f"{server.base_url}/api/v1/users/me/usage", headers=headers, timeout=10)
    refusals = [
        requests.get(f"{server.base_url}/api/v1/tasks/999999", headers=headers, timeout=10),
        requests.post(f"{server.base_url}/api/v1/tasks/", headers=headers, json={"goal": 5}, timeout=10),
    ]

    assert faults(day.json(), types.DayUsage) == []
    assert [refusal.status_code for refusal in refusals] == [404, 422]
    assert [fault for refusal in refusals for fault in faults(refusal.json(), types.Problem)] == []


# What is looked at really is looked at


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"seq": True}, "event.seq is True, not <class 'int'>"),
        ({"stream": "stdin"}, "event.stream is 'stdin', none of ('stdout', 'stderr')"),
        ({"more": 1}, "event has more, which ToolOutput has not"),
        ({"delta": None}, "event.delta is None, not <class 'str'>"),
    ],
)
def test_a_field_that_is_wrong_is_named(changed: dict[str, Any], fault: str) -> None:
    event = {"v": 1, "seq": 3, "at": "", "task_id": 1, "type": "tool.output"}
    event |= {"call_id": "c", "stream": "stdout", "delta": "x", "truncated": False}

    assert faults(event, Event, "event") == []
    assert faults(event | changed, Event, "event") == [fault]
    assert faults(event | {"type": "unknown"}, Event, "event") != []
    del event["truncated"]
    assert faults([event], list[Event], "events") == ["events[0] lacks truncated"]
