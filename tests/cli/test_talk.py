"""Talking to tasks on the command line: `send`, and questions shown and answered."""

import json
import re
from collections.abc import Callable

import pytest

from tests.support.command_line import CommandLine, OnTerminal
from tests.support.fake_server import Cut, FakeServer, Gate, Script
from tests.support.scripts import BEGINNING, finished
from tests.support.waiting import wait_until

QUESTION: Script = [
    {"type": "input.requested", "question_id": "q1", "question": "Which colour?", "choices": ["red", "green"]}
]


def asks(gate: Gate) -> Script:
    received = {"type": "input.received", "question_id": "q1", "content": "green"}
    return [*BEGINNING, *QUESTION, gate, received, finished(result="Painted green.")]


@pytest.mark.parametrize(("typed", "sent"), [("2", "green"), ("blue, please", "blue, please"), ("3", "3")])
def test_question_is_asked_at_the_terminal_and_the_answer_sent(
    on_terminal: Callable[..., OnTerminal], fake: FakeServer, typed: str, sent: str
) -> None:
    gate = Gate()
    fake.next_script = asks(gate)

    terminal = on_terminal("run", "paint it")
    terminal.read_until("› ")
    assert "? Which colour?" in terminal.shown
    assert "1. red" in terminal.shown
    terminal.type(f"{typed}\n")
    wait_until(lambda: fake.tasks[42].messages, what="the answer")
    gate.set()

    assert terminal.end() == 0
    assert fake.tasks[42].messages == [sent]
    assert "Painted green." in terminal.shown


def test_empty_line_shows_the_choices_again(on_terminal: Callable[..., OnTerminal], fake: FakeServer) -> None:
    gate = Gate()
    fake.next_script = asks(gate)

    terminal = on_terminal("run", "paint it")
    terminal.read_until("› ")
    terminal.type("\n")
    terminal.read_until("› \n  ? Which colour?\n    1. red\n    2. green\n")
    terminal.type("green\n")
    wait_until(lambda: fake.tasks[42].messages, what="the answer")
    gate.set()

    assert terminal.end() == 0
    assert "Ctrl-C detaches" in terminal.shown
    assert fake.tasks[42].messages == ["green"]


def test_end_of_the_input_answers_nothing_and_says_how_to(
    on_terminal: Callable[..., OnTerminal], fake: FakeServer
) -> None:
    gate = Gate()
    fake.next_script = asks(gate)

    terminal = on_terminal("run", "paint it")
    terminal.read_until("› ")
    terminal.type("\x04")
    terminal.read_until('answer with beray send 42 "..."')
    gate.set()

    assert terminal.end() == 0
    assert fake.tasks[42].messages == []


def test_prompt_ends_when_the_question_is_answered_elsewhere(
    on_terminal: Callable[..., OnTerminal], fake: FakeServer
) -> None:
    gate = Gate()
    fake.next_script = asks(gate)

    terminal = on_terminal("run", "paint it")
    terminal.read_until("› ")
    gate.set()

    assert terminal.end() == 0
    assert "› \n  › green\nPainted green." in terminal.shown


def test_prompt_ends_when_the_time_is_up(on_terminal: Callable[..., OnTerminal], fake: FakeServer) -> None:
    gate = Gate()
    going_on: Script = [{"type": "task.status", "status": "running"}, finished(result="Painted blue.")]
    fake.next_script = [*BEGINNING, *QUESTION, {"type": "task.status", "status": "waiting"}, gate, *going_on]

    terminal = on_terminal("run", "paint it")
    terminal.read_until("› ")
    gate.set()

    assert terminal.end() == 0
    assert "Painted blue." in terminal.shown


def test_half_a_line_is_no_answer_to_the_next_question(
    on_terminal: Callable[..., OnTerminal], fake: FakeServer
) -> None:
    first, second = Gate(), Gate()
    again = {**QUESTION[0], "question_id": "q2", "question": "Which brush?", "choices": None}
    received = {"type": "input.received", "question_id": "q2", "content": "the small one"}
    fake.next_script = [*asks(first)[:-1], again, second, received, finished(result="Painted green.")]

    terminal = on_terminal("run", "paint it")
    terminal.read_until("› ")
    terminal.type("re")
    terminal.read_until("› re")
    first.set()
    terminal.read_until("Which brush?\n  type the answer, or a choice's number, and Enter · Ctrl-C detaches\n› ")
    terminal.type("the small one\n")
    wait_until(lambda: fake.tasks[42].messages, what="the answer")
    second.set()

    assert terminal.end() == 0
    assert fake.tasks[42].messages == ["the small one"]


def test_prompt_stays_the_last_line_while_other_things_happen(
    on_terminal: Callable[..., OnTerminal], fake: FakeServer
) -> None:
    meanwhile, lost, end = Gate(), Gate(), Gate()
    note = {"type": "plan.updated", "items": [{"text": "choose a colour", "status": "running"}]}
    fake.next_script = [*BEGINNING, *QUESTION, meanwhile, note, lost, Cut(), *asks(end)[-3:]]

    terminal = on_terminal("run", "paint it")
    terminal.read_until("› ")
    meanwhile.set()
    terminal.read_until("choose a colour\n› ")
    lost.set()
    terminal.read_until("connection lost, reconnecting…\n› ")
    terminal.type("green\n")
    wait_until(lambda: fake.tasks[42].messages, what="the answer")
    end.set()

    assert terminal.end() == 0
    assert fake.tasks[42].messages == ["green"]


@pytest.mark.parametrize("status", [422, 503])
def test_refused_answer_is_shown_and_asked_for_again(
    on_terminal: Callable[..., OnTerminal], fake: FakeServer, status: int
) -> None:
    gate = Gate()
    fake.next_script = asks(gate)
    asked = "POST /api/v1/tasks/42/messages"
    fake.refusals[asked] = (status, {"code": "some", "detail": "Not this answer."})

    terminal = on_terminal("run", "paint it")
    terminal.read_until("› ")
    terminal.type("blue\n")
    terminal.read_until("✗ Not this answer.")
    del fake.refusals[asked]
    terminal.read_until("› ")
    terminal.type("green\n")
    wait_until(lambda: fake.tasks[42].messages, what="the answer")
    gate.set()

    assert terminal.end() == 0
    assert fake.tasks[42].messages == ["green"]


def test_answer_to_a_question_that_is_over_is_not_taken(
    on_terminal: Callable[..., OnTerminal], fake: FakeServer
) -> None:
    """As a message it might begin a further run."""
    gate = Gate()
    fake.next_script = asks(gate)

    terminal = on_terminal("run", "paint it")
    terminal.read_until("› ")
    fake.tasks[42].question = None
    terminal.type("green\n")
    terminal.read_until("the question is no longer open")
    gate.set()

    assert terminal.end() == 0
    assert fake.tasks[42].messages == []


def test_question_answered_elsewhere_before_is_only_shown(
    on_terminal: Callable[..., OnTerminal], fake: FakeServer
) -> None:
    task = fake.add([*BEGINNING, *QUESTION, finished()], messages=["green"])

    terminal = on_terminal("watch", str(task.id))

    assert terminal.end() == 0
    assert 'answer with beray send 42 "..."' in terminal.shown


def test_ctrl_c_at_the_question_leaves_the_task_running(
    on_terminal: Callable[..., OnTerminal], fake: FakeServer
) -> None:
    fake.next_script = asks(Gate())

    terminal = on_terminal("run", "paint it")
    terminal.read_until("› ")
    terminal.type("\x03")

    assert terminal.end() == 130
    assert "beray watch 42" in terminal.shown
    assert fake.tasks[42].status == "running"


def test_run_without_a_terminal_asks_nothing(beray: CommandLine, fake: FakeServer) -> None:
    tools = [{"name": name, "is_default": name != "mail"} for name in ("shell", "ask_user", "finish", "mail")]
    fake.info = {**fake.info, "model_kind": "model", "tools": tools}
    fake.next_script = [*BEGINNING, finished()]

    assert beray("run", "paint it").status == 0

    assert fake.tasks[42].tools == ["shell", "finish"]


@pytest.mark.parametrize(
    "info",
    [{"model_kind": "rules", "tools": [{"name": "ask_user", "is_default": True}]}, {"model_kind": "model"}],
)
def test_run_leaves_the_tools_to_the_server_where_it_need_not_know(
    beray: CommandLine, fake: FakeServer, info: dict[str, object]
) -> None:
    fake.info = {**fake.info, **info}
    fake.next_script = [*BEGINNING, finished()]

    assert beray("run", "paint it").status == 0

    assert fake.tasks[42].tools is None


def test_send_tells_a_task_at_work(beray: CommandLine, fake: FakeServer) -> None:
    fake.add([*BEGINNING, Gate()])

    ended = beray("send", "42", "and", "green")

    assert ended.status == 0
    assert ended.out == "sent; the agent reads it before its next step · beray watch 42\n"
    assert fake.tasks[42].messages == ["and green"]


def test_send_answers_a_waiting_task(beray: CommandLine, fake: FakeServer) -> None:
    fake.add([*BEGINNING, Gate()], status="waiting", question={"question_id": "q1", "question": "Which colour?"})

    ended = beray("send", "42", "green")

    assert ended.out == "sent as the answer to its question · beray watch 42\n"
    assert fake.tasks[42].messages == ["green"]


def test_send_begins_an_ended_task_again(beray: CommandLine, fake: FakeServer) -> None:
    fake.add([*BEGINNING, finished()])

    ended = beray("send", "42", "-", stdin=b"once more\n")

    assert ended.out == "sent; run 2 is queued · beray watch 42\n"
    assert fake.tasks[42].messages == ["once more"]


def test_send_gives_the_task_as_json(beray: CommandLine, fake: FakeServer) -> None:
    fake.add([*BEGINNING, finished()])

    assert json.loads(beray("send", "42", "more", "--json").out)["run"] == 2


@pytest.mark.parametrize(("arguments", "stdin"), [(("42",), b""), (("42", "-"), b" \n"), (("42", "-"), b"\xff")])
def test_send_without_a_message_is_wrong_use(
    beray: CommandLine, fake: FakeServer, arguments: tuple[str, ...], stdin: bytes
) -> None:
    fake.add([*BEGINNING, Gate()])

    assert beray("send", *arguments, stdin=stdin).status == 2
    assert fake.tasks[42].messages == []


def test_send_to_no_task_is_not_found(beray: CommandLine, fake: FakeServer) -> None:
    assert beray("send", "7", "hello").status == 5


def test_show_tells_what_is_asked_and_how_to_answer(beray: CommandLine, fake: FakeServer) -> None:
    question = {"question_id": "q1", "question": "Which colour?", "choices": ["red", "green"]}
    fake.add([*BEGINNING, Gate()], status="waiting", question=question)

    lines = beray("show", "42").out.splitlines()

    at = next(number for number, line in enumerate(lines) if "Which colour?" in line)
    assert [line.strip() for line in lines[at : at + 4]] == [
        "question  Which colour?",
        "1. red",
        "2. green",
        'answer with beray send 42 "..."',
    ]


def test_show_tells_the_time_of_a_task_that_is_under_way(beray: CommandLine, fake: FakeServer) -> None:
    fake.add([*BEGINNING, Gate()], status="waiting")

    assert re.search(r"^  time +\d+ ?[dhms]", beray("show", "42").out, re.MULTILINE)


def test_show_names_the_run_that_its_time_is_of(beray: CommandLine, fake: FakeServer) -> None:
    fake.add([*BEGINNING, finished()], run=3)

    assert re.search(r"^  time +run 3: 6 ?s$", beray("show", "42").out, re.MULTILINE)
