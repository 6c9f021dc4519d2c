"""Many pieces, few groups; nothing lost, nothing out of order, no wait without end."""

import asyncio

import pytest

from beray.server.agent.coalesce import Coalescer


async def test_pieces_come_in_order_and_in_few_groups():
    groups = []

    async def hand_on(group):
        groups.append(group)

    async with Coalescer(hand_on, most_characters=1000) as coalescer:
        for number in range(200):
            await coalescer.put("ab"[number // 100], f"{number},")

    assert "".join(text for group in groups for _, text in group) == "".join(f"{number}," for number in range(200))
    assert len(groups) < 10
    assert {key for group in groups for key, _ in group} == {"a", "b"}


async def test_what_waits_is_bounded_while_the_receiver_is_slow():
    gate = asyncio.Event()
    received = []

    async def hand_on(group):
        await gate.wait()
        received.extend(text for _, text in group)

    async def fill(coalescer):
        for _ in range(100):
            await coalescer.put("key", "x" * 10)

    async with Coalescer(hand_on, most_characters=50) as coalescer:
        filling = asyncio.create_task(fill(coalescer))
        done, _ = await asyncio.wait({filling}, timeout=0.2)
        assert not done
        gate.set()
        await asyncio.wait_for(filling, 5)

    assert sum(map(len, received)) == 1000


async def test_a_failure_of_the_receiver_reaches_the_writer():
    async def hand_on(group):
        raise ValueError("gone")

    with pytest.raises(ValueError, match="gone"):
        await put_all(Coalescer(hand_on, most_characters=5), ["12345"] * 100)


async def test_a_failure_at_the_end_reaches_the_writer():
    async def hand_on(group):
        raise ValueError("gone")

    with pytest.raises(ValueError, match="gone"):
        await put_all(Coalescer(hand_on, most_characters=50), ["1"])


async def test_leaving_by_an_exception_drops_what_waits():
    received = []

    async def hand_on(group):
        received.append(group)

    def pieces():
        yield "1"
        raise KeyError

    with pytest.raises(KeyError):
        await put_all(Coalescer(hand_on, most_characters=50), pieces())

    assert received == []


async def put_all(coalescer, pieces):
    async with coalescer:
        for piece in pieces:
            await coalescer.put("key", piece)


@pytest.mark.parametrize(("error", "has_arrived"), [(KeyError(), True), (asyncio.CancelledError(), False)])
async def test_what_is_on_its_way_arrives_unless_all_is_cancelled(error, has_arrived):
    on_its_way = asyncio.Event()
    arrived = []

    async def hand_on(group):
        on_its_way.set()
        for _ in range(3):
            await asyncio.to_thread(lambda: None)
        arrived.extend(text for _, text in group)

    async def leave() -> None:
        async with Coalescer(hand_on, most_characters=50) as coalescer:
            await coalescer.put("key", "a")
            await on_its_way.wait()
            await coalescer.put("key", "b")
            raise error

    with pytest.raises(type(error)):
        await leave()

    assert arrived == (["a"] if has_arrived else [])
