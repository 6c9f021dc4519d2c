"""The event log: numbers without gaps, shown after the commit, written by the current attempt only."""

import asyncio
import json

import pytest
from sqlalchemy import text

from beray.server.db.attempts import Attempt
from beray.server.db.connect import Database
from beray.server.events.log import EventLog, Fenced, NewEvent, frame_body, frame_seq, is_finished
from beray.server.events.wakeups import Wakeups, wait_changed
from tests.support.databases import seeded_database

AT = 1_800_000_000_123


@pytest.fixture
async def database(database_url):
    with seeded_database(database_url, 1, 2, status="running", attempt=3) as database:
        yield database


@pytest.fixture
def log(database):
    return make_log(database)


def make_log(database: Database) -> EventLog:
    wakeups = Wakeups()
    database.deliver = wakeups.hear
    return EventLog(database, wakeups, lambda: AT)


def delta(text_: str) -> NewEvent:
    return NewEvent("text.delta", {"message_id": "m", "delta": text_})


async def bodies(log: EventLog, task_id: int, after: int = 0) -> list[dict]:
    return [json.loads(frame_body(frame)) for frame in (await log.read_page(task_id, after=after)).frames]


async def test_events_are_numbered_per_task_from_one(log):
    assert await log.append(1, [delta("a"), delta("b")]) == 2
    assert await log.append(2, [delta("x")]) == 1
    assert await log.append(1, [delta("c")]) == 3

    assert await bodies(log, 1) == [
        {
            "v": 1,
            "seq": n,
            "at": "2027-01-15T08:00:00.123Z",
            "task_id": 1,
            "type": "text.delta",
            "message_id": "m",
            "delta": d,
        }
        for n, d in ((1, "a"), (2, "b"), (3, "c"))
    ]
    assert [body["seq"] for body in await bodies(log, 1, after=2)] == [3]


async def test_concurrent_appends_leave_no_gap(log):
    await asyncio.gather(*(log.append(1, [delta(str(n)), delta(str(n))]) for n in range(100)))

    frames = await log.read_all(1)

    assert [frame_seq(frame) for frame in frames] == list(range(1, 201))


async def test_stale_attempt_is_fenced_and_writes_nothing(log):
    await log.append(1, [delta("mine")], attempt=Attempt(1, 3))

    with pytest.raises(Fenced):
        await log.append(1, [delta("stale")], attempt=Attempt(1, 2))

    assert len(await log.read_all(1)) == 1
    assert await log.append(1, [delta("next")], attempt=Attempt(1, 3)) == 2


async def test_ended_task_takes_no_events_of_an_attempt(log, database):
    """Whatever its agent still has to say: nothing comes after `task.finished`."""
    await database.write(lambda connection: connection.execute(text("UPDATE task SET status = 'completed'")) and None)

    with pytest.raises(Fenced):
        await log.append(1, [delta("late")], attempt=Attempt(1, 3))


async def test_deleted_task_takes_no_events(log, database):
    await database.write(lambda connection: connection.execute(text("UPDATE task SET deleted_at = 1")) and None)

    with pytest.raises(Fenced):
        await log.append(1, [delta("late")])


async def test_what_happens_also_is_undone_with_the_events(log):
    def fail(connection):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await log.append(1, [delta("a")], also=fail)

    assert await log.read_all(1) == []
    assert await log.append(1, [delta("b")]) == 1


async def test_watcher_is_woken_after_the_commit(log):
    with log.watching(1) as changed, log.watching(2) as other:
        await log.append(1, [delta("a")])

        assert await wait_changed(changed, 5)
        assert len((await log.read_page(1, after=0)).frames) == 1
        assert not other.is_set()


async def test_commit_between_read_and_wait_is_not_missed(log):
    with log.watching(1) as changed:
        changed.clear()
        assert (await log.read_page(1, after=0)).frames == []
        await log.append(1, [delta("between")])

        assert await wait_changed(changed, 5)


async def test_wait_ends_when_nothing_comes(log):
    with log.watching(1) as changed:
        assert not await wait_changed(changed, 0.01)


async def test_tail_and_last_are_in_order(log):
    await log.append(1, [delta(str(n)) for n in range(10)])
    await log.append(1, [NewEvent("task.finished", {"status": "completed"})])

    assert [frame_seq(frame) for frame in await log.read_tail(1, 3)] == [9, 10, 11]
    [last] = await log.read_tail(1, 1)
    assert is_finished(last)
    assert not is_finished((await log.read_tail(1, 2))[0])
    assert await log.read_tail(99, 1) == []


@pytest.mark.parametrize(
    "odd", ["line\nbreak", "\r\n\r\n", "data: x", "event: task.finished\n", "\u2028", "\x00", "😀"]
)
async def test_hostile_text_stays_one_frame(log, odd):
    await log.append(1, [delta(odd)])

    frame = (await log.read_all(1))[0]

    assert json.loads(frame_body(frame))["delta"] == odd
    assert frame.count(b"\n\n") == 1
    assert not is_finished(frame)
