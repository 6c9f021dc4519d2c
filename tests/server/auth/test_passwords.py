import asyncio
import unicodedata

import pytest
from argon2 import PasswordHasher

from beray.server.auth.passwords import SLOTS, WAITING, Passwords, Verdict
from beray.server.errors import Refused
from tests.server.auth.auth_server import CountingHasher, StuckHasher
from tests.support.waiting import begun, until


@pytest.fixture
def passwords():
    made = Passwords(CountingHasher())
    yield made
    made.close()


async def test_passwords_are_hashed_as_owasp_asks():
    made = Passwords()
    encoded = await made.hash("a_very_secure_password")

    assert encoded.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await made.verify("a_very_secure_password", encoded) == Verdict(is_right=True)
    made.close()


async def test_wrong_password_is_wrong(passwords):
    assert await passwords.verify("other", await passwords.hash("one")) == Verdict(is_right=False)


async def test_without_a_hash_the_same_work_is_done_and_nothing_is_right():
    hasher = CountingHasher()
    passwords = Passwords(hasher)

    assert await passwords.verify("", None) == Verdict(is_right=False)
    assert await passwords.verify("one", None) == Verdict(is_right=False)
    assert hasher.work == ["verify", "verify"]
    assert not hasher.check_needs_rehash(passwords._nobodys_hash)
    passwords.close()


async def test_right_password_with_old_parameters_gets_a_new_hash(passwords):
    old = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1).hash("one")

    verdict = await passwords.verify("one", old)

    assert verdict.is_right
    assert verdict.new_hash is not None
    assert await passwords.verify("one", verdict.new_hash) == Verdict(is_right=True)
    assert await passwords.verify("two", old) == Verdict(is_right=False)


async def test_password_is_the_same_however_its_accents_are_typed(passwords):
    encoded = await passwords.hash(unicodedata.normalize("NFD", "é" * 8))

    assert (await passwords.verify(unicodedata.normalize("NFC", "é" * 8), encoded)).is_right


async def test_who_would_wait_too_long_is_turned_away_at_once():
    hasher = StuckHasher()
    passwords = Passwords(hasher)
    waiting = await begun(*(passwords.hash("one") for _ in range(SLOTS + WAITING)))  # each has its place

    with pytest.raises(Refused) as refused:
        await passwords.hash("one too many")
    assert (refused.value.code, refused.value.retry_after_seconds) == ("rate_limited", 1)

    hasher.go.set()
    assert len(await asyncio.gather(*waiting)) == SLOTS + WAITING
    assert await passwords.hash("afterwards")
    passwords.close()


async def test_who_goes_away_while_waiting_frees_the_place():
    hasher = StuckHasher()
    passwords = Passwords(hasher)
    waiting = await begun(*(passwords.hash("one") for _ in range(SLOTS + WAITING)))

    gone = waiting.pop()
    gone.cancel()
    await until(gone.cancelled)
    waiting += await begun(passwords.hash("next"))

    hasher.go.set()
    assert len(await asyncio.gather(*waiting)) == SLOTS + WAITING
    passwords.close()
