"""The unfinished part of a download, beside its target: grown piece by piece, found again by a later call.

A part is worth keeping only with the entity tag of the file that it is the beginning of; that stands in a small file
beside it, written while the part is still empty, so that a crash at any point leaves nothing that could be taken for
the beginning of another file. Whoever holds a part's lock owns it. Who finds it taken, or can't lock, works on a part
of their own, which nobody finds again. Blocking throughout.
"""

import errno
import hashlib
import io
import os
import re
import secrets
import stat
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

from beray.transfers.names import shortened

try:
    import fcntl

    CAN_LOCK = True
except ImportError:  # Windows: no part is shared, and a later call begins anew
    CAN_LOCK = False

STRONG_TAG: Final = re.compile(r'"[\x21\x23-\x7e\x80-\xff]*"')
"""An entity tag that two files with different bytes don't share."""

GATHER_BYTES: Final = 1 << 20  # written at once: a thread call for each piece that comes would cost more
HASH_BYTES: Final = 16 << 20  # hashed at once, some 20 ms: a cancelled caller waits no longer
READ_BYTES: Final = 256 << 10

_NAME_BYTES: Final = 200  # of the target's name; the rest of NAME_MAX is for what is added
_ETAG_BYTES: Final = 1024
_FLAGS: Final = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_READ_FLAGS: Final = (
    os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
)
_OUT_OF_ROOM: Final = {errno.ENOSPC, errno.EDQUOT}
_TRIES: Final = 3  # the part may be moved away between its opening and its locking


class PartFile:
    """Bytes `0` to `size` of a file. Close it; made by `open_part`.

    One caller at a time. But who is cancelled on an event loop leaves a thread behind that is still at work here, so
    `close` waits for that: a megabyte to write, or a few to hash.

    Attributes:
        path: Where it is.
        etag: Tag of the file that this is the beginning of; None: it can't be told.
    """

    def __init__(self, path: Path, file: io.FileIO, *, is_found_again: bool) -> None:
        self.path = path
        self.etag: str | None = None
        self._file = file
        self._is_found_again = is_found_again
        self._note = path.with_name(f"{path.name}.etag")
        self._gathered = bytearray()
        self._written = os.fstat(file.fileno()).st_size
        self._hash = hashlib.sha256()
        self._hashed = 0
        self._is_gone = False
        self._is_closed = False
        self._lock = threading.RLock()
        if self._written and is_found_again:
            self.etag = _noted(self._note)
        if self.etag is None:
            self.restart(None)
        else:
            self._written -= 1  # asked for again, so that a range after all that there is never is asked for

    @property
    def size(self) -> int:
        """Bytes that it has, those not yet written included."""
        return self._written + len(self._gathered)

    def restart(self, etag: str | None) -> None:
        """Empty it, to become the file with this tag."""
        with self._lock:
            self._gathered.clear()
            self._file.truncate(0)
            self._written = self._hashed = 0
            self._hash = hashlib.sha256()
            self.etag = etag
            if self._is_found_again:
                self._note.unlink(missing_ok=True)
                self._is_found_again = etag is None or _is_noted(self._note, etag)

    def add(self, data: bytes) -> bool:
        """Take bytes in, without blocking; whether it is time to `flush`."""
        self._gathered += data
        return len(self._gathered) >= GATHER_BYTES

    def flush(self) -> None:
        """Write what was taken in.

        Raises:
            OSError: As usual; a full disk says what is kept.
        """
        with self._lock:
            while self._gathered:
                try:
                    self._file.seek(self._written)  # an interrupted write is made again at its place
                    count = self._file.write(self._gathered)
                except OSError as error:
                    raise self._told(error) from error
                with memoryview(self._gathered) as data:
                    if self._hashed == self._written:
                        self._hash.update(data[:count])
                        self._hashed += count
                self._written += count
                del self._gathered[:count]

    def hash_some(self) -> bool:
        """Hash a bounded number of the bytes not hashed yet; whether all are."""
        with self._lock:
            stop = min(self._hashed + HASH_BYTES, self._written)
            self._file.seek(self._hashed)
            while self._hashed < stop:
                data = self._file.read(min(READ_BYTES, stop - self._hashed))
                if not data:
                    return True  # somebody has cut it: the digest will show it
                self._hash.update(data)
                self._hashed += len(data)
            return self._hashed >= self._written

    @property
    def sha256(self) -> bytes:
        """Digest of what `hash_some` and `flush` have hashed."""
        return self._hash.digest()

    def move_to(self, target: Path, *, can_replace: bool) -> None:
        """Become the target, in one step.

        Raises:
            FileExistsError: It is there, and may not be replaced.
        """
        with self._lock:
            if not CAN_LOCK:
                self._file.close()  # Windows moves no open file
            if can_replace:
                self.path.replace(target)
            else:
                _move_to_free_place(self.path, target)
            self._is_gone = True
            self._note.unlink(missing_ok=True)

    def close(self) -> None:
        """Keep it for a later call if that could use it, else remove it; twice is harmless."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            with suppress(OSError, ValueError):  # ValueError: it is closed already, to be moved
                self.flush()
            is_kept = self._is_found_again and self.etag is not None and self._written > 0
            if not self._is_gone and not is_kept:
                for path in (self.path, self._note):
                    with suppress(OSError):
                        path.unlink(missing_ok=True)
                self._is_gone = True
            self._file.close()

    def __del__(self) -> None:
        if hasattr(self, "_lock"):
            self.close()  # whoever was cancelled while it was being opened has never had it

    def _told(self, error: OSError) -> OSError:
        if error.errno not in _OUT_OF_ROOM:
            return OSError(error.errno, error.strerror, str(self.path))
        is_kept = self._is_found_again and self.etag is not None
        kept = f"; {self._written} bytes are kept here, and the next download goes on after them" if is_kept else ""
        return OSError(error.errno, f"{error.strerror}{kept}", str(self.path))


def open_part(target: Path, source: str | None) -> PartFile:
    """The part of a download to `target`, with what an earlier one left.

    Args:
        target: Where the whole goes; its folder is made.
        source: Names what is downloaded; None: nothing that could be resumed by a later call.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    name = shortened(target.name, _NAME_BYTES)
    if source is not None and CAN_LOCK:
        key = hashlib.sha256(source.encode()).hexdigest()[:12]
        path = target.with_name(f".{name}.{key}.part")
        for _ in range(_TRIES):
            file = _locked(path)
            if file is not None:
                return PartFile(path, file, is_found_again=True)
    path = target.with_name(f".{name}.{secrets.token_hex(6)}.part")
    file = _opened(path, _FLAGS | os.O_EXCL)
    return PartFile(path, file, is_found_again=False)


def _locked(path: Path) -> io.FileIO | None:
    """The file at `path`, if it is ours alone: a plain file that nobody else has open for a download."""
    try:
        file = _opened(path, _FLAGS)
    except OSError:  # a link, a folder, somebody else's
        return None
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(file.fileno())
        is_plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid()
        if is_plain and os.path.samestat(status, path.lstat()):
            return file
    except OSError:  # taken, or a file system without locks; or just moved away
        pass
    file.close()
    return None


def _opened(path: Path, flags: int) -> io.FileIO:
    return io.FileIO(os.open(path, flags, 0o666), "rb" if flags == _READ_FLAGS else "r+b")


def _noted(note: Path) -> str | None:
    """The tag, if it is one and the file was written by us: in a folder of many it would be sent to the server."""
    try:
        with _opened(note, _READ_FLAGS) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or (CAN_LOCK and status.st_uid != os.geteuid()):
                return None
            text = file.read(_ETAG_BYTES + 1).decode("latin-1")
    except OSError:
        return None
    return text if len(text) <= _ETAG_BYTES and STRONG_TAG.fullmatch(text) else None


def _is_noted(note: Path, etag: str) -> bool:
    try:
        with _opened(note, _FLAGS | os.O_EXCL) as file:
            file.write(etag.encode("latin-1"))
    except OSError:
        return False
    return True


def _move_to_free_place(source: Path, target: Path) -> None:
    """Rename without ever replacing; where there are no hard links, as nearly so as can be."""
    try:
        os.link(source, target)
    except FileExistsError:
        raise
    except OSError:
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target)) from None
        source.replace(target)
    else:
        source.unlink()
