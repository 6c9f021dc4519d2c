"""Hostile commands: attacks 1 to 26, by every sandbox they apply to.

Most are cases of the contract all sandboxes keep (`tests/support/sandbox_cases.py`), which an ordinary user runs too.
Those that attack one part only are beside its other tests: 4, 13 and 21 to 23 in `tests/server/sandbox`.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from beray.client import BeRayClient
from tests.support.run_case import run_case
from tests.support.sandbox_cases import (
    ATTACKS,
    FORK_BOMB,
    MEMORY_BOMB,
    cases_of,
    finish,
    new_marker,
    open_box,
    processes_with,
)
from tests.support.scripted_model import Reply, ScriptedModel, call, turns
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

BACKENDS = ("bubblewrap", "landlock", "container", "none")


def backend_param(name: str, *values: object) -> Any:
    """A row of parameters that is skipped where there is no such sandbox."""
    marks = [] if name == "none" else [pytest.mark.needs(name)]
    return pytest.param(name, *values, id="-".join((name, *map(str, values))), marks=marks)


def attack_of_the_contract(number: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A test of this number's cases, for every sandbox that must pass them."""
    rows = [
        backend_param(backend, name)
        for name, of in ATTACKS.items()
        if of == number
        for backend in BACKENDS
        if name in cases_of(backend)
    ]
    assert rows, number

    def mark(function: Callable[..., Any]) -> Callable[..., Any]:
        return pytest.mark.asyncio(loop_scope="session")(pytest.mark.parametrize(("backend", "name"), rows)(function))

    return mark


@attack_of_the_contract(1)
async def test_attack_01_environments_of_processes_are_out_of_sight(open_once, backend, name):
    await run_case(open_once, backend, name)


@attack_of_the_contract(2)
async def test_attack_02_command_lines_show_no_path_of_this_machine(open_once, backend, name):
    await run_case(open_once, backend, name)


@attack_of_the_contract(3)
async def test_attack_03_a_planted_link_makes_nothing_outside(open_once, backend, name):
    await run_case(open_once, backend, name)


@attack_of_the_contract(5)
async def test_attack_05_nothing_outside_can_be_killed(open_once, backend, name):
    await run_case(open_once, backend, name)


@attack_of_the_contract(6)
async def test_attack_06_files_of_others_are_out_of_reach(open_once, backend, name):
    await run_case(open_once, backend, name)


@attack_of_the_contract(7)
async def test_attack_07_a_fork_bomb_is_stopped(open_once, backend, name):
    await run_case(open_once, backend, name)


@attack_of_the_contract(8)
async def test_attack_08_a_memory_bomb_is_ended(open_once, backend, name):
    await run_case(open_once, backend, name)


@attack_of_the_contract(9)
async def test_attack_09_shared_folders_can_not_be_filled(open_once, backend, name):
    await run_case(open_once, backend, name)


@attack_of_the_contract(10)
async def test_attack_10_a_command_that_fills_the_disk_is_ended(open_once, backend, name):
    await run_case(open_once, backend, name)


@attack_of_the_contract(11)
async def test_attack_11_a_double_fork_leaves_no_process(open_once, backend, name):
    await run_case(open_once, backend, name)


@attack_of_the_contract(12)
async def test_attack_12_processes_that_ignore_sigterm_are_ended(open_once, backend, name):
    await run_case(open_once, backend, name)


@attack_of_the_contract(15)
async def test_attack_15_a_full_count_of_processes_is_nobody_elses(open_once, backend, name):
    await run_case(open_once, backend, name)


@attack_of_the_contract(16)
async def test_attack_16_no_socket_of_this_machine_can_be_reached(open_once, backend, name):
    await run_case(open_once, backend, name)


@attack_of_the_contract(18)
async def test_attack_18_dangerous_system_calls_are_refused(open_once, backend, name):
    await run_case(open_once, backend, name)


@attack_of_the_contract(19)
async def test_attack_19_a_setuid_copy_gains_nothing(open_once, backend, name):
    await run_case(open_once, backend, name)


@attack_of_the_contract(20)
async def test_attack_20_calls_of_another_architecture_are_refused(open_once, backend, name):
    await run_case(open_once, backend, name)


@attack_of_the_contract(25)
async def test_attack_25_a_folder_that_is_a_link_out_or_gone_is_not_entered(open_once, backend, name):
    await run_case(open_once, backend, name)


@attack_of_the_contract(26)
async def test_attack_26_a_planted_configuration_is_ignored(open_once, backend, name):
    await run_case(open_once, backend, name)


@pytest.mark.parametrize("backend", [backend_param(name) for name in BACKENDS])
def test_attack_14_a_command_outlives_the_thread_that_started_it(backend, service_dir):
    """A parent-death signal means the thread, not the process: by it, a worker thread's end would end the command."""
    loop = asyncio.new_event_loop()
    boxes = []

    async def start():
        context = open_box(backend, service_dir / f"thread-{backend}")
        box = await context.__aenter__()
        boxes.append((context, await box.start("sh", "-c", "read line; echo $line")))

    async def end():
        context, process = boxes[0]
        ended = await finish(process)
        await context.__aexit__(None, None, None)
        return ended

    worker = threading.Thread(target=loop.run_until_complete, args=(start(),))
    worker.start()
    worker.join()

    ended = loop.run_until_complete(end())
    loop.close()

    assert ended.exit.reason == "exit"


@pytest.fixture(scope="module")
def confined_server(module_dir) -> Iterator[tuple[ServerProcess, ScriptedModel]]:
    """A server with the strongest sandbox there is, and the model whose script a test sets."""
    with ScriptedModel(turns(Reply("nothing"))) as model:
        server = ServerProcess(
            module_dir,
            sandbox_processes=60,
            sandbox_memory_bytes=1 << 30,
            sandbox_disk_bytes=100 << 20,
            model="openai:scripted",
            model_base_url=model.base_url,
            model_api_key="key",
        )
        yield server.start(), model
        assert server.stop() == 0


def test_attack_07_the_server_answers_beside_a_fork_bomb(confined_server):
    """And the bomb ends with its time, with all it made."""
    server, model = confined_server
    marker = new_marker()
    bomb = f"python3 -I -S -c '{FORK_BOMB}' {marker}"
    model.script = turns(Reply(calls=[call("shell", command=bomb, timeout=5)]), Reply("It went off."))
    with BeRayClient(server.base_url, token=server.register("bomb@example.com"), timeout=10) as client:
        task_id = client.create_task("Light it")["id"]
        wait_until(lambda: len(processes_with(marker)) > 30, what="the bomb going off")
        answered = [client.get_task(task_id)["status"] for _ in range(20)]
        events = list(client.stream_task_updates(task_id))

    assert set(answered) <= {"running", "completed"}
    (ended,) = [event for event in events if event["type"] == "tool.finished"]
    assert (ended["ok"], ended["summary"]) == (False, "killed after 5 s")
    assert events[-1]["type"] == "task.finished"
    assert processes_with(marker) == []


def test_attack_10_the_model_is_told_and_can_make_room(confined_server):
    """After a command that took too much, of memory or disk, the next ones run, even while the folder is over full."""
    server, model = confined_server
    bomb = f"python3 -I -S -c '{MEMORY_BOMB}' 300 many"
    commands = [bomb, "head -c 200000000 /dev/zero > big; sleep 60", "sleep 0.3; ls; rm big", "echo after > file"]
    model.script = turns(*(Reply(calls=[call("shell", command=command)]) for command in commands), Reply("Done."))
    with BeRayClient(server.base_url, token=server.register("full@example.com")) as client:
        task_id = client.create_task("Fill it")["id"]
        events = list(client.stream_task_updates(task_id))
        names = [file["name"] for file in client.list_files_tree(task_id)]

    summaries = [event["summary"] for event in events if event["type"] == "tool.finished"]
    assert summaries == [
        "killed: over 1 GiB of memory",
        "killed: over 100 MiB on disk, or the disk is full",
        "exit code 0",
        "exit code 0",
    ]
    assert names == ["file"]


GIGABYTE = "head -c 1000000000 /dev/zero | tr '\\0' '\\377'; printf '\\033]0;owned\\007\\033[2J'"


def test_attack_24_a_gigabyte_of_output_is_cut_and_held_nowhere(confined_server):
    """No line end, no valid UTF-8, and control sequences of terminals at its end."""
    server, model = confined_server
    loud = turns(Reply(calls=[call("shell", command=GIGABYTE, timeout=60)]), Reply("It was loud."))
    quiet = turns(Reply(calls=[call("shell", command="echo quiet")]), Reply("It was not."))
    with BeRayClient(server.base_url, token=server.register("loud@example.com")) as client:
        model.script = quiet  # the first task of a server loads the library of models
        list(client.stream_task_updates(client.create_task("Be quiet")["id"]))
        before, model.script = peak_memory(server), loud
        task_id = client.create_task("Be loud")["id"]
        events = list(client.stream_task_updates(task_id))
        task = client.get_task(task_id)

    assert task["status"] == "completed"
    shown = sum(len(event.get("delta", "")) for event in events)
    assert shown < 2 << 20
    assert peak_memory(server) - before < 100 << 20
    assert sum(path.stat().st_size for path in server.data_dir.rglob("*") if path.is_file()) < 100 << 20
    told = model.requests[-1]["messages"][-1]["content"]
    assert len(told) < 100_000


def peak_memory(server: ServerProcess) -> int:
    """The most memory the server's process has had, bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024
