"""`ps`, `watch`, `show`, `stop`, `rm`."""

import json
import os
import subprocess
from collections.abc import Callable

import pytest

from tests.support.command_line import COMMAND, CommandLine, OnTerminal
from tests.support.fake_server import FakeServer, Gate
from tests.support.scripts import BEGINNING, HELLO_WORLD, finished


@pytest.fixture
def three_tasks(fake: FakeServer) -> FakeServer:
    fake.add(HELLO_WORLD, goal="打印 hello world")
    fake.add([*BEGINNING, finished("failed")], goal="break\x1b[2J\nit")
    fake.add([*BEGINNING, Gate()], goal="wait")
    return fake


def test_tasks_are_a_table_newest_first(beray: CommandLine, three_tasks: FakeServer) -> None:
    lines = beray("ps").out.splitlines()

    assert lines[0].split() == ["ID", "STATUS", "AGE", "TIME", "GOAL"]
    assert [line.split()[:2] for line in lines[1:]] == [["44", "running"], ["43", "failed"], ["42", "completed"]]
    assert lines[2].endswith("break it")
    assert lines[3].index("打印") == lines[1].index("wait")


def test_tasks_can_be_chosen_by_status_and_number(beray: CommandLine, three_tasks: FakeServer) -> None:
    assert beray("ps", "-q").out == "44\n43\n42\n"
    assert beray("ps", "-q", "--status", "failed", "--status", "running").out == "44\n43\n"
    assert beray("ps", "-q", "--limit", "1").out == "44\n"
    assert beray("ps", "-q", "-a", "--limit", "1").out == "44\n43\n42\n"
    assert [task["id"] for task in json.loads(beray("ps", "--json").out)] == [44, 43, 42]


def test_no_tasks_is_no_failure(beray: CommandLine) -> None:
    ended = beray("ps")

    assert (ended.status, ended.out) == (0, "")
    assert 'Start one: beray run "…"' in ended.err


def test_reader_that_goes_away_ends_the_list_quietly(beray: CommandLine, three_tasks: FakeServer) -> None:
    process = beray.popen("ps")
    assert process.stdout is not None
    process.stdout.close()

    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=30) == 1


def test_reader_of_the_whole_screen_that_goes_away_ends_it_quietly(beray: CommandLine, fake: FakeServer) -> None:
    fake.add(HELLO_WORLD)
    reading, writing = os.pipe()
    os.close(reading)

    done = subprocess.run(
        [*COMMAND, "watch", "42"], env=beray.environment(), stdout=writing, stderr=writing, timeout=60, check=False
    )
    os.close(writing)

    assert done.returncode == 1


def test_watching_without_an_id_replays_the_latest_task(beray: CommandLine, fake: FakeServer) -> None:
    fake.add([*BEGINNING, finished("failed")])
    fake.add(HELLO_WORLD)

    ended = beray("watch")

    assert ended.status == 0
    assert ended.err.startswith("● 43  print hello world\n")
    assert "Ctrl-C leaves" in ended.err
    assert ended.out == "hello world\nDone: hello.py prints the greeting.\n"


def test_watching_where_there_is_nothing_is_not_found(beray: CommandLine) -> None:
    assert beray("watch").status == 5
    assert beray("watch", "99").status == 5


def test_details_of_a_task(beray: CommandLine, three_tasks: FakeServer) -> None:
    shown = beray("show", "43").out

    assert shown.splitlines()[:3] == ["task 43", "  goal     break", "           it"]
    assert "rules mode, not an AI model" in shown
    assert "input_tokens unknown" in shown
    assert "\x1b" not in shown


def test_details_as_json_hold_the_events(beray: CommandLine, three_tasks: FakeServer) -> None:
    task = json.loads(beray("show", "42", "--json").out)

    assert [event["seq"] for event in task["events"]] == list(range(1, task["last_seq"] + 1))


def test_several_tasks_are_stopped_and_the_first_failure_is_the_status(
    beray: CommandLine, three_tasks: FakeServer
) -> None:
    ended = beray("stop", "42", "99", "44")

    assert ended.status == 6
    assert ended.out == "44  Task 44 is being stopped.\n"
    assert "✗ Task 42 has ended." in ended.err
    assert "✗ There is no task 99." in ended.err
    assert three_tasks.tasks[44].status == "stopped"


def test_deleting_with_yes_asks_nothing(beray: CommandLine, three_tasks: FakeServer) -> None:
    ended = beray("rm", "-y", "42", "43")

    assert ended.status == 0
    assert list(three_tasks.tasks) == [44]


@pytest.mark.parametrize(("answer", "left"), [("y\n", []), ("n\n", [42]), ("\n", [42])])
def test_deleting_on_a_terminal_asks_first(
    on_terminal: Callable[..., OnTerminal], fake: FakeServer, answer: str, left: list[int]
) -> None:
    fake.add(HELLO_WORLD)
    terminal = on_terminal("rm", "42")
    terminal.read_until("Delete these tasks (1) with their files?")

    terminal.type(answer)

    assert terminal.end() == (1 if left else 0)
    assert list(fake.tasks) == left
