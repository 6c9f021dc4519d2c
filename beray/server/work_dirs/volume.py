"""Whether all processes see the same work_dirs: each writes a file of its own there, and looks for the others'."""

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

FOLDER: Final = ".processes"
OLD_SECONDS: Final = 86_400  # what processes left that were killed


class Volume:
    """The folder of the work_dirs, as one of several processes sees it. All of it blocks."""

    def __init__(self, root: Path, process_id: str) -> None:
        self._folder = root / FOLDER
        self._own = self._folder / process_id

    def join(self) -> None:
        """Write this process' file.

        Raises:
            OSError: The folder can't be written.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o711)
        self._own.write_text(f"{os.getpid()}\n")

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


def unseen(folder: Path, process_ids: Iterable[str]) -> list[str]:
    """Those of the processes that have no file in a `FOLDER`. Only looks.

    Raises:
        OSError: The folder can't be read.
    """
    names = set(os.listdir(folder))  # noqa: PTH208  # names only; a listing is fresh where a look-up of one name may come from a cache (NFS)
    return sorted(set(process_ids) - names)
