"""`beray admin users`: who there is, and who is an admin; beside running servers."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Final

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from beray.server.admin.roles import demote, promote
from beray.server.admin.views import user_view
from beray.server.beside import CannotWork, operator, reading, unusable
from beray.server.clock import DAY_MS, Clock, system_clock
from beray.server.db import admin as queries
from beray.server.db import auth
from beray.server.db.admin import SeenUser, UserFilter
from beray.server.db.audit import AuditRow
from beray.server.db.open import database_url, make_database
from beray.server.errors import Refused
from beray.server.settings import Settings

PAGE: Final = 500  # users read at once


def list_users(settings: Settings, wanted: UserFilter, *, clock: Clock = system_clock) -> Sequence[dict[str, Any]]:
    """The users that are wanted, newest first, as GET /api/v1/admin/users shows them.

    Raises:
        DatabaseUnusable: There is no database that this version can use.
        SettingError: A setting can't be used.
    """
    with reading(make_database(database_url(settings))) as connection:
        return [user_view(seen) for seen in islice(_every(connection, wanted, clock() // DAY_MS), wanted.limit)]


def _every(connection: Connection, wanted: UserFilter, day: int) -> Iterator[SeenUser]:
    page = queries.list_users(connection, replace(wanted, limit=min(wanted.limit, PAGE)), day)
    yield from page.rows
    while page.next_before is not None:
        page = queries.list_users(connection, replace(wanted, limit=PAGE, before=page.next_before), day)
        yield from page.rows


def set_admin(settings: Settings, email: str, *, is_admin: bool, clock: Clock = system_clock) -> None:
    """Make the user with this address an admin, or no admin any more, be it the last one; servers see it at once.

    Raises:
        CannotWork: There is no such user, or they cannot be an admin.
        DatabaseUnusable: There is no database that this version can use.
        SettingError: A setting can't be used.
    """
    email = email.strip().lower()  # as addresses are kept
    database = make_database(database_url(settings))
    with reading(database):  # nothing is changed in a database of another version
        pass
    action = "admin.promoted" if is_admin else "admin.demoted"
    entry = AuditRow(clock(), action, who=operator(), resource=email)
    engine = database.make_engine()
    try:
        with engine.begin() as connection:
            _change(connection, entry, email, is_admin=is_admin)
    except DBAPIError as error:
        raise unusable(database, error) from error
    except Refused as refused:
        raise CannotWork(refused.detail("en")) from refused
    finally:
        engine.dispose()


def _change(connection: Connection, entry: AuditRow, email: str, *, is_admin: bool) -> None:
    found = auth.find_user(connection, email)
    if found is None:
        raise Refused("user_not_found", user=email)
    if is_admin:
        promote(connection, found[0], entry)
    else:
        demote(connection, found[0], entry, may_be_last=True)
