"""Ctrl-C, SIGTERM and lost connections while a task is followed."""

import re
import signal
from collections.abc import Callable

import pytest

from tests.support.command_line import CommandLine, OnTerminal
from tests.support.fake_server import Cut, FakeServer, Gate
from tests.support.scripts import BEGINNING, HELLO_WORLD, finished
from tests.support.waiting import wait_until

CTRL_C = "\x03"


@pytest.fixture
def waiting(on_terminal: Callable[..., OnTerminal], fake: FakeServer) -> Callable[..., OnTerminal]:
    """Runs a task that doesn't end by itself, and waits until it is shown."""

    def start(*options: str) -> OnTerminal:
        fake.next_script = [*BEGINNING, Gate(), finished("stopped")]
        terminal = on_terminal("run", *options, "do it")
        terminal.read_until("thinking")
        return terminal

    return start


def stops(fake: FakeServer) -> int:
    return fake.requests.count("POST /api/v1/tasks/42/stop")


def test_first_ctrl_c_leaves_the_task_running(waiting: Callable[..., OnTerminal], fake: FakeServer) -> None:
    terminal = waiting()

    terminal.type(CTRL_C)

    assert terminal.end() == 130
    assert "still running · beray watch 42 · Ctrl-C again within 2 s to stop" in terminal.shown
    assert stops(fake) == 0
    assert fake.tasks[42].status == "running"


def test_second_ctrl_c_stops_the_task(waiting: Callable[..., OnTerminal], fake: FakeServer) -> None:
    terminal = waiting()

    terminal.type(CTRL_C)
    terminal.read_until("still running")
    terminal.type(CTRL_C)

    assert terminal.end() == 130
    assert "task 42 has ended (stopped)" in terminal.shown
    assert stops(fake) == 1


def test_stop_on_interrupt_stops_at_the_first(waiting: Callable[..., OnTerminal], fake: FakeServer) -> None:
    terminal = waiting("--stop-on-interrupt")

    terminal.type(CTRL_C)

    assert terminal.end() == 130
    assert fake.tasks[42].status == "stopped"
    assert "still running" not in terminal.shown


def test_third_ctrl_c_does_not_wait_for_the_stop(waiting: Callable[..., OnTerminal], fake: FakeServer) -> None:
    terminal = waiting()
    fake.tasks[42].stops = False

    terminal.type(CTRL_C)
    terminal.read_until("still running")
    terminal.type(CTRL_C)
    wait_until(lambda: stops(fake) == 1)
    terminal.type(CTRL_C)

    assert terminal.end(seconds=5) == 130


def test_ctrl_c_while_watching_only_leaves(on_terminal: Callable[..., OnTerminal], fake: FakeServer) -> None:
    fake.add([*BEGINNING, Gate()])
    terminal = on_terminal("watch")
    terminal.read_until("thinking")

    terminal.type(CTRL_C)

    assert terminal.end() == 130
    assert "still running · beray watch 42\n" in terminal.shown
    assert stops(fake) == 0


def test_sigterm_leaves_the_task_running(beray: CommandLine, fake: FakeServer) -> None:
    fake.next_script = [*BEGINNING, Gate()]
    process = beray.popen("run", "do it")
    wait_until(lambda: "GET /api/v1/tasks/42/stream" in fake.requests)

    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)

    assert process.returncode == 143
    assert "still running · beray watch 42" in err.decode()
    assert stops(fake) == 0


def test_cut_connection_is_made_again_and_nothing_is_lost_or_repeated(beray: CommandLine, fake: FakeServer) -> None:
    fake.next_script = [*HELLO_WORLD[:6], Cut(times=2), *HELLO_WORLD[6:9], Cut(), *HELLO_WORLD[9:]]

    ended = beray("run", "print hello world")

    assert ended.status == 0
    assert ended.err.count("connection lost, reconnecting") == 2
    assert ended.err.count("reconnected") == 2
    kept = [line for line in ended.err.splitlines() if "reconnect" not in line]
    assert kept[3:] == [
        "I'll write a small script, run it, and check the output.",
        "✓ write_file hello.py   +1 line · 4 ms",
        "✓ shell python hello.py   exit 0 · 41 ms",
        "  │ hello world",
        "──────────────────────────────────────────────",
        "✓ completed in 7.5 s · 2 steps · 1,834 in / 212 out · $0.0041",
        "  files  hello.py 83 B     beray files get 42 hello.py · beray files zip 42",
    ]


def test_connection_that_does_not_come_back_is_given_up_with_status_7(beray: CommandLine, fake: FakeServer) -> None:
    gate = Gate()
    fake.next_script = [*BEGINNING, gate, Cut(times=1000)]
    process = beray.popen("run", "--retry-for", "700ms", "do it")
    wait_until(lambda: "GET /api/v1/tasks/42/stream" in fake.requests)

    fake.is_down.set()
    gate.set()
    _, err = process.communicate(timeout=30)

    assert process.returncode == 7
    assert re.search(r"✗ The connection has been lost for 0\.\d s", err.decode())
    assert "later: beray watch 42" in err.decode()


def test_task_deleted_by_another_ends_the_watching_as_not_found(beray: CommandLine, fake: FakeServer) -> None:
    gate = Gate()
    fake.add([*BEGINNING, gate, Cut(times=1000)])
    process = beray.popen("watch", "42")
    wait_until(lambda: "GET /api/v1/tasks/42/stream" in fake.requests)

    del fake.tasks[42]
    gate.set()
    process.communicate(timeout=30)

    assert process.returncode == 5


def test_watching_with_a_time_out_leaves_the_task_alone(beray: CommandLine, fake: FakeServer) -> None:
    fake.add([*BEGINNING, Gate()])

    ended = beray("watch", "--timeout", "200ms")

    assert ended.status == 124
    assert "still running · beray watch 42" in ended.err
    assert stops(fake) == 0
