"""One database for everything: our tables and the engine's.

Queries are plain functions of a SQLAlchemy `Connection`, so that several compose in one transaction; a `Database` runs
them. There are two: SQLite for one process (`sqlite.py`), PostgreSQL for many (`postgres.py`). Both write through one
thread, which commits whatever waits as one group (`writer.py`).
"""

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from sqlalchemy import URL, Connection, Engine

from beray.server.db.notices import Deliver
from beray.server.errors import Refused

T = TypeVar("T")
Item = TypeVar("Item")
Query = Callable[[Connection], T]
Batch = Callable[[Connection, Sequence[Item]], Sequence[T | Exception]]
"""Does many like writes with as few statements as one: their results, in their order.

An exception as a result is raised to that write's caller; nothing was changed for it, and the others go on.
"""

_PARAMETER: Final = re.compile(r":([a-z_]+)")

UNAVAILABLE_AGAIN_SECONDS = 0.5  # between a run's tries to read while the database is away


class RunAgain(Exception):
    """Raised by a query that has lost a race against another process: run it once more, it will see who won."""


class Part(NamedTuple, Generic[Item, T]):
    """One of many like writes: it is done in one batch with those that wait beside it."""

    batch: Batch[Item, T]
    item: Item


Work = Query[T] | Part[Any, T]


class LookUp:
    """A short read as prepared text: one statement, which is a snapshot by itself and needs no transaction.

    Args:
        sql: The statement; parameters are `:name`, and neither `:` nor `%` stands in it otherwise.
    """

    def __init__(self, sql: str) -> None:
        self.sql = sql
        self.pyformat = _PARAMETER.sub(r"%(\1)s", sql)


class Queries(Protocol):
    """Runs queries."""

    @property
    def reads_inline(self) -> bool:
        """Whether a short read is done at once, so that nothing comes between it and what follows."""
        ...

    async def read(self, query: Query[T]) -> T:
        """Run a short read (point look-ups, small pages) on one snapshot.

        Raises:
            Refused: `database_unavailable`; `scan` too.
        """
        ...

    async def scan(self, query: Query[T]) -> T:
        """Run a read that may take long, on one snapshot."""
        ...

    async def find_all(self, look_up: LookUp, **values: object) -> Sequence[Sequence[Any]]:
        """See `Database.find_all`."""
        ...

    async def write(self, query: Query[T]) -> T:
        """Run `query` in a transaction; its result is returned once it has been committed.

        The query may be run more than once (of all but the last nothing is kept), so it does nothing but SQL. An
        exception from it undoes only its own changes and is raised here. A caller that is cancelled does not undo a
        write that has begun.

        Raises:
            Refused: `disk_full`: there is no room to commit. `database_unavailable`: it can't be reached, or not be
                written for another reason. Nothing was changed. `outcome_unknown`: it was lost in the commit, and did
                not come back.
        """
        ...

    async def write_part(self, part: Part[Any, T]) -> T:
        """Like `write`, for writes of which there are very many.

        The batch is run with all parts of it that wait and have no other write between them, and with one part alone
        when it has failed for several: it does nothing but SQL, too.
        """
        ...


class Database(ABC):
    """The server's database. Open with `open`, close with `close`; a schema must be there (`migrate.upgrade`).

    Attributes:
        url: Where it is.
        is_shared: Whether other processes use it too.
        deliver: Gets the notices of what was committed here, or elsewhere; called on the loop that opened it.
        note_reachable: Told when a shared database can't be reached, and when it can again; called likewise.
    """

    is_shared: bool

    def __init__(self, url: URL) -> None:
        self.url = url
        self.deliver: Deliver = lambda notices: None
        self.note_reachable: Callable[[bool], None] = lambda is_reachable: None

    @property
    def reads_inline(self) -> bool:
        """See `Queries.reads_inline`."""
        return not self.is_shared

    @abstractmethod
    def make_engine(self) -> Engine:
        """An engine of the caller's own, for migrations and programs."""

    @abstractmethod
    def open(self) -> None:
        """Connect; called on the event loop that will use it."""

    @abstractmethod
    def close(self) -> None:
        """Finish the writes that wait, then disconnect. Blocks."""

    @abstractmethod
    async def read(self, query: Query[T]) -> T:
        """See `Queries.read`."""

    @abstractmethod
    async def scan(self, query: Query[T]) -> T:
        """See `Queries.scan`."""

    @abstractmethod
    async def find(self, look_up: LookUp, **values: object) -> Sequence[Any] | None:
        """The row of a look-up that gives one at most.

        The cheapest read there is: on SQLite a few microseconds inline, on PostgreSQL one round trip. Columns are as
        the driver gives them: what is a Boolean is 0 or 1 on SQLite.

        Raises:
            Refused: `database_unavailable`; `find_all` too.
        """

    @abstractmethod
    async def find_all(self, look_up: LookUp, **values: object) -> Sequence[Sequence[Any]]:
        """Every row of a look-up that gives few. See `find`."""

    @abstractmethod
    async def submit(self, work: Work[T], *, is_patient: bool) -> T:
        """`write` or `write_part`, for a caller that waits however long the database is away, or not."""

    @abstractmethod
    async def find_fault(self) -> str | None:
        """Why nothing can be stored now: a code of `STORAGE_FAULTS`; None if all is well, as far as is known."""

    async def write(self, query: Query[T]) -> T:
        """See `Queries.write`."""
        return await self.submit(query, is_patient=False)

    async def write_part(self, part: Part[Any, T]) -> T:
        """See `Queries.write_part`."""
        return await self.submit(part, is_patient=False)

    @property
    def patient(self) -> Queries:
        """The same database for whoever can wait until it is there: a run goes on when it is back."""
        return _Patient(self)


class _Patient:
    """Never refuses because the database is away; waits. Its callers are cancelled when waiting makes no sense."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.reads_inline = database.reads_inline

    async def read(self, query: Query[T]) -> T:
        return await _until_available(lambda: self._database.read(query))

    async def scan(self, query: Query[T]) -> T:
        return await _until_available(lambda: self._database.scan(query))

    async def find_all(self, look_up: LookUp, **values: object) -> Sequence[Sequence[Any]]:
        return await _until_available(lambda: self._database.find_all(look_up, **values))

    async def write(self, query: Query[T]) -> T:
        # It may be refused all the same, by a lock that was held for too long: nothing was changed then.
        return await _until_available(lambda: self._database.submit(query, is_patient=True))

    async def write_part(self, part: Part[Any, T]) -> T:
        return await _until_available(lambda: self._database.submit(part, is_patient=True))


async def _until_available(work: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await work()
        except Refused as refused:
            if refused.code != "database_unavailable":
                raise
        await asyncio.sleep(UNAVAILABLE_AGAIN_SECONDS)
