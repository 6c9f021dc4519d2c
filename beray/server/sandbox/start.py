"""Whether a command has been executed, as its process in the server learns it."""

import asyncio
from collections.abc import Callable

from beray.server.sandbox.base import SandboxError


class Start:
    """Settled once: by the news that the command was executed, by its end, or by why it could not be."""

    def __init__(self) -> None:
        self._settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def is_settled(self) -> bool:
        """Whether it is known."""
        return self._settled.done()

    def settle(self, error: Exception | None = None) -> None:
        """It was executed, or not for this reason; what was settled before stays."""
        if self._settled.done():
            return
        if error is None:
            self._settled.set_result(None)
        else:
            self._settled.set_exception(error)
            self._settled.exception()  # retrieved: whoever was waiting may have been cancelled

    async def wait(self, *, within_seconds: float, give_up: Callable[[], None]) -> None:
        """Until it is settled; gives up when it is not in time, could not be executed, or nobody waits any longer.

        Raises:
            SandboxError: It was not in time; or whatever it was settled with.
        """
        try:
            async with asyncio.timeout(within_seconds):
                await asyncio.shield(self._settled)
        except BaseException as error:
            give_up()
            if isinstance(error, TimeoutError):
                raise SandboxError(f"The command was not started within {within_seconds:g} s.") from error
            raise
