"""PostgreSQL: the database that many processes share.

Reads run on a few threads with a connection each (read-only, one snapshot; a look-up is one round trip), writes through
the group-commit thread. A connection that is lost costs its callers a moment, or a 503; it never costs a write, nor
makes one twice.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

import psycopg
from psycopg import errors as pg_errors
from sqlalchemy import URL, Connection, Engine, ExceptionContext, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from beray.server.db.connect import Database, LookUp, Query, Work
from beray.server.db.driver import execute
from beray.server.db.faults import hide_values, refusals
from beray.server.db.listener import Listener
from beray.server.db.notices import Notice, encode
from beray.server.db.processes import NOW
from beray.server.db.writer import ConnectionLost, Store, Writer, unavailable
from beray.server.errors import Refused

T = TypeVar("T")

READERS = 8  # connections (and threads) for reads; a look-up takes 1 ms, so that is some thousands a second
READ_SECONDS = 10.0  # then a request gets 503; what is read takes milliseconds
CONNECT_SECONDS = 5
CHANNEL: Final = "beray"
MARK_OLD_MS: Final = 86_400_000  # what writers left that are gone

# What every connection of ours has. A dead peer is noticed within 10 s, not after the two hours TCP takes by itself.
CONNECT_ARGS: Final[dict[str, Any]] = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # ms
    "application_name": "beray",
}
# Durable whatever the server's default is; a session of ours that hangs lets go of its locks.
SESSION: Final = (
    "SET synchronous_commit = on",
    "SET lock_timeout = '10s'",
    "SET statement_timeout = '30s'",
    "SET idle_in_transaction_session_timeout = '15s'",
)

# How a commit ended is seen by a row that each transaction of a writer changes. Its id would not do: a crash forgets
# ids that were not on disk, the next transactions get them anew, and `pg_xact_status` tells how *those* ended.
_MARK = (
    f"INSERT INTO writer (id, last_group, at) SELECT %s::varchar, %s::bigint, {NOW} WHERE {{}}"
    " ON CONFLICT (id) DO UPDATE SET last_group = excluded.last_group, at = excluded.at RETURNING id"
)
_SEAL = f"WITH mark AS ({_MARK.format('true')}) SELECT pg_notify(%s, %s)"
_SEAL_SILENT = _MARK.format("pg_current_xact_id_if_assigned() IS NOT NULL")
_LAST_GROUP = text("SELECT last_group FROM writer WHERE id = :id")
# One thread writes for all: a lock in one's way must not be in everybody's. Above `deadlock_timeout` (1 s by default),
# so that a deadlock is told as one.
_QUICK = text("SET lock_timeout = '1500ms'")
_SWEEP = text(f"DELETE FROM writer WHERE at < {NOW} - {MARK_OLD_MS}")  # noqa: S608  # only constants
# A session that lost its client without knowing holds its locks, and its transaction is open, until it is ended; one
# that does something is left to do it; one that is idle has ended its transaction, whatever its client has heard.
_FORERUNNERS = text(
    "SELECT CASE WHEN state LIKE 'idle in transaction%' THEN pg_terminate_backend(pid) END FROM pg_stat_activity"
    " WHERE application_name = :name AND datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"
)

log = logging.getLogger("beray.db")


class PostgresDatabase(Database):
    """The server's database on PostgreSQL 13 or later."""

    is_shared = True

    def __init__(self, url: URL) -> None:
        super().__init__(url.set(drivername="postgresql+psycopg"))
        origin = secrets.token_hex(4)
        name = f"beray-writer-{origin}"
        self._write_engine = postgres_engine(self.url, pool_size=1, application_name=name)
        self._read_engine = postgres_engine(self.url, pool_size=READERS, is_read_only=True)
        # One statement is a snapshot by itself: no BEGIN and no ROLLBACK around it, a round trip each. The same pool.
        self._look_up_engine = self._read_engine.execution_options(isolation_level="AUTOCOMMIT")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="beray-db-reader")
        store = _PostgresStore(self._write_engine, origin, name)
        self._writer = Writer(store, lambda notices: self.deliver(notices))
        self._listener = Listener(
            self._listen,
            deliver=lambda notices: self.deliver(notices),
            note_reachable=lambda is_reachable: self.note_reachable(is_reachable),
            origin=origin,
        )

    def make_engine(self) -> Engine:
        """See `Database`."""
        return postgres_engine(self.url, pool_size=1)

    def open(self) -> None:
        """See `Database`."""
        try:
            self._writer.start()
            self._listener.start()
        except (ConnectionLost, psycopg.Error) as error:
            self._writer.stop()
            raise unavailable() from error

    def close(self) -> None:
        """See `Database`."""
        self._listener.stop()
        self._writer.stop()
        self._readers.shutdown(wait=True, cancel_futures=True)
        self._read_engine.dispose()
        self._write_engine.dispose()

    def _listen(self) -> psycopg.Connection[Any]:
        """A connection that gets the channel's notifications."""
        _, options = self._write_engine.dialect.create_connect_args(self.url)  # not as a URL: libpq reads it otherwise
        connection = psycopg.connect(**{**options, **CONNECT_ARGS, "autocommit": True})
        connection.execute(f"LISTEN {CHANNEL}")
        return connection

    async def read(self, query: Query[T]) -> T:
        """See `Queries.read`."""
        return await self._in_thread(lambda: self._read_once(query))

    async def find(self, look_up: LookUp, **values: object) -> Sequence[Any] | None:
        """See `Database`."""
        rows = await self.find_all(look_up, **values)
        return rows[0] if rows else None

    async def find_all(self, look_up: LookUp, **values: object) -> Sequence[Sequence[Any]]:
        """See `Database`. A statement that is asked for often the driver prepares by itself."""
        return await self._in_thread(lambda: self._look_up_once(look_up, values))

    async def _in_thread(self, read: Callable[[], T]) -> T:
        """Read in a thread; a database that says nothing is as good as away."""
        reading = asyncio.get_running_loop().run_in_executor(self._readers, _twice, read)
        try:
            async with asyncio.timeout(
                READ_SECONDS
            ):  # before Python 3.12 `wait_for` can lose its caller's cancellation
                return await reading
        except TimeoutError as error:
            raise unavailable() from error

    async def scan(self, query: Query[T]) -> T:
        """See `Queries.scan`."""
        return await self.read(query)

    def _read_once(self, query: Query[T]) -> T:
        with _losses(), refusals(), self._read_engine.connect() as connection, connection.begin():
            return query(connection)

    def _look_up_once(self, look_up: LookUp, values: dict[str, object]) -> Sequence[Sequence[Any]]:
        with _losses(), refusals(), self._look_up_engine.connect() as connection:
            return connection.exec_driver_sql(look_up.pyformat, values).all()

    async def find_fault(self) -> str | None:
        """See `Database`: as the last write said; if it failed, one that changes nothing is tried."""
        if self._writer.fault is not None:
            with suppress(Refused):
                await self.write(_begin)
        return self._writer.fault

    async def submit(self, work: Work[T], *, is_patient: bool) -> T:
        """See `Database`."""
        return await self._writer.submit(work, is_patient=is_patient)


def _twice(read: Callable[[], T]) -> T:
    try:
        return read()
    except ConnectionLost:  # an idle connection may have died long ago: once more on a new one
        try:
            return read()
        except ConnectionLost as again:
            raise unavailable() from again


@contextmanager
def _losses() -> Iterator[None]:
    """Raise `ConnectionLost` for what a read on a lost connection fails with."""
    try:
        yield
    except (DBAPIError, PoolTimeoutError) as error:
        if isinstance(error, PoolTimeoutError) or is_lost(error):
            raise ConnectionLost from error
        raise


class _PostgresStore(Store):
    def __init__(self, engine: Engine, origin: str, name: str) -> None:
        self._engine = engine
        self._origin = origin
        self._name = name
        self._groups = 0

    def connect(self) -> Connection:
        try:
            connection = self._engine.connect()
            try:
                self._tidy(connection)
            except DBAPIError:
                connection.invalidate()
                connection.close()
                raise
        except (DBAPIError, PoolTimeoutError) as error:
            raise ConnectionLost(str(error)) from error
        return connection

    def _tidy(self, connection: Connection) -> None:
        with connection.begin():
            connection.execute(_QUICK)
            connection.execute(_FORERUNNERS, {"name": self._name})
            connection.execute(_SWEEP)

    def is_lost(self, error: Exception) -> bool:
        if not isinstance(error, DBAPIError):
            return False
        return is_lost(error) or isinstance(error.orig, pg_errors.ReadOnlySqlTransaction)  # a standby by now

    def is_conflict(self, error: Exception) -> bool:
        return isinstance(error, DBAPIError) and isinstance(
            error.orig, pg_errors.DeadlockDetected | pg_errors.SerializationFailure
        )

    def is_blocked(self, error: Exception) -> bool:
        return isinstance(error, DBAPIError) and isinstance(error.orig, pg_errors.LockNotAvailable)

    def has_transaction(self, connection: Connection) -> bool:
        return True  # undoing a job to its savepoint always works, or the connection is lost

    def seal(self, connection: Connection, notices: Sequence[Notice]) -> str | None:
        self._groups += 1
        if notices:
            payload = f"{self._origin} {encode(notices)}"
            execute(connection, _SEAL, (self._origin, self._groups, CHANNEL, payload))
        elif execute(connection, _SEAL_SILENT, (self._origin, self._groups)).fetchone() is None:
            return None
        return str(self._groups)

    def was_committed(self, connection: Connection, mark: str) -> bool | None:
        if connection.execute(_FORERUNNERS, {"name": self._name}).all():
            return None
        return bool(connection.execute(_LAST_GROUP, {"id": self._origin}).scalar() == int(mark))


def _begin(connection: Connection) -> None:
    """As little as shows whether something can be stored: it is marked as any other transaction."""
    connection.execute(text("SELECT pg_current_xact_id()"))


def is_lost(error: DBAPIError) -> bool:
    """Whether the connection is gone, or the server is starting, ending or full."""
    original = error.orig
    if error.connection_invalidated or (
        isinstance(original, psycopg.OperationalError | psycopg.InterfaceError) and original.sqlstate is None
    ):
        return True
    # Class 08: connection exceptions; 57P: operator intervention (shutdown, starting up); 53300: too many connections;
    # 25P03: idle in transaction for too long.
    state = getattr(original, "sqlstate", None) or ""
    return state.startswith(("08", "57P")) or state in {"53300", "25P03"}


def postgres_engine(url: URL, *, pool_size: int, is_read_only: bool = False, application_name: str = "beray") -> Engine:
    """A SQLAlchemy engine on the database, with what every connection of ours must have."""
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args={**CONNECT_ARGS, "application_name": application_name},
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
        pool_use_lifo=True,
        hide_parameters=True,  # addresses, goals and hashes have no business in a logged error
        isolation_level="REPEATABLE READ" if is_read_only else "READ COMMITTED",
    )

    @event.listens_for(engine, "connect")
    def set_session(connection: Any, record: Any) -> None:
        before = connection.autocommit
        connection.autocommit = True
        for statement in SESSION:
            connection.execute(statement)
        connection.autocommit = before
        if is_read_only:
            connection.read_only = True

    @event.listens_for(engine, "handle_error")
    def judge(context: ExceptionContext) -> None:
        original, shown = context.original_exception, context.sqlalchemy_exception
        if not isinstance(original, psycopg.Error) or shown is None:
            return
        if isinstance(original, psycopg.OperationalError | psycopg.InterfaceError) and original.sqlstate is None:
            context.is_disconnect = True  # the engine library waits for a database that is away only if it is told so
        before = original.args
        hide_values(original)
        if original.args != before:
            shown.args = (f"({type(original).__name__}) {original.args[0]}",)

    return engine
