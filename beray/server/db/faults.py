"""Which errors of a database say that nothing can be stored now, whatever is asked of it: no fault of ours."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NoReturn

from sqlalchemy import URL
from sqlalchemy.exc import DBAPIError

from beray.server.errors import STORAGE_FAULTS, Refused

_SQLITE: Final = {
    sqlite3.SQLITE_FULL: "disk_full",
    sqlite3.SQLITE_IOERR: "database_unavailable",
    sqlite3.SQLITE_READONLY: "database_unavailable",
    sqlite3.SQLITE_CANTOPEN: "database_unavailable",
    sqlite3.SQLITE_BUSY: "database_unavailable",  # after BUSY_TIMEOUT_MS
}
_POSTGRES: Final = {
    "53100": "disk_full",
    "25006": "database_unavailable",  # it only reads: a standby, or by an operator's will
    "55P03": "database_unavailable",  # a lock that was held for too long
    "57014": "database_unavailable",  # a statement that took too long
}


def storage_fault(error: BaseException) -> str | None:
    """Which of `STORAGE_FAULTS` is behind `error`; None: it is another's fault, or ours."""
    cause: BaseException | None = error
    while cause is not None:  # undoing a job may itself fail, and hide why
        code = _fault_of(cause)
        if code is not None:
            return code
        cause = cause.__cause__ or cause.__context__
    return None


def _fault_of(error: BaseException) -> str | None:
    if isinstance(error, Refused):
        return error.code if error.code in STORAGE_FAULTS else None
    if isinstance(error, sqlite3.OperationalError):
        number = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the rest says in which call
        return _SQLITE.get(number)
    return _POSTGRES.get(getattr(error, "sqlstate", None) or "")


def refusal(error: Exception) -> Exception:
    """What the caller gets for `error`: a full or broken disk is not a fault of ours."""
    code = storage_fault(error)
    if code is None or isinstance(error, Refused):
        return error
    refused = Refused(code)
    refused.__cause__ = error
    return refused


def hide_values(error: BaseException) -> None:
    """Take out of a driver's error what may be a user's: it is logged.

    PostgreSQL names the values of a key that is taken in its DETAIL, and one it can't read in its message.
    """
    diag = getattr(error, "diag", None)  # psycopg's, which may not be installed
    if diag is None:
        return
    if any(kind.__name__ == "DataError" for kind in type(error).__mro__):
        error.args = (f"SQLSTATE {getattr(error, 'sqlstate', None)}",)
    elif diag.message_detail:
        error.args = (diag.message_primary,)


def one_line(error: BaseException) -> str:
    """What the database said, for a log: without the statement, and on one line."""
    said = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return " ".join(str(said).split())


def reason(error: BaseException, url: URL) -> str:
    """Why the database at `url` can't be used, for the operator: class, SQLSTATE and the first line it said.

    Whatever that is, the password is not in it.
    """
    said = _driver_error(error)
    if said is None:
        shown = str(error)
    else:
        first = str(said).strip().partition("\n")[0]
        shown = " ".join(filter(None, (type(said).__name__, getattr(said, "sqlstate", None)))) + f": {first}"
    return shown.replace(str(url.password), "***") if url.password else shown


def _driver_error(error: BaseException) -> BaseException | None:
    """What the driver raised, if it is behind `error`."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, DBAPIError):
            return cause.orig
        if hasattr(cause, "sqlstate"):  # psycopg's, which may not be installed
            return cause
        cause = cause.__cause__
    return None


@contextmanager
def refusals() -> Iterator[None]:
    """Raise what a read fails with as what its caller gets."""
    try:
        yield
    except DBAPIError as error:
        raise_refusal(error)


def raise_refusal(error: Exception) -> NoReturn:
    """Raise what a read's caller gets for the `error` it failed with."""
    refused = error if _is_ours(error) else refusal(error)
    if refused is error:
        raise error
    raise refused from error


def _is_ours(error: Exception) -> bool:
    """A read that writes is a fault of ours, not the database's."""
    original = error.orig if isinstance(error, DBAPIError) else error
    return (
        getattr(original, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY
        or getattr(original, "sqlstate", None) == "25006"
    )
