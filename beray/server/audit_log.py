"""`beray admin audit` and `prune-audit`: read the audit log, and forget what is old of it, beside running servers."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy.exc import DBAPIError

from beray.server.beside import operator, reading, unusable
from beray.server.clock import DAY_MS, Clock, iso, system_clock
from beray.server.db import audit as queries
from beray.server.db.audit import AuditFilter, AuditRow
from beray.server.db.open import database_url, make_database
from beray.server.settings import Settings


def read_audit(settings: Settings, wanted: AuditFilter) -> Sequence[dict[str, Any]]:
    """The entries that are wanted, oldest first, as `id`, `at` (ISO 8601), `action`, `user_id`, `who`, `address`,
    `task_id`, `resource`, `request_id`.

    Raises:
        DatabaseUnusable: There is no database that this version can use.
        SettingError: A setting can't be used.
    """
    if wanted.user is not None and "@" in wanted.user:
        wanted = replace(wanted, user=wanted.user.lower())  # as addresses are kept
    with reading(make_database(database_url(settings))) as connection:
        return [{**row._mapping, "at": iso(row.at)} for row in queries.list_rows(connection, wanted)]


def count_old(settings: Settings, *, days: int, clock: Clock = system_clock) -> int:
    """How many entries are older than `days` days.

    Raises:
        DatabaseUnusable: There is no database that this version can use.
        SettingError: A setting can't be used.
    """
    with reading(make_database(database_url(settings))) as connection:
        return queries.count_old(connection, clock() - days * DAY_MS)


def prune_audit(settings: Settings, *, days: int, clock: Clock = system_clock) -> int:
    """Forget entries older than `days` days, and say so in the log first; how many.

    Raises:
        DatabaseUnusable: There is no database that this version can use.
        SettingError: A setting can't be used.
    """
    found, now = count_old(settings, days=days, clock=clock), clock()
    if found == 0:
        return 0
    database = make_database(database_url(settings))
    said = AuditRow(now, "admin.audit.pruned", who=operator(), resource=f"{found} entries older than {days} days")
    engine, pruned = database.make_engine(), 0
    try:
        with engine.begin() as connection:
            queries.insert_row(connection, said)
        while True:
            with engine.begin() as connection:
                page = queries.prune(connection, now - days * DAY_MS)
            pruned += page
            if page < queries.PRUNE_PAGE:
                return pruned
    except DBAPIError as error:
        raise unusable(database, error) from error
    finally:
        engine.dispose()
