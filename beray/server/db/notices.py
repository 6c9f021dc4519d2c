"""What one process tells the others once a transaction is committed: a task's log has grown, a stop is asked for, ...

A query that changes something others wait for says so with `notify`; the database delivers after the commit, to this
process at once and to the others by PostgreSQL's NOTIFY. To another process a notice carries no data: who gets one
looks in the database. In this one a `log` brings the frames that were committed, which spares everybody the look.
A notice can be lost with a connection, hence `EVERYTHING` after a reconnection, and looks now and then.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, NamedTuple

from sqlalchemy import Connection

Kind = Literal["log", "stop", "queue", "webhook", "login", "all"]

_KEY: Final = "beray.notices"
_LETTERS: Final[dict[Kind, str]] = {"log": "l", "stop": "s", "queue": "q", "webhook": "w", "login": "u", "all": "a"}
_KINDS: Final[dict[str, Kind]] = {letter: kind for kind, letter in _LETTERS.items()}
_DIGITS_MOST: Final = 18  # what fits into a task's id
_PAYLOAD_MOST: Final = 7_900  # bytes; PostgreSQL takes payloads below 8000, and the sender's name stands before it


class Notice(NamedTuple):
    """`log`: the task's log has grown, or it is gone. `stop`: its run is to end. `queue`: a run has been submitted.
    `webhook`: a message for a receiver waits. `login`: a session or an API token of a user has ended, or the
    user's role is another.

    `all`: anything may have happened; look everywhere.

    Attributes:
        kind: What has happened.
        task_id: To which task; a `login` has its user's id here.
        first_seq: The number of the first of the `frames`.
        frames: What a `log` has grown by, if that was committed here; in the order of the log.
    """

    kind: Kind
    task_id: int = 0
    first_seq: int = 0
    frames: tuple[bytes, ...] = ()

    @property
    def user_id(self) -> int:
        """Whose `login` it was."""
        return self.task_id


EVERYTHING: Final = Notice("all")

Deliver = Callable[[Sequence[Notice]], None]
"""Gets notices on the event loop."""


def notify(connection: Connection, notice: Notice) -> None:
    """Tell all processes once this transaction has been committed; a rollback drops it."""
    connection.info.setdefault(_KEY, []).append(notice)


def collect(connection: Connection) -> list[Notice]:
    """The notices of the work done since the last call."""
    notices: list[Notice] = connection.info.pop(_KEY, [])
    return notices


def encode(notices: Iterable[Notice]) -> str:
    """A group's notices, each once, as the payload of one NOTIFY."""
    words = dict.fromkeys(f"{_LETTERS[notice.kind]}{notice.task_id}" for notice in notices)
    payload = " ".join(words)
    return payload if len(payload) <= _PAYLOAD_MOST else f"{_LETTERS['all']}0"


def decode(payload: str) -> list[Notice]:
    """The notices of a payload; words of a newer version that this one does not know mean "look everywhere"."""
    return [_decode_word(word) for word in payload.split()]


def _decode_word(word: str) -> Notice:
    kind, number = _KINDS.get(word[0]), word[1:]
    is_known = kind is not None and number.isdecimal() and len(number) <= _DIGITS_MOST
    return Notice(kind, int(number)) if kind is not None and is_known else EVERYTHING
