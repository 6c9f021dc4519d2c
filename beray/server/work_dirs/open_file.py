"""An open regular file of a work_dir, and what identifies its content."""

import os
import stat
from dataclasses import dataclass, field
from types import TracebackType

from beray.server.errors import Refused, shown
from beray.server.work_dirs.confined import OPEN_FILE
from beray.server.work_dirs.paths import invalid_path


@dataclass
class OpenFile:
    """A regular file, open for reading. Close it, or use it in `with`.

    Attributes:
        fd: The descriptor; -1 once closed.
        size: Bytes when it was opened.
        modified_ns: Last change of the content, nanoseconds since the epoch.
        etag: Strong entity tag, quotes included.
    """

    fd: int
    size: int
    modified_ns: int
    etag: str
    mode: int = field(default=0o644)

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end of the file."""
        pieces = []
        while size > 0:
            piece = os.pread(self.fd, size, offset)
            if not piece:
                break
            pieces.append(piece)
            offset += len(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Close the descriptor; twice is harmless."""
        descriptor, self.fd = self.fd, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> "OpenFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class LinkRule:
    """Which hard-linked files may be read.

    A hard link puts a file from elsewhere under a name in the work_dir. Every sandbox that confines files prevents
    that; this is the second line: such a file must at least belong to the task, and where nothing confines files
    (`none`) it is refused.
    """

    uid: int
    allows_hard_links: bool

    def forbids(self, status: os.stat_result) -> bool:
        """Whether the file is shared with a place it may not be shared with."""
        return status.st_nlink > 1 and (not self.allows_hard_links or status.st_uid != self.uid)


def open_regular(name: bytes, folder: int, *, rule: LinkRule, path: str) -> OpenFile:
    """Open the regular file `name` in the open folder; `path` is what an error names.

    Raises:
        Refused: `not_a_file`; `invalid_path` for a forbidden hard link.
        OSError: It can't be opened; ELOOP for a link.
    """
    descriptor = os.open(name, OPEN_FILE, dir_fd=folder)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Refused("not_a_file", path=shown(path))
        if rule.forbids(status):
            raise invalid_path(path, "path_hard_link")
    except BaseException:
        os.close(descriptor)
        raise
    return OpenFile(descriptor, status.st_size, status.st_mtime_ns, etag_of(status), stat.S_IMODE(status.st_mode))


def etag_of(status: os.stat_result) -> str:
    """A strong entity tag: another content has another one, as far as the file system's clock can tell.

    The change time is in it because a program can set the modification time back, but not that one.
    """
    return f'"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}"'
