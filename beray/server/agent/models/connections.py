"""The clients by which models are asked, kept over runs: each has connections, and a new one costs a handshake.

Cheap to import: the clients are made by whoever has loaded their libraries.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from beray.server.agent.models.choice import ModelChoice


class Client(Protocol):
    """A provider's client."""

    async def close(self) -> None:
        """Close its connections."""
        ...


T = TypeVar("T", bound=Client)

log = logging.getLogger("beray.agent")


class ModelConnections:
    """One client for each server of models, as long as this is not closed. For one event loop."""

    def __init__(self) -> None:
        self._clients: dict[tuple[object, ...], Any] = {}
        self._making = threading.Lock()  # runs are set up in threads

    def client(self, choice: ModelChoice, make: Callable[[ModelChoice], T]) -> T:
        """The client for the server of `choice`; `make` makes it where there is none yet."""
        key = (make, choice.base_url, choice.api_key, choice.timeout_seconds)
        with self._making:
            if key not in self._clients:
                self._clients[key] = make(choice)
            client: T = self._clients[key]
            return client

    async def close(self) -> None:
        """Close all connections; when nothing is asked any more."""
        clients, self._clients = list(self._clients.values()), {}
        ends = await asyncio.gather(*(client.close() for client in clients), return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception):  # it is of no use to anybody any more, and the others are closed
                log.warning("a model's connections could not be closed", exc_info=end)
