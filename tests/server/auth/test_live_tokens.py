"""What is remembered of tokens, and when an open stream asks again whether its reader is logged in."""

import pytest

from beray.server.auth.live_tokens import BELIEVED_MS, WATCH_MS, LiveTokens, LoginEnds, Logins, LoginWatch
from beray.server.auth.tokens import TokenKey
from beray.server.db.auth import UserRow
from beray.server.db.logins import TokenUse
from beray.server.errors import Refused

NOW = 1_800_000_000_000


def use_of(user_id: int = 1, *, expires_at: int | None = None) -> TokenUse:
    return TokenUse(UserRow(user_id, f"{user_id}@example.com", 0), expires_at, None, None)


@pytest.mark.parametrize(
    ("later", "expires_in", "is_believed"),
    [
        (0, None, True),
        (BELIEVED_MS - 1, None, True),
        (BELIEVED_MS, None, False),
        (10, 11, True),
        (10, 10, False),
        (-1, None, False),  # the clock was set back
    ],
)
def test_token_is_believed_for_a_moment_and_never_beyond_its_end(later, expires_in, is_believed):
    tokens = LiveTokens()
    use = use_of(expires_at=None if expires_in is None else NOW + expires_in)

    tokens.keep(b"a", use, NOW)

    assert tokens.find(b"a", NOW + later) == (use if is_believed else None)
    assert tokens.find(b"b", NOW) is None


def test_tokens_of_a_user_are_forgotten_and_nobody_elses():
    tokens = LiveTokens()
    for token_hash, user_id in ((b"a", 1), (b"b", 2), (b"c", 1)):
        tokens.keep(token_hash, use_of(user_id), NOW)

    tokens.forget_user(1)

    assert [tokens.find(token_hash, NOW) is None for token_hash in (b"a", b"b", b"c")] == [True, False, True]
    tokens.forget()
    assert tokens.find(b"b", NOW) is None


def test_no_more_tokens_are_kept_than_is_set():
    tokens, none = LiveTokens(2), LiveTokens(0)
    for token_hash in (b"a", b"b", b"a", b"c"):
        tokens.keep(token_hash, use_of(), NOW)
        none.keep(token_hash, use_of(), NOW)

    assert [tokens.find(token_hash, NOW) is None for token_hash in (b"a", b"b", b"c")] == [False, True, False]
    assert none.find(b"c", NOW) is None


def test_ends_are_told_by_user_until_there_are_too_many():
    ends = LoginEnds(2)
    ends.note(1)
    seen = ends.count

    assert ends.has_any_since(0, 1)
    assert not ends.has_any_since(seen, 1)
    assert not ends.has_any_since(0, 2)
    for user_id in (3, 4):
        ends.note(user_id)
    assert ends.has_any_since(seen, 2), "of whom it is not known any more"
    assert not ends.has_any_since(ends.count, 2)


class Watched:
    """A watch of user 1's login, whose looks are counted."""

    def __init__(self, *, expires_at: int | None = None) -> None:
        self.now = NOW
        self.use: TokenUse | None = use_of(expires_at=expires_at)
        self.looks = 0
        self.meanwhile = lambda: None
        assert self.use is not None
        key = TokenKey(b"\0" * 32, is_api_token=False)
        logins = Logins(lambda: self.now, self._look)
        self.ends = logins.ends
        self.watch = LoginWatch(logins, key, self.use, seen=0)

    async def _look(self, key: TokenKey) -> TokenUse | None:
        self.looks += 1
        self.meanwhile()
        return self.use


async def test_watch_costs_nothing_while_no_login_of_the_user_ends():
    watched = Watched()

    for _ in range(100):
        watched.ends.note(2)
        assert await watched.watch()

    assert (watched.looks, watched.watch.is_sure) == (0, True)


async def test_watch_looks_once_after_each_end_and_tells_who_is_still_there():
    watched = Watched()
    for looks in (1, 2):
        watched.ends.note(1)
        assert not watched.watch.is_sure
        assert await watched.watch()
        assert await watched.watch()
        assert watched.looks == looks

    watched.ends.note_any()
    watched.use = None
    assert not await watched.watch()


async def test_end_that_comes_during_a_look_is_looked_for_again():
    watched = Watched()
    watched.ends.note(1)
    watched.meanwhile = lambda: watched.ends.note(1)
    assert await watched.watch()

    watched.meanwhile, watched.use = lambda: None, None

    assert not await watched.watch()


async def test_watch_looks_now_and_then_without_having_been_told():
    watched = Watched()
    watched.now += WATCH_MS
    assert await watched.watch()
    assert watched.looks == 1

    watched.now += WATCH_MS - 1
    assert await watched.watch()
    assert watched.looks == 1


async def test_watch_ends_with_its_token():
    watched = Watched(expires_at=NOW + 10)
    watched.now += 9
    assert await watched.watch()

    watched.now, watched.use = NOW + 10, None

    assert not await watched.watch()


async def test_database_that_is_away_ends_no_stream():
    def be_away() -> None:
        raise Refused("database_unavailable")

    watched = Watched()
    watched.ends.note(1)
    watched.meanwhile = be_away

    assert await watched.watch()
    assert not watched.watch.is_sure, "it is asked again"


async def test_clock_that_is_set_back_makes_nobody_sure():
    watched = Watched()
    watched.now -= 3_600_000
    watched.use = None

    assert not watched.watch.is_sure
    assert not await watched.watch()
