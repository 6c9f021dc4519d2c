"""The one thread that writes: it commits whatever waits as one group.

Group commit is what makes a durable commit cheap: the first write of an idle moment is committed at once, those that
come meanwhile together. Over a lost connection a group is neither lost nor made twice: what was not committed is run
again, and where the connection was lost in the commit itself, the database is asked how it ended.

A group is run in units, in the order in which its jobs came. A unit is one query, or neighbouring parts of one batch,
which share their statements: that is how events are cheap. What a batch refuses it refuses alone. A unit that fails
undoes the whole group, which is then run again job by job, each in a savepoint: so only the job at fault fails.
Savepoints from the start would be half of a small write's statements, and a job that fails is rare.
"""

import asyncio
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from itertools import groupby
from typing import Any, TypeVar

from sqlalchemy import Connection

from beray.server.db.connect import Part, RunAgain, Work
from beray.server.db.faults import refusal, storage_fault
from beray.server.db.notices import Deliver, Notice, collect
from beray.server.errors import Refused

T = TypeVar("T")

GROUP_MOST = 256  # jobs committed together at most, so that the first of them isn't kept waiting (perf: 256 rows)
AGAIN_MOST = 10  # times a job is run that loses races (deadlock, serialization); each time somebody else got on
IMPATIENT_SECONDS = 5.0  # an HTTP request waits so long for a database that is away, then 503
UNKNOWN_SECONDS = 30.0  # and so long to learn how a commit ended in which the connection was lost, then 504
RECONNECT_SECONDS = 0.2  # between tries
SILENT_SECONDS = 5.0  # beyond its time a job waits for a writer that is held up by a database that says nothing
CLOSE_SECONDS = 20  # SQLite waits up to 15 s for its lock
RETRY_AFTER_SECONDS = 2  # what a client is told

log = logging.getLogger("beray.db")


class ConnectionLost(Exception):
    """The connection broke or can't be used; nothing was committed, unless it broke in the commit."""


class Store(ABC):
    """What the writer needs to know of a database."""

    @abstractmethod
    def connect(self) -> Connection:
        """A connection to write on.

        Raises:
            ConnectionLost: It can't be had now.
        """

    @abstractmethod
    def is_lost(self, error: Exception) -> bool:
        """Whether the connection is gone."""

    @abstractmethod
    def is_conflict(self, error: Exception) -> bool:
        """Whether running the job once more may succeed (deadlock, serialization)."""

    @abstractmethod
    def is_blocked(self, error: Exception) -> bool:
        """Whether somebody else's lock was in the way for longer than the others can wait."""

    @abstractmethod
    def has_transaction(self, connection: Connection) -> bool:
        """Whether the transaction is still there after an error."""

    @abstractmethod
    def seal(self, connection: Connection, notices: Sequence[Notice]) -> str | None:
        """Last statements of a transaction: send the notices; its mark, by which `was_committed` finds it.

        None: it has changed nothing.
        """

    @abstractmethod
    def was_committed(self, connection: Connection, mark: str) -> bool | None:
        """Whether the transaction with this mark was committed; None: it has not ended yet.

        Asked over another connection than its own.
        """


def unavailable() -> Refused:
    """What a caller gets whose query can't reach the database; nothing was changed."""
    return Refused("database_unavailable", retry_after_seconds=RETRY_AFTER_SECONDS)


class _Job:
    """A write that waits, and where its outcome goes."""

    __slots__ = (
        "deadline",
        "error",
        "future",
        "is_alone",
        "is_blocked",
        "is_over",
        "lost_sight_at",
        "result",
        "tries",
        "watch",
        "work",
    )

    def __init__(self, work: Work[Any], loop: asyncio.AbstractEventLoop, *, is_patient: bool) -> None:
        self.work = work
        self.future: asyncio.Future[Any] = loop.create_future()
        self.deadline = None if is_patient else time.monotonic() + IMPATIENT_SECONDS
        self.watch: asyncio.TimerHandle | None = None  # ends an impatient caller's waiting
        self.result: Any = None
        self.error: Exception | None = None
        self.tries = 0
        self.is_over = False
        self.is_alone = False  # its unit has failed once: it shares none any more, lest it fail others again
        self.is_blocked = False  # by a lock that somebody else holds, so far
        self.lost_sight_at: float | None = None  # when the connection was lost in its commit

    @property
    def is_wanted(self) -> bool:
        return not self.is_over and not self.future.done()

    @property
    def is_late(self) -> bool:
        if self.deadline is None:
            return False
        limit = self.deadline if self.lost_sight_at is None else self.lost_sight_at + UNKNOWN_SECONDS
        return time.monotonic() >= limit

    def begin(self) -> None:
        self.result, self.error, self.is_blocked = None, None, False
        self.tries += 1

    def take(self, outcome: Any) -> None:
        """Note what the batch says of it."""
        if isinstance(outcome, Exception):
            self.error = outcome
        else:
            self.result = outcome

    def refuse(self) -> None:
        self.fail(unavailable())

    def fail(self, error: Exception) -> None:
        self.error = error if self.lost_sight_at is None else Refused("outcome_unknown")

    def settle(self) -> None:
        if self.future.done():  # the caller was cancelled
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Writer:
    """Runs writes on a thread of its own. Its queue is bounded by its callers: each awaits its own job."""

    def __init__(self, store: Store, deliver: Deliver) -> None:
        self._store = store
        self._deliver = deliver
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._is_stopping = False
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        self.fault: str | None = None
        """Why the last commit failed: a code of `STORAGE_FAULTS`."""

    def start(self) -> None:
        """Begin to work.

        Raises:
            Exception: The database can't be reached; here, where it is seen: a dead thread answers nobody.
        """
        self._connection = self._store.connect()
        self._thread = threading.Thread(target=self._work, name="beray-db-writer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Finish what waits (with a database that is away: refuse it), then end."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=CLOSE_SECONDS)

    async def submit(self, work: Work[T], *, is_patient: bool) -> T:
        """The work's result, once it has been committed."""
        loop = asyncio.get_running_loop()
        job = _Job(work, loop, is_patient=is_patient)
        with self._changed:
            if self._is_stopping:
                raise RuntimeError("the database is closed")
            self._jobs.append(job)
            self._changed.notify_all()
        if not is_patient:  # it ends as long as that makes sense, though the database says nothing at all
            job.watch = loop.call_later(IMPATIENT_SECONDS + SILENT_SECONDS, self._lose_patience, job)
        try:
            result: T = await job.future
        finally:
            job.future.cancel()  # a caller who went away, while it waits in the queue
            if job.watch is not None:
                job.watch.cancel()
        return result

    def _lose_patience(self, job: _Job) -> None:
        """Take what has not begun out of the queue; what has is waited for as long as it may take to learn its end."""
        with self._changed:
            has_begun = job not in self._jobs
            if not has_begun:
                self._jobs.remove(job)
        if has_begun:
            job.watch = job.future.get_loop().call_later(UNKNOWN_SECONDS, _end, job, Refused("outcome_unknown"))
        else:
            _end(job, unavailable())

    def _work(self) -> None:
        try:
            while group := self._take():
                self._commit(group)
        finally:
            self._disconnect()

    def _take(self) -> list[_Job]:
        """Everything that waits, up to GROUP_MOST; empty when it is time to stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._is_stopping)
            return [self._jobs.popleft() for _ in range(min(len(self._jobs), GROUP_MOST))]

    def _commit(self, group: list[_Job]) -> None:
        """Bring each job of the group to its end."""
        try:
            self._bring_to_end(group)
            for job in group:  # those that lost a race go on by themselves: together they might lose again
                while job.is_wanted and not job.is_blocked:
                    self._bring_to_end([job])
            self._put_back(job for job in group if job.is_wanted)
        except Exception as error:  # the edge of the thread, which must not end: nobody else answers
            log.exception("writes failed as nobody foresaw")
            self._disconnect()
            left = [job for job in group if not job.is_over]
            for job in left:
                job.fail(error)
            self._settle(left, [])

    def _put_back(self, blocked: Iterable[_Job]) -> None:
        """What somebody else's lock keeps from being done waits behind the others, not before them."""
        blocked = list(blocked)
        with self._changed:
            self._refuse_late(blocked)
            self._jobs.extend(job for job in blocked if job.is_wanted)

    def _bring_to_end(self, group: list[_Job]) -> None:
        is_first = True
        while wanted := [job for job in group if job.is_wanted]:
            try:
                connection = self._connect(wanted)
                if connection is not None:  # which may have taken a while
                    self._attempt(connection, [job for job in wanted if job.is_wanted])
                return
            except ConnectionLost:
                self._disconnect()
            if not is_first:  # the first time it may have died long ago
                self._pause(wanted)
            is_first = False

    def _connect(self, wanted: Sequence[_Job]) -> Connection | None:
        """The connection; None when nobody wants to wait for it any longer."""
        while self._connection is None:
            try:
                self._connection = self._store.connect()
            except ConnectionLost:
                if not self._pause(wanted):
                    return None
        return self._connection

    def _pause(self, wanted: Sequence[_Job]) -> bool:
        """Wait a moment, and refuse whose time is up, in the queue too; whether any of the `wanted` still is."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_stopping, RECONNECT_SECONDS)
            self._refuse_late([*wanted, *self._jobs])
            waiting = [job for job in self._jobs if job.is_wanted]
            self._jobs.clear()
            self._jobs.extend(waiting)
        return any(job.is_wanted for job in wanted)

    def _refuse_late(self, jobs: Iterable[_Job]) -> None:
        for job in jobs:
            if job.is_wanted and (self._is_stopping or job.is_late):
                job.refuse()
                self._settle([job], [])

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.invalidate()
                connection.close()
            except Exception:  # it is gone already
                log.debug("closing a connection failed", exc_info=True)

    def _attempt(self, connection: Connection, group: Sequence[_Job], *, has_savepoints: bool = False) -> None:
        """Run and commit the group once; settle what came to its end.

        Raises:
            ConnectionLost: Nothing was committed.
        """
        mark: str | None = None
        notices: list[Notice] = []
        try:
            with connection.begin():
                for unit in _units(group, is_alone=has_savepoints):
                    notices += self._run(connection, unit, has_savepoint=has_savepoints)
                mark = self._store.seal(connection, notices)
        except Exception as error:
            if self._store.is_lost(error):
                if mark is None or not self._find_out(mark, group):
                    raise ConnectionLost from error
            elif len(group) > 1 and not has_savepoints and any(job.is_alone for job in group):
                self._attempt(connection, [job for job in group if not self._is_blocked(job)], has_savepoints=True)
                return
            else:  # the commit failed (disk full, lock), or the one job: nothing was kept
                self._fail(group, error)
                notices = []
        over = [job for job in group if not self._goes_again(job)]
        faults = (storage_fault(job.error) for job in over if job.error is not None)
        self.fault = next((fault for fault in faults if fault is not None), None)
        self._settle(over, notices)

    def _run(self, connection: Connection, unit: Sequence[_Job], *, has_savepoint: bool) -> list[Notice]:
        """Run a unit; what it tells others."""
        for job in unit:
            job.begin()
        collect(connection)
        try:
            with connection.begin_nested() if has_savepoint else nullcontext():
                _perform(connection, unit)
        except Exception as error:  # belongs to the jobs' callers, who get it from their futures
            if self._store.is_lost(error):
                raise
            for job in unit:
                job.is_alone = True
            if len(unit) == 1:  # of several nobody knows whose fault it is
                unit[0].error = error
            if not has_savepoint or not self._store.has_transaction(connection):
                raise  # the failure undoes the whole group, not only this unit
            return []
        return collect(connection)

    def _fail(self, group: Sequence[_Job], error: Exception) -> None:
        for job in group:
            job.error = job.error or error

    def _goes_again(self, job: _Job) -> bool:
        """Whether the job is to be run again: it lost a race, or met a lock. Otherwise its caller gets its error."""
        error = job.error
        if error is None:
            return False
        if self._is_blocked(job):
            return True
        is_race = isinstance(error, RunAgain) or self._store.is_conflict(error)
        if is_race and job.tries < AGAIN_MOST:
            return True
        job.error = refusal(error)
        return False

    def _is_blocked(self, job: _Job) -> bool:
        job.is_blocked = job.error is not None and self._store.is_blocked(job.error)
        return job.is_blocked

    def _find_out(self, mark: str, group: Sequence[_Job]) -> bool:
        """Whether the transaction whose commit was cut was committed; asked until the database says so."""
        self._disconnect()
        for job in group:
            job.lost_sight_at = time.monotonic()
        while (connection := self._connect(group)) is not None:
            was_committed = self._ask(connection, mark)
            if was_committed is not None:
                for job in group:
                    job.lost_sight_at = None
                return was_committed
            if not self._pause(group):
                break
        return True  # nobody waits for the answer

    def _ask(self, connection: Connection, mark: str) -> bool | None:
        """Whether it was committed, as far as is known now."""
        try:
            with connection.begin():
                return self._store.was_committed(connection, mark)
        except Exception as error:
            if not self._store.is_lost(error):
                raise
            self._disconnect()
            return None

    def _settle(self, jobs: Sequence[_Job], notices: Sequence[Notice]) -> None:
        for job in jobs:
            job.is_over = True
        if not jobs and not notices:
            return
        loop = (jobs[0].future.get_loop()) if jobs else None
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(_finish, list(jobs), list(notices), self._deliver)


def _finish(jobs: list[_Job], notices: list[Notice], deliver: Callable[[Sequence[Notice]], None]) -> None:
    for job in jobs:
        job.settle()
    if notices:
        deliver(notices)


def _end(job: _Job, error: Exception) -> None:
    if not job.future.done():
        job.future.set_exception(error)


def _units(group: Sequence[_Job], *, is_alone: bool) -> Iterator[list[_Job]]:
    """The group's jobs in their order, neighbours that are parts of one batch together."""
    if is_alone:
        yield from ([job] for job in group)
        return
    for _, unit in groupby(group, key=_kind):
        yield list(unit)


def _kind(job: _Job) -> object:
    """What neighbours must have in common to share a unit."""
    return job.work.batch if isinstance(job.work, Part) and not job.is_alone else job


def _perform(connection: Connection, unit: Sequence[_Job]) -> None:
    first = unit[0]
    if not isinstance(first.work, Part):
        first.result = first.work(connection)
        return
    outcomes = first.work.batch(connection, [job.work.item for job in unit if isinstance(job.work, Part)])
    for job, outcome in zip(unit, outcomes, strict=True):
        job.take(outcome)
