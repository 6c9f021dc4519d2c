"""A ZIP made while it is sent: nothing is written to disk, memory stays at a piece, and it can be dropped at any time.

The standard library writes it to a sink that can't seek, so sizes and checksums follow each file. Level 1: level 6
costs 5x the CPU for 7 % less. What is packed already, by its ending or by a sample, gets level 0 (level 1 would cost
50x for nothing); that is as cheap as "stored", and readers that stream need not know the size before.
"""

import re
import zipfile
import zlib
from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Final, cast

from beray.server.work_dirs.listing import Walk, WalkEntry
from beray.server.work_dirs.paths import replace_escaped_bytes

PIECE_BYTES: Final = 256 << 10
SAMPLED_BYTES_LEAST: Final = 64 << 10
SAMPLE_BYTES: Final = 16 << 10
PACKED: Final = frozenset(
    f".{ending}"
    for ending in (
        *("7z", "br", "bz2", "gz", "jar", "rar", "tgz", "whl", "xz", "zip", "zst", "docx", "pdf", "pptx", "xlsx"),
        *("aac", "avi", "flac", "gif", "heic", "jpeg", "jpg", "m4a", "mkv", "mov", "mp3", "mp4", "ogg", "opus", "png"),
        *("webm", "webp"),
    )
)

Pieces = Generator[bytes, None, None]

_EARLIEST: Final = datetime(1980, 1, 1, tzinfo=UTC)  # the format knows 1980 to 2107
_LATEST: Final = datetime(2107, 12, 31, 23, 59, 58, tzinfo=UTC)
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\\]")
_DRIVE: Final = re.compile(r"^([A-Za-z]):")
_UNIX: Final = 3
_FOLDER_BIT: Final = 0x10  # the folder attribute of MS-DOS


class ZipPieces:
    """The archive of a walk, piece by piece. Blocking; closes the walk."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._pieces = _pieces(walk)

    def next(self) -> bytes | None:
        """The next bytes, perhaps none yet; None at the end."""
        return next(self._pieces, None)

    def close(self) -> None:
        """Stop, and release the walk's descriptors."""
        self._pieces.close()
        self._walk.close()


class _Sink:
    """Collects what the archive writes until it is taken; without `tell` and `seek` nothing is gone back to."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def __len__(self) -> int:
        return len(self._buffer)

    def write(self, data: bytes) -> int:
        self._buffer += data
        return len(data)

    def flush(self) -> None:
        """Nothing waits anywhere else."""

    def take(self) -> bytes:
        taken, self._buffer = bytes(self._buffer), bytearray()
        return taken


def _pieces(walk: Walk) -> Pieces:
    sink = _Sink()
    names = _Names()
    with zipfile.ZipFile(cast("zipfile._ZipWritable", sink), "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in walk.steps():
            if entry is None:
                yield b""
                continue
            info = _info(entry, names.give(entry.path, is_folder=entry.is_folder))
            if entry.is_folder:
                archive.mkdir(info)
            else:
                yield from _file(archive, info, entry, sink)
            if len(sink) >= PIECE_BYTES:
                yield sink.take()
        if walk.left_out:
            archive.comment = f"Left out (links that lead out, unreadable or too deep): {walk.left_out}".encode()
    yield sink.take()


def _file(archive: zipfile.ZipFile, info: zipfile.ZipInfo, entry: WalkEntry, sink: _Sink) -> Pieces:
    """One file, up to the size it had when it was opened; it may shrink or grow, the archive stays valid."""
    file = entry.open()
    info.file_size = file.size  # tells whether the 64-bit form is needed; the real size follows the content
    offset = 0
    with archive.open(info, "w") as target:
        while chunk := file.read_at(offset, min(PIECE_BYTES, file.size - offset)):
            target.write(chunk)
            offset += len(chunk)
            if len(sink) >= PIECE_BYTES:
                yield sink.take()


def _is_packed(entry: WalkEntry) -> bool:
    """Whether compressing the file would be of no use."""
    if PurePosixPath(entry.path).suffix.lower() in PACKED:
        return True
    file = entry.open()
    if file.size < SAMPLED_BYTES_LEAST:
        return False
    sample = file.read_at(file.size // 2, SAMPLE_BYTES)  # the middle: a head is often unlike the rest
    return len(zlib.compress(sample, 1)) > 0.95 * len(sample)


def _info(entry: WalkEntry, name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name + "/" * entry.is_folder, _date_time(entry.modified_ns))
    info.create_system = _UNIX
    kind = 0o040000 if entry.is_folder else 0o100000
    info.external_attr = (kind | entry.mode & 0o777) << 16 | _FOLDER_BIT * entry.is_folder
    if entry.is_folder:
        info.CRC = info.compress_size = 0  # which mkdir writes, but does not set itself
    else:
        info.compress_type = zipfile.ZIP_DEFLATED
        # Python before 3.13 has no public name for it.
        attribute = "compress_level" if hasattr(info, "compress_level") else "_compresslevel"
        setattr(info, attribute, 0 if _is_packed(entry) else 1)
    return info


def _date_time(modified_ns: int) -> tuple[int, int, int, int, int, int]:
    seconds = min(max(modified_ns // 1_000_000_000, int(_EARLIEST.timestamp())), int(_LATEST.timestamp()))
    return datetime.fromtimestamp(seconds, UTC).timetuple()[:6]


class _Names:
    r"""Names that mean the same wherever the archive is unpacked, each given once.

    A command may make a file named `..\..\x` or `C:x`; on another system that is a path out of the folder. What is in a
    folder goes by the name that the folder was given.
    """

    def __init__(self) -> None:
        self._given: set[str] = set()
        self._last_number: dict[str, int] = {}  # a thousand names that become one would else count from 1 each
        self._folders: dict[str, str] = {}

    def give(self, path: str, *, is_folder: bool) -> str:
        return self._folder(path) if is_folder else self._fresh(path)

    def _folder(self, path: str) -> str:
        if path not in self._folders:
            self._folders[path] = self._fresh(path)
        return self._folders[path]

    def _fresh(self, path: str) -> str:
        parent, _, last = path.rpartition("/")
        safe = _UNSAFE.sub("_", replace_escaped_bytes(last, "_"))
        safe = f"{self._folder(parent)}/{safe}" if parent else _DRIVE.sub(r"\1_", safe)
        name, number = safe, self._last_number.get(safe, 1)
        while name in self._given:
            number += 1
            pure = PurePosixPath(safe)
            name = str(pure.with_name(f"{pure.stem} ({number}){pure.suffix}"))
        self._given.add(name)
        self._last_number[safe] = number
        return name
