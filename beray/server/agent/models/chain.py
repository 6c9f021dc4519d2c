"""The models of one run: which works now, and which takes over when it has failed for good."""

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from beray.server.agent.models import faults
from beray.server.agent.models.building import build_model
from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.models.connections import ModelConnections
from beray.server.agent.progress import Progress
from beray.server.agent.run import AgentRun
from beray.server.db import tasks as task_queries
from beray.server.events.log import NewEvent

if TYPE_CHECKING:
    from pydantic_ai.models import Model


class ModelChain:
    """The run's model, and its fallbacks in their order.

    What has failed is remembered in `progress`, so that a takeover does not begin with it again.

    Attributes:
        choice: The model that works.
        model: The model library's object for it.
    """

    def __init__(self, run: AgentRun, progress: Progress) -> None:
        self._run = run
        self._progress = progress
        self._connections = run.connections or ModelConnections()
        self.choice = run.model_at_work(progress.failed_models)
        self.model = self._build(self.choice)

    async def close(self) -> None:
        """Close the models' connections, if they are this run's own."""
        if self._connections is not self._run.connections:
            await self._connections.close()

    def give_up(self, error: Exception) -> ModelChoice | None:
        """The model that takes over after `error`; None: there is none, or it would fail for the same reason.

        The one that works is noted as failed; commit that with `save`, then `change_to` the other.
        """
        left = self._run.models_left({*self._progress.failed_models, self.choice.name})
        if not left or not faults.may_fall_back(error):
            return None
        self._progress.failed_models.append(self.choice.name)
        return left[0]

    def announce(self, following: ModelChoice, *, code: str) -> list[NewEvent]:
        """The events that say that `following` takes over."""
        change = {"from": self.choice.name, "to": following.name, "code": code}
        status = {
            "status": "running",
            "model": following.name,
            "model_kind": following.kind,
            "run": self._run.run,
            "attempt": self._run.attempt,
            "stop_requested": False,  # a stop that was asked for has cut the run before it gets here
        }
        return [NewEvent("model.fallback", change), NewEvent("task.status", status)]

    def save(self, connection: Connection, following: ModelChoice) -> None:
        """Make `following` the task's model."""
        task_queries.update_task(
            connection,
            self._run.task_id,
            model=following.name,
            model_kind=following.kind,
            updated_at=self._run.clock(),
        )

    async def change_to(self, following: ModelChoice) -> None:
        """Have `following` work from now on."""
        self.model = await asyncio.to_thread(self._build, following)  # its provider's client may have to be loaded
        self.choice = following

    def _build(self, choice: ModelChoice) -> "Model":
        run = self._run
        key = f"beray-task-{run.task_id}"
        return build_model(choice, run.language, connections=self._connections, cache_key=key)
