"""Whether a folder of work_dirs is the right one, and whether all processes see the same.

The folder carries a mark that the database knows: another folder, or an empty one where a volume is not mounted, is
told before a task runs in it. A copy of the folder carries the mark too; so each process also writes a file of its own
there, and looks for the others'.
"""

import contextlib
import os
import secrets
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

FOLDER: Final = ".processes"
MARK_FILE: Final = ".volume"
MARK_BYTES: Final = 32
OLD_SECONDS: Final = 86_400  # what processes left that were killed


class Volume:
    """The folder of the work_dirs, as one of several processes sees it. All of it blocks."""

    def __init__(self, root: Path, process_id: str) -> None:
        self._root = root
        self._folder = root / FOLDER
        self._own = self._folder / process_id

    def join(self) -> None:
        """Write this process' file.

        Raises:
            OSError: The folder can't be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        self._own.write_text(f"{os.getpid()}\n")

    def mark(self) -> str:
        """The folder's mark; one that has none gets it.

        Raises:
            OSError: The folder can't be used.
        """
        while (mark := read_mark(self._root)) is None:
            staged = self._own.with_suffix(".mark")
            staged.write_text(secrets.token_hex(MARK_BYTES // 2))
            with contextlib.suppress(FileExistsError):  # another process was first
                os.link(staged, self._root / MARK_FILE)
            staged.unlink()
        return mark

    def has_mark(self, mark: str) -> bool:
        """This is the folder with that mark.

        Raises:
            OSError: The folder can't be read.
        """
        return read_mark(self._root) == mark

    def leave(self) -> None:
        """Remove this process' file."""
        with contextlib.suppress(OSError):
            self._own.unlink()

    def missing(self, process_ids: Iterable[str]) -> list[str]:
        """Those of the processes whose file can't be seen here: they use another folder. Keeps the own file young.

        Raises:
            OSError: The folder can't be used.
        """
        self._own.touch()
        return unseen(self._folder, process_ids)

    def sweep(self) -> None:
        """Remove what killed processes have left long ago."""
        old = time.time() - OLD_SECONDS  # noqa: TID251  # compared with the files' own times
        with contextlib.suppress(OSError):
            for path in self._folder.iterdir():
                if path.stat().st_mtime < old:
                    path.unlink(missing_ok=True)


def read_mark(root: Path) -> str | None:
    """The mark of a folder of work_dirs; None when it has none. Only looks.

    Raises:
        OSError: The folder can't be read.
    """
    try:
        with (root / MARK_FILE).open("rb") as file:
            return file.read(MARK_BYTES).decode("ascii", errors="replace")
    except FileNotFoundError:
        root.stat()  # the folder itself may be what is missing
        return None


def unseen(folder: Path, process_ids: Iterable[str]) -> list[str]:
    """Those of the processes that have no file in a `FOLDER`. Only looks.

    Raises:
        OSError: The folder can't be read.
    """
    names = set(os.listdir(folder))  # noqa: PTH208  # names only; a listing is fresh where a look-up of one name may come from a cache (NFS)
    return sorted(set(process_ids) - names)
