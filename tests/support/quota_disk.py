"""A disk that counts what each user's files hold, and refuses more than a limit: an image mounted for a test."""

import subprocess
from pathlib import Path
from types import TracebackType

BYTES = 320 << 20  # the least XFS takes is 300 MiB; the file has holes
RUN_SECONDS = 30
_MAKE = {"ext4": ("mkfs.ext4", "-q", "-O", "quota"), "xfs": ("mkfs.xfs", "-q")}


class QuotaDisk:
    """From mounted to unmounted. Needs root, a loop device and quotas in the kernel: `needs("quota")`.

    Raises:
        OSError, subprocess.SubprocessError: It can't be had.
    """

    def __init__(self, path: Path, file_system: str) -> None:
        self.path = path
        self._image = path.with_suffix(".img")
        self._file_system = file_system

    def __enter__(self) -> "QuotaDisk":
        self.path.mkdir()
        with self._image.open("wb") as file:
            file.truncate(BYTES)
        _run(*_MAKE[self._file_system], str(self._image))
        _run("mount", "-t", self._file_system, "-o", "loop,usrquota", str(self._image), str(self.path))
        self.path.chmod(0o711)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _run("umount", str(self.path))


def _run(*command: str) -> None:
    ended = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    if ended.returncode != 0:
        raise OSError(ended.stderr.strip()[:200])
