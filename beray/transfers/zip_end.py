"""Whether a ZIP archive is there to its last byte, told in constant time and memory.

An archive is read from its end: a record there says where the directory begins and how long it is, and the directory
ends where the record begins. So bytes that are missing anywhere, or too many, show in a sum. (Source: APPNOTE.TXT of
the format, sections 4.3.14 to 4.3.16.)
"""

import os
import struct
from pathlib import Path
from typing import Any, BinaryIO, Final

_END: Final = struct.Struct("<4sHHHHLLH")
_END_64: Final = struct.Struct("<4sQHHLLQQQQ")
_LOCATOR_64: Final = struct.Struct("<4sLQL")
_MOST_COMMENT_BYTES: Final = 0xFFFF
_ENTRY_SIGNATURE: Final = b"PK\x01\x02"


def is_whole_zip(path: Path) -> bool:
    """Whether the archive's parts add up to the file at `path`. Says nothing of what is in it."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END.size - _MOST_COMMENT_BYTES))
        tail = file.read()
        at = tail.rfind(b"PK\x05\x06")
        if at < 0 or len(tail) - at < _END.size:
            return False
        _, _, _, _, _, directory_bytes, start, comment_bytes = _END.unpack_from(tail, at)
        if at + _END.size + comment_bytes != len(tail):
            return False
        end = size - len(tail) + at
        locator = _unpacked(file, _LOCATOR_64, end - _LOCATOR_64.size)
        if locator is None or locator[0] != b"PK\x06\x07":
            return _adds_up(file, start, directory_bytes, end)
        return _adds_up_64(file, locator[2], end - _LOCATOR_64.size)


def _adds_up_64(file: BinaryIO, at: int, end: int) -> bool:
    """The same for a large archive: its own end record at `at`, which a locator has named, ends at `end`."""
    record = _unpacked(file, _END_64, at)
    if record is None or record[0] != b"PK\x06\x06" or at + record[1] + 12 != end:
        return False
    return _adds_up(file, record[9], record[8], at)


def _adds_up(file: BinaryIO, start: int, directory_bytes: int, end: int) -> bool:
    if start + directory_bytes != end:
        return False
    file.seek(start)
    return directory_bytes == 0 or file.read(len(_ENTRY_SIGNATURE)) == _ENTRY_SIGNATURE


def _unpacked(file: BinaryIO, form: struct.Struct, at: int) -> tuple[Any, ...] | None:
    if at < 0 or at > file.seek(0, os.SEEK_END) - form.size:
        return None
    file.seek(at)
    return form.unpack(file.read(form.size))
