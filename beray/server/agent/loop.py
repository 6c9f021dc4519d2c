"""One run of a task, turn by turn. Cheap to import: the model library is loaded when the first turn is played.

A turn asks the model, then runs the tools it asked for. What a turn does is remembered by the checkpoint
(`progress.py`) and by the record of tool calls (`recording.py`), both written in the transaction of the event that
shows it. So a turn broken off by a crash continues where it was, with the model's answer if that had come, and a turn
that has ended is not played again.

A further run of a task goes on with the conversation, folder and plan of the one before. A run whose end was refused,
since its user had said something in the last moment, is called again with the number of the next turn.
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection

from beray.server.agent.progress import Progress
from beray.server.agent.run import AgentRun, Outcome
from beray.server.db import agent_runs
from beray.server.events.log import Fenced

if TYPE_CHECKING:
    from beray.server.agent.turn import TurnPlayer

KEEP_SECONDS: Final = 0.3  # a stop is over within a second
SHORT_BYTES: Final = 64 * 1024  # of a stored conversation, which is read in well under a millisecond

log = logging.getLogger(__name__)


async def run_agent(run: AgentRun) -> Outcome:
    """Play turns until the run has ended by itself, and say how.

    To stop it, cancel the task that awaits this; its commands are killed on the way out.

    Raises:
        Fenced: Another attempt has taken the run over.
    """
    session = _Session(run)
    try:
        return await session.play()
    except Fenced:
        raise
    except (asyncio.CancelledError, Exception):
        await session.keep_usage()
        raise
    finally:
        await session.close()


class _Session:
    """This process' part in a run."""

    def __init__(self, run: AgentRun) -> None:
        self._run = run
        self._player: TurnPlayer | None = None

    async def play(self) -> Outcome:
        """Play the turns that have not been played; how the run ended."""
        progress = await self._run.database.read(self._look)
        if progress.outcome is not None and progress.turn < self._run.first_turn:
            progress.go_on()
        if progress.outcome is None:
            self._player = player = await _make_player(self._run, progress)
            await player.open()
            while progress.outcome is None:
                await player.play()
        return self._outcome(progress)

    def _outcome(self, progress: Progress) -> Outcome:
        assert progress.outcome is not None, "the last turn has been played"
        error = progress.outcome["error"]
        return Outcome(
            is_completed=error is None,
            result=progress.outcome["result"],
            error=error,
            usage=progress.usage(self._run.model.kind),
            turns=progress.turn,
        )

    async def keep_usage(self) -> None:
        """Store what the turn that was cut has used, if that can be done at once."""
        if self._player is None:
            return
        try:
            async with asyncio.timeout(KEEP_SECONDS):
                await self._player.keep_usage()
        except Fenced:  # deleted, or another's: what was counted before is all that can be
            return
        except Exception:  # why the run ended is what must be told, and that is raised already
            log.warning("what was used last could not be stored", extra={"task_id": self._run.task_id}, exc_info=True)

    async def close(self) -> None:
        """End what runs in the background, and close the model's connections."""
        if self._player is not None:
            await self._player.close()

    def _look(self, connection: Connection) -> Progress:
        run = self._run
        row = agent_runs.load_checkpoint(connection, run.task_id, run.run)
        if row is not None:
            return Progress.from_row(row)
        earlier = agent_runs.load_last_before(connection, run.task_id, run.run)
        return Progress() if earlier is None else Progress.after(earlier[1])


_loaded: set[str] = set()
"""Providers whose libraries have been loaded."""


async def _make_player(run: AgentRun, progress: Progress) -> "TurnPlayer":
    """In a thread where that takes long: a second or two the first time, and a while with a long conversation."""
    provider = run.model_at_work(progress.failed_models).provider
    if provider in _loaded and len(progress.messages) < SHORT_BYTES:
        return _make_at_once(run, progress)
    player = await asyncio.to_thread(_make_at_once, run, progress)
    _loaded.add(provider)
    return player


def _make_at_once(run: AgentRun, progress: Progress) -> "TurnPlayer":
    from beray.server.agent.turn import TurnPlayer

    return TurnPlayer(run, progress)
