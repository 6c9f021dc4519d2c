"""Tools that change nothing in the work_dir: the plan people see, and the end."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from beray.server.agent.conversation.inbox import has_waiting
from beray.server.agent.tools.base import Answer, Toolbox, ToolError
from beray.server.agent.tools.whereabouts import astray
from beray.server.errors import Refused
from beray.server.events.log import NewEvent
from beray.server.messages import text


class PlanItem(BaseModel):
    """One step of a plan."""

    text: Annotated[str, Field(min_length=1, max_length=500)]
    status: Literal["todo", "doing", "done"] = "todo"


def build_update_plan(box: Toolbox) -> Callable[..., Awaitable[Answer]]:
    """The tool for one run."""

    async def update_plan(items: Annotated[list[PlanItem], Field(max_length=50)]) -> Answer:
        """Show the user your plan, or how far it is done; replaces the plan shown before.

        Args:
            items: Every step in order, each with its status: todo, doing or done.
        """
        plan = [{"text": item.text, "status": item.status} for item in items]
        box.progress.plan = plan
        done = sum(item.status == "done" for item in items)
        return Answer(
            "The plan is shown.",
            text("agent_plan", box.run.language, done=done, count=len(items)),
            events=[NewEvent("plan.updated", {"items": plan})],
        )

    return update_plan


def build_finish(box: Toolbox) -> Callable[..., Awaitable[Answer]]:
    """The tool for one run."""

    async def finish(
        summary: Annotated[str, Field(min_length=1, max_length=20_000)],
        files: Annotated[list[str] | None, Field(max_length=100)] = None,
    ) -> Answer:
        """End the task, once it is done and checked, or once it is clear that it can't be done.

        Args:
            summary: For the user, in the user's language: what was done, what was verified and how, what is missing.
            files: Files of the work_dir that are the result.
        """
        if box.has_failure:
            raise ToolError("Not finished: an earlier call in the same answer failed. Look at its result first.")
        for path in files or []:
            await _check_file(box, path)
        if await has_waiting(box.run):
            raise ToolError("Not finished: the user has sent a message meanwhile. It follows; go by it.")
        box.progress.final_text = summary
        return Answer("The task has ended.", text("agent_finished", box.run.language))

    return finish


async def _check_file(box: Toolbox, path: str) -> None:
    try:
        await asyncio.to_thread(box.run.work_dir.read_bytes, path, limit=1)
    except Refused as refused:
        why = await astray(box, path, refused)
        raise ToolError(f"Not finished: {why} Name only files that are there.") from refused
