"""What an agent is given to do one run of a task, and what it gives back. Everything it needs comes as an argument."""

import asyncio
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection

from beray.protocol.types import TaskError, Usage
from beray.server.agent.ledger import Ledger
from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.models.connections import ModelConnections
from beray.server.agent.models.prices import PriceTable
from beray.server.agent.stuck import StuckRules
from beray.server.agent.tools.catalogue import ToolSource
from beray.server.clock import Clock
from beray.server.db.connect import Queries
from beray.server.events.log import NewEvent
from beray.server.messages import Language
from beray.server.sandbox.base import Limits, Sandbox
from beray.server.work_dirs.task_room import TaskRoom
from beray.server.work_dirs.work_dir import WorkDir


class Emit(Protocol):
    """Append events to the task's log, fenced by the attempt; returns once they are committed."""

    async def __call__(self, *events: NewEvent, also: Callable[[Connection], None] | None = None) -> None:
        """`also` makes further changes in the same transaction."""
        ...


@dataclass(frozen=True)
class Asking:
    """How a question reaches the user.

    Attributes:
        seconds: How long an answer is waited for.
        watching: Gives an event that is set whenever the task's log has grown: an answer is an entry of it.
    """

    seconds: int
    watching: Callable[[], AbstractContextManager[asyncio.Event]]


@dataclass(frozen=True)
class AgentRun:
    """One run of a task.

    Attributes:
        goal: What the run was begun with: the task's goal, or the message that began a further run.
        tools: Names of the tools the model may use.
        model: The task's model.
        fallback: Models that take over in turn when it has failed for good.
        ledger: Counts what the run uses, and knows its limits.
        prices: What answers cost.
        context_tokens: What the model's context takes, where the operator has said so.
        stuck: When the run counts as stuck; None: never.
        sources: Those of them that are not built in.
        room: How much the task's files may take on the disk, which each command asks for.
        uid: Uid its commands run under when the server is root.
        python: Interpreter inside the sandbox; None: no python tool.
        output_dir: Folder outside the work_dir for whole outputs of tool calls, one file a call.
        first_turn: Where to go on; above 1 the turns before have been played, and the end of the last one was refused.
        asking: None: the user can't be asked.
        connections: To the models' servers; None: the run makes its own, and closes them.
    """

    task_id: int
    run: int
    attempt: int
    goal: str
    tools: tuple[str, ...]
    model: ModelChoice
    ledger: Ledger
    prices: PriceTable
    context_tokens: int | None
    stuck: StuckRules | None
    language: Language
    work_dir: WorkDir
    output_dir: str
    sandbox: Sandbox
    sandbox_limits: Limits
    room: TaskRoom
    uid: int | None
    python: str | None
    database: Queries
    emit: Emit
    clock: Clock
    fallback: tuple[ModelChoice, ...] = ()
    sources: tuple[ToolSource, ...] = ()
    first_turn: int = 1
    asking: Asking | None = None
    connections: ModelConnections | None = None

    def models_left(self, failed: Collection[str]) -> list[ModelChoice]:
        """The models that may work, in their order, after these have failed for good."""
        return [choice for choice in (self.model, *self.fallback) if choice.name not in failed]

    def model_at_work(self, failed: Collection[str]) -> ModelChoice:
        """The first of them; the task's own, where none is left to take over."""
        return next(iter(self.models_left(failed)), self.model)


@dataclass(frozen=True)
class Outcome:
    """How a run ended by itself (a stop or a crash is not an outcome).

    Attributes:
        usage: None: what has been recorded so far.
        turns: How many turns it has played.
    """

    is_completed: bool
    result: str | None
    error: TaskError | None
    usage: Usage | None
    turns: int = 0
