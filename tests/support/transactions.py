"""Two transactions at once on PostgreSQL: one that is open, and one that waits for it."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Connection, Engine, text

from tests.support.waiting import wait_until

T = TypeVar("T")


@contextmanager
def open_transaction(engine: Engine, work: Callable[[Connection], T]) -> Iterator[T]:
    """What `work` gives; its transaction is committed when the block ends."""
    with engine.connect() as connection, connection.begin():
        yield work(connection)


def in_another(threads: ThreadPoolExecutor, engine: Engine, work: Callable[[Connection], T]) -> "Future[T]":
    """`work` in a transaction of its own, which waits for the one that is open."""

    def run() -> T:
        with engine.begin() as connection:
            return work(connection)

    running = threads.submit(run)
    wait_until(lambda: running.done() or waits(engine), what="the other transaction to wait")
    assert not running.done(), "nothing kept it"
    return running


def waits(engine: Engine) -> bool:
    with engine.connect() as connection:
        return bool(connection.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar())
