"""A run's memory in this process, and how it gets into the database. Imports the model library."""

import time
from collections.abc import Callable

from pydantic_ai.messages import ModelMessage, ModelMessagesTypeAdapter, ModelRequest, UserPromptPart
from sqlalchemy import Connection

from beray.protocol.types import Usage
from beray.server.agent.conversation import images
from beray.server.agent.conversation.history import first_messages, with_said
from beray.server.agent.progress import Progress
from beray.server.agent.run import AgentRun
from beray.server.db import agent_runs
from beray.server.db.usage import UsedSums


class RunMemory:
    """The conversation, how far the run is, and what it has used.

    Args:
        run: The run.
        progress: What was stored of it; changed as turns are played.
    """

    def __init__(self, run: AgentRun, progress: Progress) -> None:
        self.progress = progress
        self._run = run
        self.messages: list[ModelMessage] = ModelMessagesTypeAdapter.validate_json(progress.messages)
        self._written: list[ModelMessage] | None = None
        self._dumped: tuple[list[ModelMessage], bytes] | None = None
        self._began_at = 0.0  # by the monotonic clock: a clock that is set must not use up a run
        self._elapsed_before_ms = 0
        self._stored = progress.used.sums

    async def restore_pictures(self) -> None:
        """Put the pictures back into a conversation that was loaded; to be called before the first turn."""
        self.messages = await images.filled(self.messages, self._run)

    @property
    def picture_bytes(self) -> int:
        """What the pictures in the conversation hold."""
        return images.count_bytes(self.messages)

    def begin_turn(self) -> None:
        """Count time from now on; the time between two attempts doesn't count."""
        self._began_at, self._elapsed_before_ms = time.monotonic(), self.progress.used.elapsed_ms

    def end_turn(self) -> None:
        """Count time up to now, whenever that is committed: the next turn counts on from here."""
        self.progress.used.elapsed_ms = self._elapsed_ms

    @property
    def seconds_left(self) -> float | None:
        """Until the run's time is up; None: it has all the time."""
        most = self._run.ledger.limits.task.wall_seconds
        return None if most is None else max(most - self._elapsed_ms / 1000, 0.0)

    def skip(self, seconds: float) -> None:
        """Leave out so much of the time that has just passed: the user was waited for."""
        self._began_at += seconds

    async def begin(self) -> None:
        """Make the conversation, unless it has begun."""
        if not self.messages:
            self.messages = await images.filled(await first_messages(self._run), self._run)

    def hear(self, texts: list[str]) -> None:
        """Add to the next request what the user has said, or answer an answer with it that was to be the last."""
        self.messages = with_said(self.messages, texts)

    def tell(self, note: str) -> None:
        """Add to the next request what the service has to say."""
        request = self.messages[-1]
        assert isinstance(request, ModelRequest), "what leads to an answer is a request"
        self.messages = [*self.messages[:-1], ModelRequest(parts=[*request.parts, UserPromptPart(note)])]

    def drop_answer(self) -> None:
        """Forget the latest message: an answer that held nothing."""
        self.messages = self.messages[:-1]

    def answer_with(self, note: str) -> None:
        """Answer the latest message, which ends nothing, with what the service has to say."""
        self.messages = [*self.messages, ModelRequest(parts=[UserPromptPart(note)])]

    def usage(self) -> Usage:
        """What has been used, as the wire shows it."""
        return self.progress.usage(self._run.model.kind)

    @property
    def used_since(self) -> UsedSums:
        """What has been used since the last commit: the day's sums do not have it yet."""
        return self.progress.used.sums.minus(self._stored)

    def save_changed(self) -> Callable[[Connection], None]:
        """What writes everything, but leaves out the conversation if that was written before, and has stayed the same.

        Ask for it outside of the transaction, which may be tried more than once.
        """
        return self.save_state if self._written is self.messages else self.save_all

    def save_all(self, connection: Connection) -> None:
        """Write everything; for use in the transaction of the event that shows it."""
        run = self._run
        self.progress.messages = self._dump()
        self._count(connection)
        agent_runs.save_checkpoint(connection, run.task_id, run.run, self.progress.to_row())
        self._written = self.messages

    def _dump(self) -> bytes:
        """The conversation as it is stored. Made once for each: it takes the writer's time, which all tasks share."""
        if self._dumped is None or self._dumped[0] is not self.messages:  # it is replaced, never changed in place
            self._dumped = self.messages, ModelMessagesTypeAdapter.dump_json(images.emptied(self.messages))
        return self._dumped[1]

    def save_state(self, connection: Connection) -> None:
        """Write everything but the conversation."""
        run = self._run
        self._count(connection)
        row = self.progress.to_row()
        agent_runs.save_state(connection, run.task_id, run.run, usage=row.usage, state=row.state)

    def save_usage(self, connection: Connection) -> None:
        """Write what has been used and nothing else: what else is in memory may not be true of the log."""
        run = self._run
        self._count(connection)
        agent_runs.save_usage(connection, run.task_id, run.run, self.progress.to_row().usage)

    def _count(self, connection: Connection) -> None:
        self.progress.used.elapsed_ms = self._elapsed_ms
        self._run.ledger.note(connection, self.progress.used)
        self._stored = self.progress.used.sums

    @property
    def _elapsed_ms(self) -> int:
        return self._elapsed_before_ms + round((time.monotonic() - self._began_at) * 1000)
