"""What a task may store bounds its file tools and commands."""

from dataclasses import replace

import pytest

from beray.server.agent.background import BackgroundProcesses
from beray.server.agent.budget import RunLimits
from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.progress import Progress
from beray.server.agent.tools.output import OutputLog
from beray.server.agent.tools.process import MOST_OVERFILLS, OVER_FILE_BYTES
from beray.server.db.attempts import Attempt
from beray.server.sandbox.base import Exit, Limits
from beray.server.work_dirs.stored import Measured, StoredBytes
from beray.server.work_dirs.task_room import TaskRoom
from beray.server.work_dirs.work_dir import WorkDirs
from tests.support.plain_sandbox import PlainSandbox
from tests.support.scripted_model import Reply, call, results_of, turns
from tests.support.waiting import until

MIB = 1 << 20


def write(path: str, size: int) -> Reply:
    return Reply(calls=[call("write_file", path=path, content="x" * size)])


@pytest.mark.parametrize(("most", "own"), [(4 * MIB, 5 << 30), (0, 4 * MIB)], ids=["user", "task"])
async def test_a_file_that_has_no_room_is_not_written(bench, scripted, most, own):
    server = scripted(
        turns(write("a", 3 * MIB), write("b", 2 * MIB), write("a", 0), write("b", 2 * MIB), Reply("done"))
    )
    room = TaskRoom(StoredBytes(bench.database, WorkDirs(bench.root / "none"), most=most), 1, 1, Attempt(1, 1))
    model = ModelChoice("openai:scripted", "model", base_url=server.base_url, is_own_url=True)

    limits = RunLimits(tokens=None)  # as text of a model 3 MiB are some 850,000
    outcome = await bench.run("go", model=model, room=room, sandbox_limits=Limits(disk_bytes=own), limits=limits)

    assert outcome.result == "done"
    told = [message["content"] for message in server.requests[-1]["messages"] if message["role"] == "tool"]
    assert told[1].startswith("Error: Nothing was written: the task's files take 3 MiB of the 4 MiB they may")
    assert ("the user's other tasks" in told[1]) is bool(most)
    assert [answer.startswith("Wrote") for answer in told] == [True, False, True, True]
    assert (bench.work_dir / "b").stat().st_size == 2 * MIB


async def test_over_its_limit_a_task_may_delete_but_start_nothing_in_the_background(bench, scripted):
    acts = [call("shell", command="true", background=True), call("shell", command="true")]
    server = scripted(turns(*(Reply(calls=[act]) for act in acts), Reply("done")))
    model = ModelChoice("openai:scripted", "model", base_url=server.base_url, is_own_url=True)
    stored = StoredBytes(bench.database, WorkDirs(bench.root / "none"), most=4 * MIB)
    await stored.keep(1, Measured(10 * MIB, None))

    outcome = await bench.run("go", model=model, room=TaskRoom(stored, 1, 1, Attempt(1, 1)))

    assert outcome.result == "done"
    told = [message["content"] for message in server.requests[-1]["messages"] if message["role"] == "tool"]
    assert told[0].startswith("Error: No command was started: the task's files take more than the 4 MiB they may")
    assert told[1].startswith("exit code 0")
    assert [spec.limits.file_bytes for spec in bench.sandbox.started] == [OVER_FILE_BYTES]


class Measuring(PlainSandbox):
    """Tells what the work_dir takes when a command has ended."""

    async def start(self, spec):
        process = await super().start(spec)
        end = process.wait

        async def wait():
            return replace(await end(), disk_bytes=sum(path.stat().st_size for path in spec.work_dir.iterdir()))

        process.wait = wait
        return process


async def test_only_so_many_commands_write_on_when_a_task_is_over_its_limit(bench, scripted):
    commands = [f"head -c 9000000 /dev/zero | split -b 60000 - {number}." for number in range(8)]
    server = scripted(turns(*(Reply(calls=[call("shell", command=each)]) for each in commands), Reply("done")))
    model = ModelChoice("openai:scripted", "model", base_url=server.base_url, is_own_url=True)
    sandbox = Measuring()

    outcome = await bench.run("go", model=model, sandbox=sandbox, sandbox_limits=Limits(disk_bytes=8 * MIB))

    assert outcome.result == "done"
    told = results_of(server.requests[-1])
    assert [answer.startswith("Error: No command was started") for answer in told] == [False] * 4 + [True] * 4
    assert len(sandbox.started) == 1 + MOST_OVERFILLS
    assert sum(path.stat().st_size for path in bench.work_dir.iterdir()) == 4 * 9_000_000


async def test_what_a_background_command_leaves_is_known_when_it_has_ended(tmp_path):
    class Done:
        async def read(self):
            return None

        async def wait(self):
            return Exit(0, "exit", disk_bytes=7 * MIB)

    progress = Progress()
    log = OutputLog(str(tmp_path), "call")

    process = BackgroundProcesses(progress).add(Done(), title="t", output_log=log)

    assert await process.ended_within(10)
    await until(lambda: progress.disk_bytes == 7 * MIB)
