"""Hears what other processes have committed: one LISTEN connection for the whole process.

Notices are lost with the connection, so after each reconnection everybody looks everywhere. A connection that says
nothing for a while is asked whether it still lives.
"""

import asyncio
import logging
import os
import selectors
import threading
from collections.abc import Callable
from typing import Any

import psycopg

from beray.server.db.faults import one_line
from beray.server.db.notices import EVERYTHING, Deliver, Notice, decode

SILENT_SECONDS = 15.0  # then the connection is asked whether it lives
RECONNECT_SECONDS = 0.5
CLOSE_SECONDS = 10.0

log = logging.getLogger("beray.db")


class Listener:
    """Delivers the notices of other processes on the loop it was started on.

    Args:
        connect: Makes a connection that listens.
        deliver: Gets the notices.
        note_reachable: Told when the connection is lost, and when there is one.
        origin: The first word of this process' own payloads: what it sent itself it has delivered already.
    """

    def __init__(
        self,
        connect: Callable[[], "psycopg.Connection[Any]"],
        *,
        deliver: Deliver,
        note_reachable: Callable[[bool], None],
        origin: str,
    ) -> None:
        self._connect = connect
        self._deliver = deliver
        self._note_reachable = note_reachable
        self._origin = origin
        self._is_stopping = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._wake_read, self._wake_write = os.pipe()
        self._is_reachable = True
        self._surprise: str | None = None

    def start(self) -> None:
        """Begin to listen: from here on nothing is missed. Blocks until the connection is there.

        Raises:
            psycopg.Error: It can't be had.
        """
        self._loop = asyncio.get_running_loop()
        connection = self._connect()
        self._thread = threading.Thread(target=self._work, args=(connection,), name="beray-db-listener", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening. Blocks for a moment."""
        self._is_stopping.set()
        os.write(self._wake_write, b"x")
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _work(self, first: "psycopg.Connection[Any]") -> None:
        self._follow_until_lost(lambda: first)
        while not self._is_stopping.wait(RECONNECT_SECONDS):
            self._follow_until_lost(self._reconnect)

    def _reconnect(self) -> "psycopg.Connection[Any]":
        connection = self._connect()
        log.warning("connected to the database again")
        self._note(is_reachable=True)
        self._hand_on([EVERYTHING])  # what was said while nobody listened
        return connection

    def _follow_until_lost(self, connect: Callable[[], "psycopg.Connection[Any]"]) -> None:
        try:
            with connect() as connection:
                self._follow(connection)
        except psycopg.Error as error:
            if not self._is_stopping.is_set():
                if self._is_reachable:  # said once, not at each try
                    log.warning("the connection to the database was lost; trying until it is back: %s", one_line(error))
                self._note(is_reachable=False)
        except Exception as error:  # the edge of the thread, which must not end: nobody else listens
            if not self._is_stopping.is_set():
                if repr(error) != self._surprise:  # said once too
                    log.exception("listening to the database failed as nobody foresaw; connecting anew")
                self._surprise = repr(error)
                self._note(is_reachable=False)

    def _note(self, *, is_reachable: bool) -> None:
        if is_reachable != self._is_reachable:
            self._is_reachable = is_reachable
            self._call(lambda: self._note_reachable(is_reachable))

    def _follow(self, connection: "psycopg.Connection[Any]") -> None:
        with selectors.PollSelector() as selector:  # select() counts files to 1023 only, and there may be more streams
            selector.register(connection, selectors.EVENT_READ)
            selector.register(self._wake_read, selectors.EVENT_READ)
            while not self._is_stopping.is_set():
                if not selector.select(SILENT_SECONDS):
                    connection.execute("SELECT 1")
                self._hand_on(self._foreign([notify.payload for notify in connection.notifies(timeout=0)]))

    def _foreign(self, payloads: list[str]) -> list[Notice]:
        """The notices of others, each once."""
        said = (payload.partition(" ") for payload in payloads)
        return list(
            dict.fromkeys(notice for origin, _, rest in said if origin != self._origin for notice in decode(rest))
        )

    def _hand_on(self, notices: list[Notice]) -> None:
        if notices:
            self._call(lambda: self._deliver(notices))

    def _call(self, call: Callable[[], None]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(call)
