"""One user's long walks leave threads to the others."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect

from beray.server.files import turns as turns_module
from beray.server.files.turns import Turns
from tests.support.waiting import until


async def stays() -> bool:
    return False


async def test_third_walk_of_a_user_waits_and_another_user_does_not() -> None:
    turns = Turns(2)
    begun: list[str] = []
    go_on = asyncio.Event()

    async def walk(name: str, user_id: int) -> None:
        async with turns.taken(user_id, stays):
            begun.append(name)
            await go_on.wait()

    walks = [asyncio.create_task(walk(name, 1)) for name in ("a", "b", "c")]
    await until(lambda: len(begun) == 2)
    walks.append(asyncio.create_task(walk("other", 2)))
    await until(lambda: "other" in begun)
    assert begun == ["a", "b", "other"]

    go_on.set()
    await asyncio.gather(*walks)
    assert begun == ["a", "b", "other", "c"]


async def test_who_gives_up_leaves_the_line() -> None:
    turns = Turns(1)
    asked: list[int] = []
    go_on = asyncio.Event()

    async def walk() -> None:
        asked.append(1)
        async with turns.taken(1, stays):
            await go_on.wait()

    first, second = asyncio.create_task(walk()), asyncio.create_task(walk())
    await until(lambda: len(asked) == 2)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    go_on.set()
    await first

    async with asyncio.timeout(5), turns.taken(1, stays):
        pass


async def test_who_hangs_up_while_waiting_takes_no_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns_module, "LOOK_SECONDS", 0.01)
    turns = Turns(1)

    async def is_gone() -> bool:
        return True

    async with turns.taken(1, stays):
        with pytest.raises(ClientDisconnect):
            await turns.take(1, is_gone)
    async with asyncio.timeout(5), turns.taken(1, stays):
        pass
