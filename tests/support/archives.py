"""ZIP archives as no honest program makes them."""

import io
import struct
import warnings
import zipfile
from collections.abc import Iterable

CENTRAL = b"PK\x01\x02"
FLAGS_AT, METHOD_AT, SIZE_AT, OFFSET_AT = 8, 10, 24, 42  # in an entry of the central directory

Given = tuple[str, bytes]


def archive_of(*entries: Given, mode: int = 0, attributes: int = 0, level: int = 9) -> bytes:
    """An archive of names and contents exactly as given; `mode` is every entry's Unix mode."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as archive:
        warnings.simplefilter("ignore", UserWarning)  # a name that is given twice
        for name, content in entries:
            info = zipfile.ZipInfo("x")
            info.filename = name  # the constructor would cut it at a NUL
            info.external_attr = mode << 16 | attributes
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def names_of(names: Iterable[str]) -> bytes:
    """An archive of files that hold one byte."""
    return archive_of(*((name, b"x") for name in names))


def patched(archive: bytes, at: int, value: int, *, size: int, entry: int = 0) -> bytes:
    """The archive with another number in an entry of its central directory."""
    place = -1
    for _ in range(entry + 1):
        place = archive.index(CENTRAL, place + 1)
    changed = bytearray(archive)
    changed[place + at : place + at + size] = struct.pack("<I", value)[:size]
    return bytes(changed)
