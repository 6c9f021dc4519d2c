"""The audit log: who did what, when, from where, and to which task or file.

What is done in a transaction is told in it (`row`, then `db.audit.insert_row`): neither is there without the other.
What is not in one (a file that was written, a look at somebody else's task) is put down and written by a job of its own
(`note`), so that nobody waits for it. An entry holds no token, code, password, goal or content.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import partial
from typing import Final, Literal, get_args

from sqlalchemy import Connection

from beray.server.clock import Clock
from beray.server.db import audit as queries
from beray.server.db.audit import AuditRow
from beray.server.db.auth import UserRow
from beray.server.db.connect import Database
from beray.server.db.tables import ID_MOST
from beray.server.errors import Refused

Action = Literal[
    "code.requested",
    "code.refused",
    "register",
    "register.failed",
    "login",
    "login.failed",
    "logout",
    "session.ended",
    "password.reset",
    "password.reset.failed",
    "password.changed",
    "password.change.failed",
    "token.created",
    "token.deleted",
    "account.deleted",
    "account.delete.failed",
    "rate.refused",
    "webhook.changed",
    "webhook.secret",
    "task.created",
    "task.started",
    "task.message",
    "task.stopped",
    "task.deleted",
    "task.foreign",
    "file.written",
    "file.deleted",
    "admin.purge",
    "admin.audit.pruned",
    "admin.promoted",
    "admin.demoted",
    "admin.task.stopped",
    "audit.lost",
]
ACTIONS: Final[tuple[str, ...]] = get_args(Action)

RESOURCE_MOST: Final = 1000  # characters; a path may have 4096, and what an entry is about is told by its beginning
WAITING_MOST: Final = 10_000  # entries put down while the database is away, 1 MB or so; then the oldest are lost
GROUP_MOST: Final = 500  # entries of one write, so that it keeps no other waiting
FOREIGN_MOST: Final = 60  # a minute and user: who tries all ids must not fill the disk with the tale of it
MINUTE_MS: Final = 60_000
AGAIN_SECONDS: Final = 1.0  # between tries while nothing can be stored
CLOSE_SECONDS: Final = 3.0

log = logging.getLogger("beray.audit")


class Caller:
    """Who makes the request that is being answered; the user is known once it has been authenticated."""

    def __init__(self, request_id: str, find_address: Callable[[], str], user_agent: bytes | None = None) -> None:
        self.request_id = request_id
        self.user_agent = user_agent
        self.user: UserRow | None = None
        self._find_address = find_address

    @property
    def address(self) -> str:
        """Where from: looked up when it is needed, since most requests leave no entry."""
        return self._find_address()


current_caller: ContextVar[Caller | None] = ContextVar("current_caller", default=None)
"""Set at the edge."""


class AuditTrail:
    """Writes the log. `run` is the job that writes what was put down; `close` when it has ended."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._waiting: deque[tuple[AuditRow, bool]] = deque()
        self._has_some = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._lost = 0
        self._minute = 0
        self._foreign: Counter[int] = Counter()

    def row(
        self,
        action: Action,
        *,
        user: UserRow | None = None,
        who: str | None = None,
        task_id: int | None = None,
        resource: str | None = None,
    ) -> AuditRow:
        """An entry about the request that is being answered; call it in the request's own task, not in a query.

        Args:
            action: What was done.
            user: Who did it; default: who is logged in.
            who: An address that was tried, where there is no user.
            task_id: The task it was done to.
            resource: What else it was done to, such as a path.
        """
        caller = current_caller.get()
        user = user or (None if caller is None else caller.user)
        return AuditRow(
            at=self._clock(),
            action=action,
            user_id=None if user is None else user.id,
            who=who if user is None else user.email,
            address=None if caller is None else caller.address,
            task_id=task_id,
            resource=None if resource is None else resource[:RESOURCE_MOST],
            request_id=None if caller is None else caller.request_id,
        )

    def note(self, row: AuditRow) -> None:
        """Put an entry down, to be written soon."""
        self._put(row, is_if_foreign=False)

    def note_missing(self, task_id: int) -> None:
        """The user asked for a task that is not theirs: an entry, if it is somebody else's.

        That is looked up later and beside the request: it takes as long for a task that is not there.
        """
        caller = current_caller.get()
        if caller is None or caller.user is None or not 0 < task_id <= ID_MOST:
            return
        if not self._has_quota(caller.user.id):
            return
        self._put(self.row("task.foreign", task_id=task_id), is_if_foreign=True)

    def _has_quota(self, user_id: int) -> bool:
        minute = self._clock() // MINUTE_MS
        if minute != self._minute:
            self._minute = minute
            self._foreign.clear()
        self._foreign[user_id] += 1
        return self._foreign[user_id] <= FOREIGN_MOST

    def _put(self, row: AuditRow, *, is_if_foreign: bool) -> None:
        if len(self._waiting) >= WAITING_MOST:
            self._waiting.popleft()
            self._lost += 1
        self._waiting.append((row, is_if_foreign))
        self._has_some.set()

    async def run(self) -> None:
        """Write what is put down, until cancelled."""
        while True:
            await self._has_some.wait()
            try:
                self._writing = asyncio.create_task(self._write_waiting())
                await asyncio.shield(self._writing)  # when this is cancelled, `close` waits for it
            except Refused as refused:  # it stays put down
                log.warning("audit entries wait for the database: %s", refused.code)
                await asyncio.sleep(AGAIN_SECONDS)

    async def close(self) -> None:
        """Write what is left; call it once `run` has been cancelled, before the database is closed."""
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                if self._writing is not None:
                    await asyncio.wait({self._writing})
                await self._write_waiting()
        except (Refused, TimeoutError):
            log.error("audit entries lost at the end: %s", len(self._waiting) + self._lost)

    async def _write_waiting(self) -> None:
        while self._waiting:
            group = [self._waiting.popleft() for _ in range(min(len(self._waiting), GROUP_MOST))]
            lost, self._lost = self._lost, 0
            try:
                await self._database.write(partial(self._insert, group=group, lost=lost))
            except Exception as error:
                self._lost += lost
                if isinstance(error, Refused):
                    self._waiting.extendleft(reversed(group))
                    raise
                log.exception("audit entries could not be written")  # and would not be at the next try
                self._lost += len(group)
        self._has_some.clear()

    def _insert(self, connection: Connection, group: Sequence[tuple[AuditRow, bool]], lost: int) -> None:
        if lost:
            queries.insert_row(connection, AuditRow(self._clock(), "audit.lost", resource=f"{lost} entries"))
        for row, is_if_foreign in group:
            if is_if_foreign:
                queries.insert_if_foreign(connection, row)
            else:
                queries.insert_row(connection, row)
