"""SQL of who works on a shared database: each process says that it lives, by the database's clock only."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text

LEASE_SECONDS = 10  # a process that has not said for so long that it lives is dead
NOW = "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"
LIVES = f"abs(p.beat_at - {NOW}) <= {LEASE_SECONDS * 1000}"
"""SQL: whether the process `p` lives; a beat from the future is from before the clock was set back."""

_BEAT = text(
    "INSERT INTO process (id, role, host, pid, version, started_at, beat_at, about)"  # noqa: S608  # only constants
    f" VALUES (:id, :role, :host, :pid, :version, {NOW}, {NOW}, :about)"  # constants
    f" ON CONFLICT (id) DO UPDATE SET beat_at = {NOW}, about = excluded.about"
)
_LIVING = text(f"SELECT id, role, host, pid, {NOW} - started_at, about FROM process p WHERE {LIVES} ORDER BY id")  # noqa: S608  # only constants
_SHOWN = text(
    f"SELECT id, role, host, pid, version, {NOW} - beat_at AS silent_ms"  # noqa: S608  # only constants
    f" FROM process p WHERE {LIVES} ORDER BY started_at, id"
)
_ADOPT = text("INSERT INTO volume (id, mark) VALUES (1, :mark) ON CONFLICT (id) DO NOTHING")
_LEAVE = text("DELETE FROM process WHERE id = :id")
_HASTE = text("SET LOCAL statement_timeout = '4s'")  # a beat that comes late is worth nothing


@dataclass(frozen=True)
class Process:
    """This process, as the others shall know it; `about` is JSON."""

    id: str
    role: str
    host: str
    pid: int
    version: str


@dataclass(frozen=True)
class Living:
    """A process that lives."""

    id: str
    role: str
    host: str
    pid: int
    age_ms: int
    about: str


@dataclass(frozen=True)
class Beating:
    """A process that lives, as people are shown it: when it has said so last, and what it is."""

    process: Process
    silent_ms: int


def list_beating(connection: Connection) -> Sequence[Beating]:
    """The processes that live, those that began first at the head."""
    return [Beating(Process(*row[:5]), max(0, row.silent_ms)) for row in connection.execute(_SHOWN)]


def beat(connection: Connection, me: Process, about: str) -> Sequence[Living]:
    """Say that this process lives; all that do, this one included."""
    connection.execute(_HASTE)
    connection.execute(_BEAT, {**vars(me), "about": about})
    return [Living(*row) for row in connection.execute(_LIVING)]


def find_volume(connection: Connection) -> str | None:
    """The mark of the folder of work_dirs that belongs to this database; None when none has been used yet."""
    mark: str | None = connection.execute(text("SELECT mark FROM volume")).scalar_one_or_none()
    return mark


def adopt_volume(connection: Connection, mark: str) -> str:
    """Let the folder with that mark belong to this database, unless one does; the mark of the one that does then."""
    connection.execute(_ADOPT, {"mark": mark})
    kept = find_volume(connection)
    assert kept is not None
    return kept


def leave(connection: Connection, process_id: str) -> None:
    """Say that this process ends: what it has left is taken over without waiting for its lease."""
    connection.execute(_HASTE)
    connection.execute(_LEAVE, {"id": process_id})
