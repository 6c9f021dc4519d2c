"""A disk that a test can fill or make read-only: a tmpfs in a mount namespace that goes with the process holding it."""

import errno
import os
import subprocess
from pathlib import Path
from types import TracebackType

from tests.support.server import ServerProcess

FILLER = "filler"
WAIT_SECONDS = 10


class SmallDisk:
    """The disk, from mounted to gone. Needs root: `needs("tmpfs")`.

    Attributes:
        path: Where it is for what runs `through` it.
        seen_at: The same folder, for the test.
        through: A program to be run by, to see it.
    """

    def __init__(self, path: Path, *, size_bytes: int) -> None:
        path.mkdir()
        mount = f"mount -t tmpfs -o size={size_bytes},mode=711 tmpfs '{path}' && echo mounted && exec cat"
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", mount], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"mounted\n"
        self.path = path
        self.seen_at = Path(f"/proc/{self._holder.pid}/root{path}")
        self.through = ("nsenter", "--mount", "--target", str(self._holder.pid))

    def __enter__(self) -> "SmallDisk":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._holder.communicate(timeout=WAIT_SECONDS)  # the end of its input is its end

    def server(self, **settings: object) -> ServerProcess:
        """A server whose data folder is this disk; to be ended before the disk is. Its log is kept elsewhere."""
        return ServerProcess(self.seen_at, named=self.path, through=self.through, **settings)

    def fill(self) -> None:
        """Take all the room there is."""
        with (self.seen_at / FILLER).open("ab") as file:
            while (left := self._free_bytes()) > 0:
                try:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), left)
                except OSError as error:  # others take from it too
                    if error.errno != errno.ENOSPC:
                        raise

    def make_room(self) -> None:
        """Give back what `fill` took."""
        (self.seen_at / FILLER).unlink()

    def _free_bytes(self) -> int:
        found = os.statvfs(self.seen_at)
        return found.f_bavail * found.f_frsize

    def make_read_only(self) -> None:
        """Let nothing be opened for writing any more; what is open goes on (Linux refuses to cut that off)."""
        self._run("mount", "--bind", str(self.path), str(self.path))
        self._run("mount", "-o", "remount,bind,ro", str(self.path))

    def make_writable(self) -> None:
        """Undo `make_read_only`."""
        self._run("umount", "--lazy", str(self.path))  # lazy: somebody may be reading a folder of it

    def _run(self, *command: str) -> None:
        subprocess.run([*self.through, *command], check=True, timeout=WAIT_SECONDS)
