"""What a task may store bounds the file tools too."""

import pytest

from beray.server.agent.models import ModelChoice
from beray.server.sandbox.base import Limits
from beray.server.work_dirs.stored import StoredBytes
from beray.server.work_dirs.task_room import TaskRoom
from beray.server.work_dirs.work_dir import WorkDirs
from tests.support.scripted_model import Reply, call, turns

MIB = 1 << 20


def write(path: str, size: int) -> Reply:
    return Reply(calls=[call("write_file", path=path, content="x" * size)])


@pytest.mark.parametrize(("most", "own"), [(4 * MIB, 5 << 30), (0, 4 * MIB)], ids=["user", "task"])
async def test_a_file_that_has_no_room_is_not_written(bench, scripted, most, own):
    server = scripted(
        turns(write("a", 3 * MIB), write("b", 2 * MIB), write("a", 0), write("b", 2 * MIB), Reply("done"))
    )
    room = TaskRoom(StoredBytes(bench.database, WorkDirs(bench.root / "none"), most=most), 1, 1, 1)
    model = ModelChoice("openai:scripted", "model", base_url=server.base_url, is_own_url=True)

    outcome = await bench.run("go", model=model, room=room, sandbox_limits=Limits(disk_bytes=own))

    assert outcome.result == "done"
    told = [message["content"] for message in server.requests[-1]["messages"] if message["role"] == "tool"]
    assert told[1].startswith("Error: Nothing was written: the task's files take 3 MiB of the 4 MiB they may")
    assert ("the user's other tasks" in told[1]) is bool(most)
    assert [answer.startswith("Wrote") for answer in told] == [True, False, True, True]
    assert (bench.work_dir / "b").stat().st_size == 2 * MIB
