"""Answers that show themselves are dicts and lists in everything else."""

import copy
import json
import pickle
from typing import Any

import orjson
import pytest

from beray.protocol import calls
from beray.protocol.shown import ShownFiles, ShownTask, ShownTasks, shown_files, shown_task, shown_tasks

TASK = {"id": 1, "goal": "Greet.", "status": "completed", "usage": {"requests": 1}, "events": [{"seq": 1}]}
NODES = [{"name": "a", "type": "directory", "children": [{"name": "b", "type": "file"}]}]
SHOWN: list[tuple[Any, Any]] = [(shown_task(TASK), TASK), (shown_tasks([TASK]), [TASK]), (shown_files(NODES), NODES)]

each_kind = pytest.mark.parametrize(("shown", "plain"), SHOWN, ids=["task", "tasks", "files"])


@each_kind
def test_it_is_equal_to_a_plain_one_and_written_like_it(shown: Any, plain: Any) -> None:
    assert shown == plain
    assert plain == shown
    assert isinstance(shown, type(plain))
    assert repr(shown) == repr(plain)
    assert json.dumps(shown) == json.dumps(plain)
    assert orjson.dumps(shown) == orjson.dumps(plain)


@each_kind
def test_a_copy_is_a_plain_one(shown: Any, plain: Any) -> None:
    """So what reads a pickle needs no BeRay, and no version of it."""
    for made in (copy.copy(shown), copy.deepcopy(shown), shown.copy(), pickle.loads(pickle.dumps(shown))):
        assert made == plain
        assert type(made) is type(plain)
    assert b"beray" not in pickle.dumps(shown)


@each_kind
def test_it_can_be_changed_and_holds_nothing_else(shown: Any, plain: Any) -> None:
    same = type(shown)(shown)
    same.clear()

    assert not same
    assert shown == plain
    with pytest.raises(AttributeError):
        shown.note = 1


@each_kind
def test_it_shows_itself(shown: Any, plain: Any) -> None:
    assert "<div" in shown._repr_html_()


def test_each_task_of_a_list_shows_itself_too() -> None:
    assert [type(task) for task in shown_tasks([TASK, TASK])] == [ShownTask, ShownTask]


@pytest.mark.parametrize("show", [shown_task, shown_tasks, shown_files])
def test_what_another_server_answers_stays_as_it_is(show: Any) -> None:
    for value in (None, 5, "text", True):
        assert show(value) is value
    assert show(["text"]) == ["text"]
    assert show({"data": []}) == {"data": []}


def test_calls_that_answer_tasks_or_files_say_so() -> None:
    tasks = [
        calls.create_task("g", tools=None),
        calls.start_task(1),
        calls.get_task(1),
        calls.send_message(1, "m"),
    ]

    assert all(call.shown is not None and type(call.shown(TASK)) is ShownTask for call in tasks)
    assert type((calls.list_tasks().shown or list)([TASK])) is ShownTasks
    assert type((calls.list_files_tree(1, ".").shown or list)(NODES)) is ShownFiles
    assert calls.get_info().shown is None
