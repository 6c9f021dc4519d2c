"""The hub: what has been committed reaches every watcher, once and in order, whatever it is written to by."""

import asyncio
import random

import pytest

from beray.protocol.sse import HEARTBEAT
from beray.server.db.notices import EVERYTHING
from beray.server.events.log import Page
from beray.server.rounds import repeat
from beray.server.tasks.stream import feed as feeds
from beray.server.tasks.stream import subscriber as subscribers
from beray.server.tasks.stream.outlets import Chunk
from tests.support.databases import sqlite_url
from tests.support.streams import WAYS, Reader, StreamBench, Way, opened_bench, reading, told_elsewhere
from tests.support.waiting import until


@pytest.fixture
async def bench(tmp_path):
    async for bench in open_bench(sqlite_url(tmp_path / "beray.db")):
        yield bench


@pytest.fixture
async def each_bench(database_url):
    async for bench in open_bench(database_url):
        yield bench


async def open_bench(url):
    with opened_bench(url, 1, 2) as bench:
        await bench.append(1, 3)
        yield bench


def has_seen(readers: list[Reader], *seqs: int):
    return lambda: all(reader.seqs == list(seqs) for reader in readers)


async def live(bench: StreamBench, *readers: Reader) -> None:
    await until(lambda: sum(len(feed.live) for feed in bench.hub._feeds.values()) >= len(readers), what="live watchers")


@pytest.mark.parametrize("way", WAYS)
async def test_replay_then_live_then_the_end(bench, way: Way):
    bench.way = way
    async with reading(bench, 1, 3) as all_of_it, reading(bench, 1, 2, after=2) as rest:
        await until(has_seen(all_of_it, 1, 2, 3))
        assert bench.ways == {way: 5}
        await bench.append(1)
        await until(has_seen(all_of_it, 1, 2, 3, 4))
        await bench.finish(1)

        await until(lambda: all(reader.has_ended for reader in all_of_it + rest))

        assert has_seen(all_of_it, 1, 2, 3, 4, 5)()
        assert has_seen(rest, 3, 4, 5)()
    assert bench.streams.count == 0
    assert not bench.ways


async def test_a_chunk_is_encoded_once_for_all(bench):
    bench.way = "SteppedOutlet"
    async with reading(bench, 1, 3) as readers:
        await live(bench, *readers)
        await bench.append(1, 5)
        await until(has_seen(readers, *range(1, 9)))

        assert len({id(reader.writes[-1]) for reader in readers}) == 1


async def test_what_comes_within_a_tick_is_written_together(bench):
    async with reading(bench, 1) as [reader]:
        await live(bench, reader)
        before = len(reader.writes)
        for notice in range(40):
            bench.hub._feeds[1].hear(4 + notice, [b"id: %d\nevent: text.delta\ndata: {}\n\n" % (4 + notice)])
        await until(lambda: len(reader.seqs) == 43)

        assert len(reader.writes) - before == 1  # all were there when the loop came to write the first

        feed = bench.hub._feeds[1]
        feed._tick_seconds = 3600.0
        feed.hear(44, [b"id: 44\nevent: text.delta\ndata: {}\n\n"])
        feed.hear(45, [b"id: 45\nevent: text.delta\ndata: {}\n\n"])
        await until(lambda: feed._timer is not None)
        assert len(reader.seqs) == 43
        feed.flush()
        assert reader.seqs[43:] == [44, 45]


async def test_first_event_after_a_quiet_moment_waits_for_no_tick(bench):
    async with reading(bench, 1) as [reader]:
        await live(bench, reader)
        feed = bench.hub._feeds[1]
        feed._written_at = feed._loop.time() - feeds.TICK_MOST_SECONDS

        feed.hear(4, [b"id: 4\nevent: text.delta\ndata: {}\n\n"])
        assert not isinstance(feed._timer, asyncio.TimerHandle)
        await until(has_seen([reader], 1, 2, 3, 4))

        feed._tick_seconds = 3600.0
        feed.hear(5, [b"id: 5\nevent: text.delta\ndata: {}\n\n"])
        assert isinstance(feed._timer, asyncio.TimerHandle)


async def test_tick_grows_with_the_time_that_writing_takes(bench):
    async with reading(bench, 1) as [reader]:
        await live(bench, reader)
        feed = bench.hub._feeds[1]
        for spent_seconds, tick_seconds in ((0.0, 0.010), (0.008, 0.016), (1.0, 0.025), (0.0, 0.010)):
            feed._writing.append((Chunk(b"", 3, 3), iter(())))
            feed._spent_seconds = spent_seconds
            feed._end_chunk(feed._writing[0][0])

            assert feed._tick_seconds == pytest.approx(tick_seconds)


async def test_send_that_fails_ends_its_stream_alone(bench):
    bench.way = "SteppedOutlet"
    async with reading(bench, 1, 3) as readers:
        await live(bench, *readers)
        readers[1].fails = True

        await bench.append(1)

        await until(has_seen([readers[0], readers[2]], 1, 2, 3, 4))
        assert readers[1].seqs == [1, 2, 3]
        await until(lambda: bench.streams.count == 2)


async def test_notices_without_frames_are_looked_up(bench):
    """So does what other processes commit reach the watchers of this one."""
    bench.database.deliver = lambda notices: None
    async with reading(bench, 1, 2) as readers:
        await live(bench, *readers)
        await bench.append(1, 2)

        bench.hub.hear([told_elsewhere(1)])
        await until(has_seen(readers, 1, 2, 3, 4, 5))

        await bench.append(1)
        bench.hub.hear([EVERYTHING])
        await until(has_seen(readers, 1, 2, 3, 4, 5, 6))


async def test_gaps_and_repeats_of_notices_change_nothing(bench):
    heard = []
    bench.database.deliver = heard.extend
    async with reading(bench, 1, 2) as readers:
        await live(bench, *readers)
        for _ in range(4):
            await bench.append(1, 2)
        await until(lambda: len(heard) == 4)

        bench.hub.hear([heard[2], heard[1], heard[0], heard[2], heard[3]])

        await until(has_seen(readers, *range(1, 12)))


async def test_an_event_committed_before_it_is_told_is_not_given_twice(bench):
    """A watcher that joins in between has read it; the others get it when it is told."""
    heard = []
    async with reading(bench, 1) as first:
        await live(bench, *first)
        bench.database.deliver = heard.extend
        await bench.append(1)
        await until(lambda: heard)

        async with reading(bench, 1, after=3) as second:
            await until(has_seen(second, 4))
            bench.hub.hear(heard)
            await until(has_seen(first, 1, 2, 3, 4))
            await live(bench, *first, *second)
            bench.database.deliver = bench.hub.hear
            await bench.append(1)
            await until(has_seen(first, 1, 2, 3, 4, 5))
            await until(has_seen(second, 4, 5))


async def test_slow_reader_goes_on_from_the_store_and_joins_again(bench):
    async with reading(bench, 1, 3) as [slow, *others]:
        await live(bench, slow, *others)
        slow.be_slow()
        for _ in range(300):
            await bench.append(1)
        await until(has_seen(others, *range(1, 304)), what="the others, whom it does not hold up")
        assert slow.seqs == [1, 2, 3]
        assert len(bench.hub._feeds[1].live) == 2

        slow.be_quick()

        await until(has_seen([slow], *range(1, 304)))
        await live(bench, slow, *others)
        await bench.append(1)
        await until(has_seen([slow, *others], *range(1, 305)))


async def test_slow_reader_is_not_live_before_it_has_read(bench):
    async with reading(bench, 1, 2) as [slow, other]:
        await live(bench, slow, other)
        feed = bench.hub._feeds[1]
        slow.be_slow()
        await bench.append(1)
        await until(lambda: len(feed.slow) == 1)

        feed.beat(now=float("inf"))
        [late] = feed.slow  # a heartbeat is no reason to read the store
        late.fall_behind(4)
        for _ in range(5):
            await bench.append(1)
        await until(has_seen([other], *range(1, 10)))
        assert late not in feed.live

        slow.be_quick()
        await until(has_seen([slow], *range(1, 10)))
        await live(bench, slow, other)


async def test_reader_beyond_the_end_waits_for_what_comes_after(bench):
    async with reading(bench, 1, after=5) as [ahead], reading(bench, 1) as [other]:
        await live(bench, other)
        for _ in range(4):
            await bench.append(1)

        await until(has_seen([other], *range(1, 8)))
        await until(has_seen([ahead], 6, 7))


async def test_deleted_task_ends_its_streams(bench):
    async with reading(bench, 1, 2) as readers:
        await live(bench, *readers)
        engine = bench.database.make_engine()
        with engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM event WHERE task_id = 1")
        engine.dispose()

        bench.hub.hear([told_elsewhere(1)])

        await until(lambda: all(reader.has_ended for reader in readers))


async def test_finished_task_that_runs_again_goes_on_in_the_stream(bench):
    """An end that is not the last event ends nothing."""
    await bench.finish(1)
    await bench.append(1)
    async with reading(bench, 1) as [reader]:
        await until(has_seen([reader], 1, 2, 3, 4, 5))
        assert not reader.has_ended


async def test_silence_is_told_by_a_comment(bench, monkeypatch):
    monkeypatch.setattr(feeds, "HEARTBEAT_SECONDS", 0.0)
    monkeypatch.setattr(subscribers, "HEARTBEAT_SECONDS", 0.001)
    beating = asyncio.create_task(repeat(bench.hub.beat, "heartbeats", first=0, every=0.001))
    async with reading(bench, 1) as live_ones, reading(bench, 1, after=9) as waiting:
        for reader in live_ones + waiting:
            await until(lambda reader=reader: reader.writes.count(HEARTBEAT) >= 2)
        slow = live_ones[0]
        slow.be_slow()
        await bench.append(1)
        slow.be_quick()
        await until(has_seen(live_ones, 1, 2, 3, 4))
    beating.cancel()


async def test_heartbeat_finds_what_nobody_told(bench, monkeypatch):
    bench.database.deliver = lambda notices: None
    async with reading(bench, 1) as [reader]:
        await live(bench, reader)
        await bench.append(1)

        bench.hub._feeds[1].beat(now=float("inf"))

        await until(has_seen([reader], 1, 2, 3, 4))


async def test_logout_ends_streams(bench, monkeypatch):
    async with reading(bench, 1, 2) as readers:
        await live(bench, *readers)
        bench.logged_in = False

        await bench.hub.look_at_logins()

        await until(lambda: all(reader.has_ended for reader in readers))


async def test_closing_ends_every_stream_and_those_who_come(bench):
    async with reading(bench, 1, 2) as readers, reading(bench, 2) as [empty]:
        await live(bench, *readers)

        bench.hub.close()

        await until(lambda: all(reader.has_ended for reader in [*readers, empty]))
        async with reading(bench, 1) as [late]:
            await until(lambda: late.has_ended)
            assert late.seqs == []


async def test_crowd_is_written_to_in_slices_between_which_others_join(bench, monkeypatch):
    monkeypatch.setattr(feeds, "SLICE", 2)
    async with reading(bench, 1, 9) as readers:
        await live(bench, *readers)
        late: list[Reader] = []
        for _ in range(30):
            await bench.append(1, size=10)
            late.append(Reader(bench, 1))
        await until(has_seen(readers + late, *range(1, 34)))
        for reader in late:
            await reader.leave()


async def test_chunk_on_its_way_is_not_written_to_who_read_it_meanwhile(bench, monkeypatch):
    """A crowd is written to in slices: one can fall behind, catch up and be live again before a chunk comes to it."""
    monkeypatch.setattr(feeds, "SLICE", 1)
    async with reading(bench, 1, 3) as readers:
        await live(bench, *readers)
        feed = bench.hub._feeds[1]
        [late] = [each for each in bench.hub._subscribers if each is feed.live[-1]]
        frame = b"id: %d\nevent: text.delta\ndata: {}\n\n"
        feed.hear(4, [frame % 4])
        feed.flush()  # the first slice is written, the others wait
        feed.hear(5, [frame % 5])
        feed.flush()
        late._leave_live(3)
        late.cursor = 5  # as if it had read both
        assert feed.join(late, feed.version)

        feed.hear(6, [frame % 6])
        await until(lambda: all(reader.seqs[-1:] == [6] for reader in readers))

        assert sorted(reader.seqs for reader in readers) == [[1, 2, 3, 4, 5, 6]] * 2 + [[1, 2, 3, 6]]


@pytest.mark.parametrize("way", WAYS)
async def test_last_event_stored_just_after_a_look_is_sent_before_the_end(each_bench, way: Way):
    each_bench.way = way
    read_page = each_bench.log.read_page

    async def read_and_grow(task_id: int, **wanted: int) -> Page:
        page = await read_page(task_id, **wanted)
        if wanted["after"] == 3 and not page.frames:
            await each_bench.finish(1)
        return page

    each_bench.log.read_page = read_and_grow
    async with reading(each_bench, 1, after=3) as [reader]:
        await until(lambda: reader.has_ended)

        assert reader.seqs == [4]


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_each_watcher_sees_all_once(each_bench, seed: int, monkeypatch):
    """Watchers come, go, get slow and quick again; frames come from here and elsewhere, and some notices are lost."""
    bench, chance = each_bench, random.Random(seed)
    monkeypatch.setattr(feeds, "SLICE", 3)
    readers: list[Reader] = []
    last = 3

    def deliver(notices) -> None:
        if chance.random() < 0.2:
            bench.hub.hear([told_elsewhere(notice.task_id) for notice in notices])
        elif chance.random() < 0.9:
            bench.hub.hear(notices)

    bench.database.deliver = deliver
    for _ in range(150):
        move = chance.random()
        if move < 0.5:
            count = chance.choice([1, 1, 1, 5, 300])
            await bench.append(1, count)
            last += count
        elif move < 0.7:
            bench.way = chance.choice(WAYS)
            readers.append(Reader(bench, 1, chance.randint(0, last)))
        elif readers and move < 0.8:
            chance.choice(readers).be_slow()
        elif readers and move < 0.9:
            chance.choice(readers).be_quick()
        elif readers and move < 0.93:
            reader = readers.pop(chance.randrange(len(readers)))
            reader.be_quick()
            await reader.leave()
            assert reader.seqs == list(range(reader.after + 1, reader.after + 1 + len(reader.seqs)))
        else:
            await asyncio.sleep(chance.choice([0, 0.001]))  # a move of the fuzz: others get on; nothing is waited for
    for reader in readers:
        reader.be_quick()
    bench.hub.hear([EVERYTHING])
    for reader in readers:
        await until(lambda reader=reader: reader.seqs == list(range(reader.after + 1, last + 1)))
        await reader.leave()
    await until(lambda: not bench.hub._feeds and not bench.hub._works)
