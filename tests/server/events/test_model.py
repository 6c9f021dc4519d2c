"""The event log against a plain list, whatever is done to it in whatever order, by one process and by two."""

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass, field

import orjson
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, insert, text

from beray.server.db.attempts import Attempt
from beray.server.db.connect import Database
from beray.server.db.open import make_database
from beray.server.db.tables import task
from beray.server.events.log import PAGE_BYTES, EventLog, Fenced, NewEvent, Page, frame_seq
from beray.server.events.wakeups import Wakeups, wait_changed
from tests.support.databases import seeded_database
from tests.support.waiting import begun

AT, AT_ISO = 1_800_000_000_123, "2027-01-15T08:00:00.123Z"
LIMITS = settings(
    max_examples=12,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],  # a commit is on disk
)
TEXTS = st.text(max_size=8) | st.sampled_from(["\n\n", "\r", "\u2028", "data: x", "x" * 5000])
BATCHES = st.lists(TEXTS, min_size=1, max_size=4)


async def read_on(log: EventLog, task_id: int, after: int) -> list[bytes]:
    """Page by page to the end."""
    frames: list[bytes] = []
    while True:
        page = await log.read_page(task_id, after=after + len(frames))
        assert page.frames or page.is_last
        assert len(page.frames) == 1 or sum(map(len, page.frames)) <= PAGE_BYTES
        frames += page.frames
        if page.is_last:
            return frames


@dataclass
class Expected:
    """What a task's log must hold."""

    id: int
    attempt: int = 1
    frames: list[bytes] = field(default_factory=list)

    def fence(self, distance: int = 0) -> Attempt:
        """Of its current attempt, or of another."""
        return Attempt(1, self.attempt + distance)

    def add(self, texts: list[str]) -> int:
        for text_ in texts:
            seq = len(self.frames) + 1
            body = {"v": 1, "seq": seq, "at": AT_ISO, "task_id": self.id, "type": "text.delta", **fields(text_)}
            self.frames.append(b"id: %d\nevent: text.delta\ndata: %b\n\n" % (seq, orjson.dumps(body)))
        return len(self.frames)


@dataclass
class Process:
    """A process that has the database open."""

    database: Database
    wakeups: Wakeups = field(default_factory=Wakeups)

    def __post_init__(self) -> None:
        self.database.deliver = self.wakeups.hear
        self.log = EventLog(self.database, self.wakeups, lambda: AT)


def fields(text_: str) -> dict[str, str]:
    return {"message_id": "m", "delta": text_}


def delta(text_: str) -> NewEvent:
    return NewEvent("text.delta", fields(text_))


def deltas(texts: list[str]) -> list[NewEvent]:
    return [delta(text_) for text_ in texts]


class LogMachine(RuleBasedStateMachine):
    """Each step is done by the next process in turn; what it did must be seen by all."""

    runner: asyncio.Runner
    processes: list[Process]
    ids = iter(range(1, 10**6))

    tasks = Bundle("tasks")
    gone = Bundle("gone")

    def __init__(self) -> None:
        super().__init__()
        self.turn = 0
        self.changed: list[Expected] = []

    def run(self, work):
        return self.runner.run(work)

    @property
    def log(self) -> EventLog:
        """Of the process whose turn it is."""
        self.turn += 1
        return self.processes[self.turn % len(self.processes)].log

    def write(self, query) -> None:
        self.turn += 1
        self.run(self.processes[self.turn % len(self.processes)].database.write(query))

    @initialize(target=tasks)
    def begin(self):
        """Most rules need a task: sequences that begin without one would be thrown away by the dozen."""
        return self.make_task()

    @rule(target=tasks)
    def create(self):
        return self.make_task()

    def make_task(self) -> Expected:
        expected = Expected(next(self.ids))
        row = {"user_id": 1, "goal": "g", "usage": "{}", "created_at": 0, "updated_at": 0, "status": "running"}
        self.write(
            lambda connection: connection.execute(insert(task).values(id=expected.id, attempt=1, **row)) and None
        )
        return expected

    @rule(expected=tasks, texts=BATCHES, is_fenced=st.booleans())
    def append(self, expected, texts, is_fenced):
        attempt = expected.fence() if is_fenced else None

        last = self.run(self.log.append(expected.id, deltas(texts), attempt=attempt))

        assert last == expected.add(texts)
        self.changed.append(expected)

    @rule(expected=tasks, texts=BATCHES, distance=st.sampled_from([-1, 1, 7]))
    def append_by_another_attempt(self, expected, texts, distance):
        with pytest.raises(Fenced):
            self.run(self.log.append(expected.id, deltas(texts), attempt=expected.fence(distance)))
        self.changed.append(expected)

    @rule(expected=tasks, texts=BATCHES, run=st.sampled_from([0, 2]))
    def append_by_the_same_attempt_of_another_run(self, expected, texts, run):
        with pytest.raises(Fenced):
            self.run(self.log.append(expected.id, deltas(texts), attempt=Attempt(run, expected.attempt)))
        self.changed.append(expected)

    @rule(expected=tasks, texts=BATCHES)
    def append_with_a_change_that_fails(self, expected, texts):
        def fail(connection):
            connection.execute(text("UPDATE task SET attempt = attempt + 100 WHERE id = :id"), {"id": expected.id})
            raise ValueError("undone")

        with pytest.raises(ValueError, match="undone"):
            self.run(self.log.append(expected.id, deltas(texts), also=fail))
        self.changed.append(expected)

    @rule(expected=tasks, texts=BATCHES)
    def append_and_take_over(self, expected, texts):
        """The attempt is raised in the same transaction: from then on the old one is fenced."""
        take = text("UPDATE task SET attempt = attempt + 1 WHERE id = :id")

        self.run(
            self.log.append(
                expected.id,
                deltas(texts),
                attempt=expected.fence(),
                also=lambda connection: connection.execute(take, {"id": expected.id}) and None,
            )
        )

        expected.attempt += 1
        expected.add(texts)
        self.changed.append(expected)
        with pytest.raises(Fenced):
            self.run(self.log.append(expected.id, deltas(texts), attempt=expected.fence(-1)))

    @rule(
        first=tasks,
        second=tasks,
        batches=st.lists(st.tuples(st.booleans(), BATCHES), min_size=2, max_size=8),
        stale=st.integers(0, 8),
    )
    def append_at_once(self, first, second, batches, stale):
        """Several, from all processes, one of them stale: each batch lies together, where its answer says."""

        async def append_all():
            works = [self.log.append((first if is_first else second).id, deltas(texts)) for is_first, texts in batches]
            works.insert(stale, self.log.append(first.id, [delta("stale")], attempt=first.fence(-1)))
            return await asyncio.gather(*works, return_exceptions=True)

        answers = self.run(append_all())

        assert isinstance(answers.pop(min(stale, len(batches))), Fenced)
        placed = sorted(zip(answers, batches, strict=True), key=lambda pair: pair[0])
        for last, (is_first, texts) in placed:
            assert last == (first if is_first else second).add(texts)
        self.changed += [first, second]

    @rule(target=gone, expected=consumes(tasks), is_hidden=st.booleans())
    def delete(self, expected, is_hidden):
        if is_hidden:
            hide = text("UPDATE task SET deleted_at = 1 WHERE id = :id")
            self.write(lambda connection: connection.execute(hide, {"id": expected.id}) and None)
        else:
            self.write(lambda connection: connection.execute(delete(task).where(task.c.id == expected.id)) and None)
            expected.frames.clear()
        self.changed.append(expected)
        return multiple(expected)

    @rule(expected=gone, texts=BATCHES, is_fenced=st.booleans())
    def append_to_what_is_gone(self, expected, texts, is_fenced):
        with pytest.raises(Fenced):
            self.run(self.log.append(expected.id, deltas(texts), attempt=expected.fence() if is_fenced else None))
        self.changed.append(expected)

    @rule(expected=tasks | gone, after=st.integers(0, 40), count=st.integers(1, 10))
    def read(self, expected, after, count):
        log = self.log

        assert self.run(read_on(log, expected.id, after)) == expected.frames[after:]
        last = self.run(log.read_page(expected.id, after=len(expected.frames)))
        assert last == Page([], is_last=True, tail=expected.frames[-1] if expected.frames else None)
        assert self.run(log.read_tail(expected.id, count)) == expected.frames[-count:]

    @rule(expected=tasks, other=tasks, texts=BATCHES)
    def watch(self, expected, other, texts):
        """Who watches is woken in every process, can read then what was appended, and is left alone otherwise."""
        writer = self.log
        after = len(expected.frames)
        last = expected.add(texts)

        async def follow(log: EventLog) -> list[bytes]:
            with log.watching(expected.id) as changed:
                while not (frames := await read_on(log, expected.id, after)) or frame_seq(frames[-1]) < last:
                    assert await wait_changed(changed, 10), "nobody woke it"
                    changed.clear()
            return frames

        async def follow_all():
            following = await begun(*(follow(process.log) for process in self.processes))
            await writer.append(expected.id, deltas(texts))
            return await asyncio.gather(*following)

        assert self.run(follow_all()) == [expected.frames[after:]] * len(self.processes)
        self.changed.append(expected)

    @invariant()
    def logs_are_as_expected(self):
        """Of the tasks that the step has touched, in the process whose turn is next."""
        for expected in self.changed:
            frames = self.run(self.log.read_all(expected.id))

            assert frames == expected.frames
            assert [frame_seq(frame) for frame in frames] == list(range(1, len(frames) + 1))
        self.changed.clear()


def test_log_is_as_a_list_whatever_is_done(database_url):
    """On PostgreSQL by two processes: two `Database` objects share nothing but the rows."""
    process_count = 1 if database_url.get_backend_name() == "sqlite" else 2

    with asyncio.Runner() as runner, ExitStack() as stack:

        async def open_all() -> list[Process]:
            databases = [stack.enter_context(seeded_database(database_url, 10**6, status="running"))]
            for _ in range(process_count - 1):
                other = make_database(database_url)
                other.open()
                stack.callback(other.close)
                databases.append(other)
            return [Process(database) for database in databases]

        LogMachine.runner = runner
        LogMachine.processes = runner.run(open_all())
        run_state_machine_as_test(LogMachine, settings=LIMITS)
