"""Unpack a ZIP archive that nobody vouches for: all of it or nothing, and never outside the chosen folder.

What is in an archive was made by a model or its commands, or by whoever stands between. So every entry is judged before
the first byte is written, by what other systems make of a name as well; the bounds count bytes that were really
unpacked, since a header can say anything; and the result comes into being in a fresh folder beside its place, to which
it is moved when it is whole. That folder is ours alone, so no link waits in it.
"""

import errno
import os
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Final, cast

from beray.exceptions import ArchiveRefused
from beray.transfers.names import flaw_of, folded

MAX_BYTES: Final = 4 << 30
MAX_ENTRIES: Final = 100_000
MAX_RATIO: Final = 250  # what BeRay packs, even nothing but zeros, unpacks to 230 times its size (deflate, level 1)

_RATIO_FREE_BYTES: Final = 64 << 20  # less than this is no bomb, however well it is packed
_CHUNK_BYTES: Final = 256 << 10
_LOCAL_HEADER_BYTES: Final = 30
_DIRECTORY_SIGNATURE: Final = b"PK\x01\x02"
_DIRECTORY_ENTRY_BYTES: Final = 1024  # generous: 46 and the name and, with 64-bit sizes, 28 more
_TAIL_BYTES: Final = 128 << 10  # `zipfile` looks for the end record in the last 64 KiB
_METHODS: Final = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # others unpack to far more, or need far more memory
_ENCRYPTED: Final = 0x1 | 0x40 | 0x2000
_REPARSE_POINT: Final = 0x400  # a link of Windows

_DAMAGE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,  # what `zipfile` raises for a method it does not know
    OverflowError,
    ValueError,
)


def extract_zip_safely(
    archive: str | os.PathLike[str] | BinaryIO,
    target_dir: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    max_bytes: int = MAX_BYTES,
    max_entries: int = MAX_ENTRIES,
    max_ratio: float = MAX_RATIO,
) -> list[Path]:
    """Unpack a ZIP archive below `target_dir`: all of it, or nothing if anything in it could do harm.

    Refused are: names that lead out (absolute, `..`, backslashes, drives) or hold control characters, on Windows also
    names of devices; links and special files; names that are given twice, also when they differ by case alone; entries
    that share bytes; encrypted entries; methods other than stored and deflated; more than the bounds allow, by what was
    really unpacked. An existing folder is added to: files there are kept unless `overwrite`, and links are never
    written through or replaced. Nobody else may change `target_dir` meanwhile.

    Files and folders get the usual permissions of new ones; the archive's permissions and times are left.

    Args:
        archive: Path of the archive, or an open binary file that can seek, such as `io.BytesIO(response.content)`;
            it stays open.
        target_dir: Folder to unpack into; it and its parents are made.
        overwrite: Replace regular files that are there already.
        max_bytes: Most bytes of all files together, unpacked.
        max_entries: Most files and folders.
        max_ratio: Most bytes unpacked for each byte of the archive; counts from 64 MiB on.

    Returns:
        The files that were written, in the archive's order, as absolute paths.

    Raises:
        ArchiveRefused: `reason` and `entry` tell why; nothing was written.
        OSError: The archive can't be read, or the folder can't be written; new files are taken back.
    """
    bounds = _Bounds(max_bytes, max_entries, max_ratio)
    target = Path(target_dir).resolve()
    if target.exists() and not target.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "The place to unpack to is no folder", str(target))
    with _opened(archive) as file:
        reader = _Reader(file, bounds)
        with _damage_is_told(), zipfile.ZipFile(cast("BinaryIO", reader)) as opened:
            reader.is_directory_read = True
            entries = _judged(opened, reader.size, bounds)
            with _staged(target) as staged:
                _unpack(opened, entries, staged, _Meter(bounds, reader.size))
                _put_in_place(staged, target, overwrite=overwrite)
    return [target.joinpath(*entry.parts) for entry in entries if not entry.is_folder]


@dataclass(frozen=True)
class _Bounds:
    max_bytes: int
    max_entries: int
    max_ratio: float

    def refuse_count(self) -> ArchiveRefused:
        return ArchiveRefused(f"It has more than {self.max_entries} entries (max_entries).", reason="too_many_entries")

    def refuse_size(self) -> ArchiveRefused:
        return ArchiveRefused(f"It unpacks to more than {self.max_bytes} bytes (max_bytes).", reason="too_large")


@dataclass(frozen=True)
class _Entry:
    info: zipfile.ZipInfo
    parts: tuple[str, ...]
    is_folder: bool

    @property
    def path(self) -> str:
        return "/".join(self.parts)


class _Meter:
    """Counts what is unpacked."""

    def __init__(self, bounds: _Bounds, archive_bytes: int) -> None:
        self._bounds = bounds
        self._ratio_bytes = max(_RATIO_FREE_BYTES, bounds.max_ratio * archive_bytes)
        self._bytes = 0

    def add(self, size: int, entry: _Entry) -> None:
        self._bytes += size
        if self._bytes > self._bounds.max_bytes:
            raise self._bounds.refuse_size()
        if self._bytes > self._ratio_bytes:
            what = f"unpacks to more than {self._bounds.max_ratio:g} times the size of the archive (max_ratio)"
            raise _refused(entry.path, what, "ratio")


class _Reader:
    """The archive as `zipfile` reads it.

    `zipfile` makes an object of each entry of the directory and only then says how many there are; ten million would
    have filled the memory by then. So they are counted in the bytes that it reads.
    """

    def __init__(self, file: BinaryIO, bounds: _Bounds) -> None:
        self._file = file
        self._bounds = bounds
        self._directory_bytes = max(bounds.max_entries * _DIRECTORY_ENTRY_BYTES, _TAIL_BYTES)
        self.is_directory_read = False
        self.size = file.seek(0, os.SEEK_END)

    def read(self, size: int = -1) -> bytes:
        if self.is_directory_read:
            return self._file.read(size)
        if size > self._directory_bytes:
            raise self._bounds.refuse_count()
        data = self._file.read(size if size >= 0 else self._directory_bytes)
        if data.startswith(_DIRECTORY_SIGNATURE) and data.count(_DIRECTORY_SIGNATURE) > self._bounds.max_entries:
            raise self._bounds.refuse_count()
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_SET and offset < 0:
            raise zipfile.BadZipFile("it points before its own beginning")
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


@contextmanager
def _opened(archive: str | os.PathLike[str] | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(archive, str | os.PathLike):
        with Path(archive).open("rb") as file:
            yield file
    elif archive.seekable():
        yield archive
    else:
        raise ValueError("An archive must be a file that can seek; save a stream to a file first.")


@contextmanager
def _damage_is_told() -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise ArchiveRefused(f"It is damaged, or no ZIP: {error}", reason="damaged") from error


def _refused(name: str, what: str, reason: str) -> ArchiveRefused:
    return ArchiveRefused(f"{name!r} {what}.", reason=reason, entry=name)


# judging


def _judged(archive: zipfile.ZipFile, size: int, bounds: _Bounds) -> list[_Entry]:
    """Every entry, once all of them are known to be harmless."""
    infos = archive.infolist()
    if len(infos) > bounds.max_entries:
        raise bounds.refuse_count()
    entries = [_entry(info) for info in infos]
    _refuse_collisions(entries, bounds)
    _refuse_overlaps(infos, size)
    if sum(info.file_size for info in infos) > bounds.max_bytes:
        raise bounds.refuse_size()
    return entries


def _entry(info: zipfile.ZipInfo) -> _Entry:
    name = info.orig_filename  # `filename` has been cut at a NUL
    parts = tuple(name.removesuffix("/").split("/"))
    is_folder = name.endswith("/")
    flaw = flaw_of(name, parts)
    if flaw is not None:
        raise _refused(name, flaw, "name")
    if info.filename != name:
        raise _refused(name, "has a second name", "name")
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode) or info.external_attr & _REPARSE_POINT:
        raise _refused(name, "is a link", "link")
    if stat.S_IFMT(mode) not in {0, stat.S_IFDIR if is_folder else stat.S_IFREG} or (is_folder and info.file_size):
        raise _refused(name, "is no plain file or folder", "special")
    if info.flag_bits & _ENCRYPTED:
        raise _refused(name, "is encrypted", "encrypted")
    if info.compress_type not in _METHODS:
        raise _refused(name, f"is packed by method {info.compress_type}; only 0 and 8 are unpacked", "method")
    return _Entry(info, parts, is_folder)


def _refuse_collisions(entries: Iterable[_Entry], bounds: _Bounds) -> None:
    """Refuse names that mean one place, here or on a file system that ignores case or composes characters."""
    is_folder_at: dict[str, bool] = {}
    spelling_of: dict[str, str] = {}

    def take(path: str, *, is_folder: bool) -> None:
        is_folder_at[path] = is_folder
        if len(is_folder_at) > bounds.max_entries:
            raise bounds.refuse_count()
        spelling = spelling_of.setdefault(folded(path), path)
        if spelling != path:
            raise _refused(path, f"is on some systems the same as {spelling!r}", "duplicate")

    given: set[str] = set()
    for entry in entries:
        path = entry.path
        if path in given or is_folder_at.get(path, entry.is_folder) != entry.is_folder:
            raise _refused(path, "is there twice", "duplicate")
        given.add(path)
        if path not in is_folder_at:
            take(path, is_folder=entry.is_folder)
        for depth in range(len(entry.parts) - 1, 0, -1):
            above = "/".join(entry.parts[:depth])
            if above in is_folder_at:
                if not is_folder_at[above]:
                    raise _refused(above, "is a file and a folder", "duplicate")
                break  # and so are those above it
            take(above, is_folder=True)


def _refuse_overlaps(infos: Iterable[zipfile.ZipInfo], size: int) -> None:
    """Refuse entries that share bytes: a bomb packs one kernel and unpacks it a thousand times.

    The names and extra fields before the packed bytes are left out; to share no more than those makes no bomb.
    """
    spans = sorted(
        (info.header_offset, info.header_offset + _LOCAL_HEADER_BYTES + info.compress_size) for info in infos
    )
    is_shared = any(end > next_start for (_, end), (next_start, _) in pairwise(spans))
    if is_shared or (spans and (spans[0][0] < 0 or spans[-1][1] > size)):
        raise ArchiveRefused("Its entries overlap, or lie outside of it.", reason="overlap")


# unpacking


@contextmanager
def _staged(target: Path) -> Iterator[Path]:
    """A fresh folder on the file system of `target`, gone afterwards."""
    near = target
    while not near.exists():
        near = near.parent
    with tempfile.TemporaryDirectory(dir=near, prefix=".beray-unzip-") as outer:
        staged = Path(outer, "content")  # that one is 0700, this one as usual
        staged.mkdir()
        yield staged


def _unpack(archive: zipfile.ZipFile, entries: Iterable[_Entry], staged: Path, meter: _Meter) -> None:
    for entry in entries:
        place = staged.joinpath(*entry.parts)
        if entry.is_folder:
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            _unpack_file(archive, entry, place, meter)


def _unpack_file(archive: zipfile.ZipFile, entry: _Entry, place: Path, meter: _Meter) -> None:
    size = 0
    with archive.open(entry.info) as source, place.open("xb") as file:
        while chunk := source.read(_CHUNK_BYTES):
            meter.add(len(chunk), entry)
            file.write(chunk)
            size += len(chunk)
    if size != entry.info.file_size:
        raise zipfile.BadZipFile(f"{entry.path!r} has not the size that the directory says")


def _put_in_place(staged: Path, target: Path, *, overwrite: bool) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.rename(target)
        return
    moves = _moves(staged, target, overwrite=overwrite)
    done: list[tuple[Path, Path]] = []
    try:
        for source, place in moves:
            is_new = not os.path.lexists(place)
            source.replace(place)
            if is_new:
                done.append((source, place))
    except BaseException:
        for source, place in reversed(done):
            place.replace(source)
        raise


def _moves(staged: Path, target: Path, *, overwrite: bool) -> list[tuple[Path, Path]]:
    """What goes where, once nothing is in the way; a folder that is not there goes as a whole."""
    moves = []
    waiting = [(staged, target)]
    while waiting:
        folder, target_folder = waiting.pop()
        for source in folder.iterdir():
            place = target_folder / source.name
            if not os.path.lexists(place):
                moves.append((source, place))
                continue
            status = place.lstat()
            is_link = stat.S_ISLNK(status.st_mode) or getattr(status, "st_file_attributes", 0) & _REPARSE_POINT
            if source.is_dir() and stat.S_ISDIR(status.st_mode) and not is_link:
                waiting.append((source, place))
            elif overwrite and not source.is_dir() and stat.S_ISREG(status.st_mode) and not is_link:
                moves.append((source, place))
            else:
                what = "a link" if is_link else "something"
                name = place.relative_to(target).as_posix()
                raise _refused(name, f"would be written where {what} is already", "link" if is_link else "exists")
    return moves
