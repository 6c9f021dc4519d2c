"""A TCP proxy that cuts connections where a reader of an event stream could go wrong, each place in its turn."""

import asyncio
import itertools
import random
import re
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from tests.support.proxy import CHUNK, Proxy

How = Literal["FIN", "RST", "silence"]

PLACES: Final = {
    "before the first byte": re.compile(rb"\A"),
    "in the head": re.compile(rb"\A.{40}", re.DOTALL),
    "in a chunk's size": re.compile(rb"\r\n[0-9a-f]"),
    "between CR and LF": re.compile(rb"\r"),
    "in a character": re.compile(rb"[\xc2-\xf4]"),
    "in an event's end": re.compile(rb"\n(?=\n)"),
    "anywhere": re.compile(rb""),
}
"""Each ends where the connection does."""
EARLY: Final = ("before the first byte", "in the head")

EVENT: Final = re.compile(rb"\ndata: .*?\n\n", re.DOTALL)
MOST_FRUITLESS: Final = 4  # connections in a row that bring no event: a client gives up some time
MOST_EVENTS: Final = 8
MOST_BYTES: Final = 400
LINGER_NOT: Final = struct.pack("ii", 1, 0)  # a close sends RST, not FIN


@dataclass(frozen=True)
class Cut:
    """Where and how a connection ends: at the first such place behind so many events and bytes."""

    place: str
    how: How
    events: int
    bytes: int

    def end(self, sent: bytes) -> int | None:
        """How much of what the server sends gets through; None while all of it does."""
        start = 0
        for _ in range(self.events):
            found = EVENT.search(sent, start)
            if found is None:
                return None
            start = found.end()
        if start + self.bytes > len(sent):
            return None
        found = PLACES[self.place].search(sent, start + self.bytes)
        return None if found is None else found.end()


class CuttingProxy(Proxy):
    """Use it as a context manager.

    Args:
        port: The server's, on loopback.
        chance: Deals the cuts.

    Attributes:
        made: Place and manner of each cut so far.
    """

    def __init__(self, port: int, chance: random.Random) -> None:
        super().__init__(lambda: [port])
        self.made: list[tuple[str, How]] = []
        self._chance = chance
        self._kinds = self._deal()
        self._fruitless = 0

    def _deal(self) -> Iterator[tuple[str, How]]:
        """All kinds in a new order, again and again; each time one silence, which takes all the client's patience."""
        while True:
            kinds: list[tuple[str, How]] = list(itertools.product(PLACES, ("FIN", "RST")))
            kinds.append((self._chance.choice(list(PLACES)), "silence"))
            self._chance.shuffle(kinds)
            yield from kinds

    def _next_cut(self) -> Cut:
        is_due = self._fruitless >= MOST_FRUITLESS
        place, how = next(kind for kind in self._kinds if not (is_due and kind[0] in EARLY))
        if place in EARLY:
            cut = Cut(place, how, events=0, bytes=0)
        else:
            events = min(int(self._chance.expovariate(0.5)), MOST_EVENTS)
            cut = Cut(place, how, events=max(events, is_due), bytes=self._chance.randrange(MOST_BYTES))
        self._fruitless = 0 if cut.events else self._fruitless + 1
        return cut

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream = await self._connect()
        if upstream is None:
            return
        back, out = upstream
        ways = [
            asyncio.create_task(_ask(reader, out)),
            asyncio.create_task(self._answer(back, writer, self._next_cut())),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            out.transport.abort()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _answer(self, back: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: Cut) -> None:
        writer.transport.set_write_buffer_limits(high=0)  # so that `drain` waits until all has gone
        sent, passed = b"", 0
        while data := await back.read(CHUNK):
            sent += data
            end = cut.end(sent)
            writer.write(sent[passed:end])
            await writer.drain()
            passed = len(sent)
            if end is not None:
                await self._cut(writer, cut)
                return

    async def _cut(self, writer: asyncio.StreamWriter, cut: Cut) -> None:
        self.cuts += 1
        self.made.append((cut.place, cut.how))
        if cut.how == "silence":
            await asyncio.Event().wait()  # until the client goes, which ends the other way
        elif cut.how == "RST":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)


async def _ask(reader: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        out.write(data)
        await out.drain()
