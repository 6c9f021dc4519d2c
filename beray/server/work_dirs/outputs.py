"""Whole outputs of a task's tool calls: one file a call, beside the work_dir and out of its commands' reach.

`CALL.log` holds what a call has printed, from its first byte; `CALL.cut` beside it says that not all of it was kept.
Calls have ids of ours, but one also comes from outside, in an address: nothing else than such an id names a file.
"""

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from beray.server.errors import Refused, shown
from beray.server.work_dirs.confined import OPEN_FOLDER
from beray.server.work_dirs.open_file import LinkRule, OpenFile, open_regular

_CALL_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,100}")
_NO_OUTPUT: Final = (errno.ENOENT, errno.ELOOP)  # no link is followed, whoever has put it there


@dataclass(frozen=True)
class KeptOutput:
    """A call's output, open for reading; close it.

    Attributes:
        file: As far as it has been written.
        is_cut: Whether something is missing from it.
    """

    file: OpenFile
    is_cut: bool

    def close(self) -> None:
        """Close the file; twice is harmless."""
        self.file.close()


class Outputs:
    """The outputs of one task's calls."""

    def __init__(self, folder: Path, task_id: int) -> None:
        self._folder = folder
        self._task_id = task_id

    def open(self, call_id: str) -> KeptOutput:
        """Open what is kept of a call's output. Blocking.

        Raises:
            Refused: `output_not_found`: there is no such call, or it has printed nothing.
        """
        try:
            folder = os.open(self._folder, OPEN_FOLDER)
            try:
                return self._open_in(folder, call_id)
            finally:
                os.close(folder)
        except OSError as error:
            if error.errno not in _NO_OUTPUT:
                raise
            raise self._not_found(call_id) from None

    def _open_in(self, folder: int, call_id: str) -> KeptOutput:
        if not _CALL_ID.fullmatch(call_id):
            raise self._not_found(call_id)
        name = log_name(call_id)
        file = open_regular(name.encode(), folder, rule=LinkRule(os.geteuid(), allows_hard_links=False), path=name)
        try:
            os.stat(cut_name(call_id), dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return KeptOutput(file, is_cut=False)
        except BaseException:
            file.close()
            raise
        return KeptOutput(file, is_cut=True)

    def _not_found(self, call_id: str) -> Refused:
        return Refused("output_not_found", task_id=self._task_id, call_id=shown(call_id))


def log_name(call_id: str) -> str:
    """What the file of a call's output is called.

    Raises:
        ValueError: No call has such an id.
    """
    return _named(call_id, "log")


def cut_name(call_id: str) -> str:
    """What the file is called that says that not all is kept.

    Raises:
        ValueError: As `log_name`.
    """
    return _named(call_id, "cut")


def _named(call_id: str, ending: str) -> str:
    if not _CALL_ID.fullmatch(call_id):
        raise ValueError(f"{call_id!r} is no id of a call")
    return f"{call_id}.{ending}"
