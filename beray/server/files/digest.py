"""The SHA-256 of a whole file for who asks for it (RFC 9530): `Want-Repr-Digest` in, `Repr-Digest` out.

It is known only once the file has been read, and has to stand in the headers. So it is computed piece by piece in a
thread, given up when the client goes or it takes too long (the field is a wish, an answer without it is right too),
and never computed for who does not ask.
"""

import asyncio
import base64
import hashlib
import os
import re
from dataclasses import replace
from functools import partial
from typing import Final

from starlette.requests import ClientDisconnect

from beray.server.files.streaming import close_after, in_thread
from beray.server.files.turns import IsGone
from beray.server.work_dirs.open_file import OpenFile

PIECE_BYTES: Final = 8 << 20  # some 10 ms of a thread, between two looks whether anybody still wants it
READ_BYTES: Final = 256 << 10

_WISH: Final = re.compile(r"\s*sha-256\s*=\s*(\d{1,2})\s*(?:;.*)?", re.ASCII)


def wants_sha256(header: str | None) -> bool:
    """Whether a `Want-Repr-Digest` asks for SHA-256, such as `sha-256=10` or `sha-512=9, sha-256=3`; 0 means no."""
    wishes = (_WISH.fullmatch(wish) for wish in (header or "").split(","))
    return any(wish is not None and int(wish[1]) > 0 for wish in wishes)


def repr_digest(sha256: bytes) -> str:
    """The value of `Repr-Digest`."""
    return f"sha-256=:{base64.b64encode(sha256).decode('ascii')}:"


async def sha256_of(file: OpenFile, is_gone: IsGone) -> bytes | None:
    """The digest of the file as it was opened; None if it has become shorter.

    Raises:
        ClientDisconnect: Nobody waits any more.
    """
    own = replace(file, fd=os.dup(file.fd))  # so that the caller may close `file` while a thread still reads
    digest = hashlib.sha256()
    working: asyncio.Future[bool] | None = None
    try:
        for offset in range(0, own.size, PIECE_BYTES):
            working = in_thread(partial(_add, digest, own, offset))
            if not await asyncio.shield(working):
                return None
            if await is_gone():
                raise ClientDisconnect
    finally:
        close_after(working, own)
    return digest.digest()


def _add(digest: "hashlib._Hash", file: OpenFile, start: int) -> bool:
    """Hash one piece; False if the file has no longer as many bytes."""
    stop = min(start + PIECE_BYTES, file.size)
    for offset in range(start, stop, READ_BYTES):
        wanted = min(READ_BYTES, stop - offset)
        data = file.read_at(offset, wanted)
        digest.update(data)
        if len(data) < wanted:
            return False
    return True
