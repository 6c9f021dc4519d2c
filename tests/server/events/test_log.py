"""The event log: numbers without gaps, shown after the commit, written by the current attempt only."""

import asyncio
import json

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError

from beray.server.db.attempts import Attempt
from beray.server.db.connect import Database
from beray.server.db.events import read_all
from beray.server.events.log import EventLog, Fenced, NewEvent, frame_body, frame_seq, is_finished
from beray.server.events.wakeups import Wakeups, wait_changed
from tests.support.databases import committed_together, seeded_database

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


# Appends that are committed together


@pytest.fixture
def savepoints(database):
    """Names of those that are made."""
    made = []
    event.listen(database._write_engine, "savepoint", lambda connection, name: made.append(name))
    return made


def deltas_of(events: list[dict]) -> str:
    return "".join(body["delta"] for body in events)


async def test_appends_committed_together_are_numbered_in_their_order(log, database):
    mine = Attempt(1, 3)

    lasts = await committed_together(
        database,
        log.append(1, [delta("a"), delta("b")], attempt=mine),
        log.append(2, [delta("x")], attempt=mine),
        log.append(1, [delta("c")]),
        log.append(1, [], attempt=mine),
        log.append(1, [delta("d")], attempt=mine),
    )

    assert lasts == [2, 1, 3, 3, 4]
    assert deltas_of(await bodies(log, 1)) == "abcd"
    assert deltas_of(await bodies(log, 2)) == "x"
    assert await log.append(1, [delta("e")]) == 5


async def test_fenced_append_among_others_fails_alone(log, database, savepoints):
    first, stale, gone, last = await committed_together(
        database,
        log.append(1, [delta("a")], attempt=Attempt(1, 3)),
        log.append(1, [delta("stale")], attempt=Attempt(1, 2)),
        log.append(99, [delta("gone")]),
        log.append(1, [delta("b")], attempt=Attempt(1, 3)),
    )

    assert (first, last) == (1, 2)
    assert isinstance(stale, Fenced)
    assert isinstance(gone, Fenced)
    assert savepoints == [], "the others need not be written again"
    assert deltas_of(await bodies(log, 1)) == "ab"


async def test_write_between_appends_keeps_its_place(log, database):
    def end(connection):
        log.insert(connection, 1, [delta("2")])
        connection.execute(text("UPDATE task SET status = 'completed' WHERE id = 1"))

    mine = Attempt(1, 3)
    before, _, after, other = await committed_together(
        database,
        log.append(1, [delta("1")], attempt=mine),
        database.write(end),
        log.append(1, [delta("3")], attempt=mine),
        log.append(2, [delta("x")], attempt=mine),
    )

    assert (before, other) == (1, 1)
    assert isinstance(after, Fenced)
    assert deltas_of(await bodies(log, 1)) == "12"


async def test_append_that_cannot_be_stored_fails_alone(log, database, savepoints):
    """Its number is taken, as if the two tables did not agree; or it is no JSON."""
    taken = text("INSERT INTO event (task_id, seq, frame) VALUES (2, 1, :frame)")
    await database.write(lambda connection: connection.execute(taken, {"frame": b"taken"}) and None)

    first, collides, no_json, last = await committed_together(
        database,
        log.append(1, [delta("a")], attempt=Attempt(1, 3)),
        log.append(2, [delta("424242")]),
        log.append(1, [NewEvent("text.delta", {"delta": object()})]),
        log.append(1, [delta("b")]),
    )

    assert (first, last) == (1, 2)
    assert isinstance(collides, IntegrityError)
    assert "424242" not in str(collides)
    assert "=(2, 1)" not in str(collides)
    assert isinstance(no_json, TypeError)
    assert savepoints
    assert deltas_of(await bodies(log, 1)) == "ab"
    assert await log.append(1, [delta("c")]) == 3


async def test_who_is_told_within_the_transaction_can_undo_one_append(database):
    told = []

    def on_stored(connection, task_id, events):
        assert connection.execute(text("SELECT last_seq FROM task WHERE id = :id"), {"id": task_id}).scalar_one() > 0
        if events[0][1].type == "text.reset":
            raise ValueError("undone")
        told.append((task_id, [seq for seq, _ in events]))

    log = EventLog(database, Wakeups(), lambda: AT, on_stored=on_stored)
    outcomes = await committed_together(
        database, log.append(1, [delta("a")]), log.append(2, [NewEvent("text.reset")]), log.append(1, [delta("b")] * 2)
    )

    assert outcomes[::2] == [1, 3]
    assert isinstance(outcomes[1], ValueError)
    assert told[-2:] == [(1, [1]), (1, [2, 3])]
    assert await log.read_all(2) == []


async def test_frames_are_shown_after_their_commit_in_the_order_of_the_log(log, database):
    """Whoever is told of them could have read them: over a connection of their own they are there."""
    engine = database.make_engine()
    shown: dict[int, list[bytes]] = {1: [], 2: []}

    def deliver(notices):
        with engine.connect() as connection:
            for notice in notices:
                shown[notice.task_id] += notice.frames
                stored = read_all(connection, notice.task_id)
                assert stored[notice.first_seq - 1 :][: len(notice.frames)] == list(notice.frames)

    database.deliver = deliver
    await committed_together(
        database,
        log.append(1, [delta("a"), delta("b")]),
        log.append(2, [delta("x")]),
        log.append(1, [delta("stale")], attempt=Attempt(1, 9)),
        log.append(1, [delta("c")]),
    )
    engine.dispose()

    assert shown == {1: await log.read_all(1), 2: await log.read_all(2)}
    assert len(shown[1]) == 3
