"""Password hashing: argon2id with OWASP's parameters, in two threads, behind a bounded waiting line.

One hash takes about 40 ms and 19 MiB. Two at a time keep a flood of logins from taking the whole machine; who would
have to wait too long is turned away at once.
"""

import asyncio
import base64
import secrets
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

from beray.server.errors import Refused, wrong_field

T = TypeVar("T")

LEAST_CHARACTERS: Final = 8
MOST_CHARACTERS: Final = 256

SLOTS: Final = 2
WAITING: Final = 32  # 0.7 s of waiting at 42 ms a hash


def owasp_hasher() -> PasswordHasher:
    """Argon2id, 19 MiB, 2 passes, 1 lane (OWASP Password Storage Cheat Sheet)."""
    return PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the password was right, and the hash to store from now on if the parameters have changed since."""

    is_right: bool
    new_hash: str | None = None


class Passwords:
    """Hash and verify passwords; `close` when done."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or owasp_hasher()
        self._executor = ThreadPoolExecutor(SLOTS, thread_name_prefix="beray-password")
        self._places = threading.BoundedSemaphore(SLOTS + WAITING)
        self._nobodys_hash = _hash_of_nothing(self._hasher)

    def close(self) -> None:
        """Finish what runs, drop what waits."""
        self._executor.shutdown(cancel_futures=True)

    async def hash(self, password: str) -> str:
        """The encoded hash to store.

        Raises:
            Refused: `rate_limited` when too many hashes wait already.
        """
        return await self._run(lambda: self._hasher.hash(_bytes(password)))

    async def verify(self, password: str, known_hash: str | None) -> Verdict:
        """Whether `password` has this hash. Without one (no such user) it does the same work, and says no.

        Raises:
            Refused: `rate_limited` when too many hashes wait already.
        """
        return await self._run(lambda: self._verify(_bytes(password), known_hash))

    def _verify(self, password: bytes, known_hash: str | None) -> Verdict:
        try:
            self._hasher.verify(known_hash or self._nobodys_hash, password)
        except VerifyMismatchError:
            return Verdict(is_right=False)
        if known_hash is None:
            return Verdict(is_right=False)
        is_outdated = self._hasher.check_needs_rehash(known_hash)
        return Verdict(is_right=True, new_hash=self._hasher.hash(password) if is_outdated else None)

    async def _run(self, work: Callable[[], T]) -> T:
        if not self._places.acquire(blocking=False):
            raise Refused("rate_limited", retry_after_seconds=1, seconds=1)
        try:
            future = self._executor.submit(work)
        except BaseException:
            self._places.release()
            raise
        # released by the work itself: a caller who goes away frees no place while its hash still runs
        future.add_done_callback(lambda _: self._places.release())
        return await asyncio.wrap_future(future)


def check_password(password: str, field: str = "password") -> None:
    """Refuse a password that may not be set. No composition rules: length is what counts (NIST SP 800-63B)."""
    if not LEAST_CHARACTERS <= len(password) <= MOST_CHARACTERS:
        raise _invalid_password(field)


def check_length(password: str, field: str = "password") -> None:
    """Refuse a password that is too long to be anybody's, before any work is done for it."""
    if len(password) > MOST_CHARACTERS:
        raise _invalid_password(field)


def _invalid_password(field: str) -> Refused:
    item = wrong_field(field, "invalid_password", least=LEAST_CHARACTERS, most=MOST_CHARACTERS)
    return Refused("invalid_password", errors=[item], least=LEAST_CHARACTERS, most=MOST_CHARACTERS)


def _bytes(password: str) -> bytes:
    """NFC: one keyboard sends é as one character, another as two (RFC 8265)."""
    return unicodedata.normalize("NFC", password).encode()


def _hash_of_nothing(hasher: PasswordHasher) -> str:
    """A hash of random bytes with the hasher's own parameters: as dear to verify as any, and no password has it."""
    salt, digest = (
        base64.b64encode(secrets.token_bytes(size)).decode().rstrip("=") for size in (hasher.salt_len, hasher.hash_len)
    )
    cost = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v=19${cost}${salt}${digest}"
