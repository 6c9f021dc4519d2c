"""Records every tool call by itself, so that none runs twice.

`tool.started` and the call's row commit together before its body runs; `tool.finished`, the result and what the tool
left in the run's memory commit together after it. Whoever takes the run over finds a finished call's result here, tells
the model of a started one that it was interrupted, and runs neither again. Only a call that does nothing but wait is
waited for on (`RESUMABLE`).
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic_ai import RunContext
from pydantic_ai.messages import BinaryContent, ToolReturn, ToolReturnPart
from pydantic_ai.toolsets import AbstractToolset, WrapperToolset
from pydantic_ai.toolsets.abstract import ToolsetTool
from pydantic_core import to_jsonable_python
from sqlalchemy import Connection

from beray.server.agent.budget import check_tool_call
from beray.server.agent.conversation import images
from beray.server.agent.outbox import Outbox
from beray.server.agent.shown_args import shown_args
from beray.server.agent.stuck import Stuck, fingerprint_of
from beray.server.agent.tools.base import Answer, Opening, Toolbox, ToolError, title_of
from beray.server.agent.tools.build import OPENINGS, RESUMABLE, WATCHED
from beray.server.agent.tools.catalogue import CHANGES_FILES
from beray.server.agent.wellformed import wellformed
from beray.server.db import agent_runs
from beray.server.db.agent_runs import ToolCallRow
from beray.server.db.messages import mark_delivered
from beray.server.errors import Refused
from beray.server.events.log import Fenced, NewEvent
from beray.server.messages import text
from beray.server.work_dirs.listing import FileChange, Snapshot, compare

log = logging.getLogger(__name__)

MOST_CHANGES = 200  # file.changed events of one call; unpacking an archive makes thousands

Save = Callable[[Connection], None]


@dataclass
class Recorder:
    """The calls of one run.

    Attributes:
        outbox: The way to the log; a call's end waits in it for what follows at once.
        save: Writes the run's memory, for use in the transaction of an event.
        open_calls: Calls whose body runs: id and time of start.
        asked: Calls of an answer that this process got: nothing is recorded of them before they begin.
    """

    box: Toolbox
    outbox: Outbox
    save: Save
    open_calls: dict[str, int] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    _settled: set[str] = field(default_factory=set)

    async def call(
        self, name: str, args: dict[str, Any], call_id: str, body: Callable[[], Awaitable[Answer]], *, is_watched: bool
    ) -> Any:
        """The call's result: from the record, or by running `body`; `is_watched`: it may change any file."""
        row = await self._find(call_id)
        self._settled.add(call_id)
        if row is None or (row.result is None and name in RESUMABLE):
            await self._begin(name, args, call_id, row)
            return self._returned(call_id, await self._run(name, args, call_id, body, is_watched=is_watched))
        if row.result is None:
            answer = self._interrupted()
            self._finish(call_id, answer, started_at=row.started_at)
            return self._returned(call_id, answer)
        return self._returned(call_id, await asyncio.to_thread(_recorded, row.result))

    async def note_refused(self, part: ToolReturnPart, args: dict[str, Any]) -> None:
        """A requested call came to its end; if its body never ran (unknown tool, wrong arguments), say so once.

        Args:
            part: What the model is told.
            args: What it was called with, as the model gave it.
        """
        call_id = part.tool_call_id
        if call_id in self._settled or await self._find(call_id) is not None:
            return
        self._settled.add(call_id)
        self.box.has_failure = True
        now = self.box.run.clock()
        answer = Answer(part.model_response_str(), text("agent_call_refused", self.box.run.language), ok=False)
        row = ToolCallRow(call_id, wellformed(part.tool_name)[:64], now, None, None)
        stuck = self._note_repeats(row.name, args, answer)
        self._finish(call_id, answer, started_at=now, new_row=row)
        if stuck is not None:
            raise stuck

    def close_open(self, reason: str) -> None:
        """Say of the calls that still run that they have been ended."""
        for call_id, started_at in list(self.open_calls.items()):
            answer = Answer("Ended before it was done.", text(reason, self.box.run.language), ok=False)
            self._finish(call_id, answer, started_at=started_at)

    async def _find(self, call_id: str) -> ToolCallRow | None:
        if call_id in self.asked:
            return None
        run = self.box.run
        await self.outbox.flush_to_read()
        return await run.database.read(
            lambda connection: agent_runs.find_tool_call(connection, run.task_id, run.run, call_id)
        )

    async def _begin(self, name: str, args: dict[str, Any], call_id: str, row: ToolCallRow | None) -> None:
        """A call's body is to run: for the first time, or on, after a crash."""
        if row is None:
            await self._start(name, args, call_id)
        else:
            await self.outbox.flush()  # it may wait for long
            self._note_begun(call_id, row.started_at)

    async def _start(self, name: str, args: dict[str, Any], call_id: str) -> None:
        run, used = self.box.run, self.box.progress.used
        check_tool_call(used.sums, run.ledger.limits.task)
        if run.ledger.limits_tool_calls:
            await self.outbox.flush_to_read()
        await run.ledger.check_tool_call()
        used.tool_calls += 1
        started_at = run.clock()
        self._note_begun(call_id, started_at)
        row = ToolCallRow(call_id, name, started_at, None, None)
        opening = OPENINGS[name](self.box, call_id, args) if name in OPENINGS else Opening()

        def also(connection: Connection) -> None:
            agent_runs.start_tool_call(connection, run.task_id, run.run, row)
            opening.also(connection)

        started = NewEvent("tool.started", request_fields(call_id, name, args))
        self.outbox.hold(started, *opening.events, also=also)
        await self.outbox(also=self.save)

    def _note_begun(self, call_id: str, started_at: int) -> None:
        self.box.call_id, self.box.call_started_at = call_id, started_at
        self.open_calls[call_id] = started_at

    async def _run(
        self, name: str, args: dict[str, Any], call_id: str, body: Callable[[], Awaitable[Answer]], *, is_watched: bool
    ) -> Answer:
        before = await self._snapshot() if is_watched else Snapshot()
        answer = self.box.visible(await self._answer(name, body))
        after = await self._snapshot() if is_watched else Snapshot()
        changes = [*answer.changes, *compare(before, after)][:MOST_CHANGES]
        answer = replace(answer, events=[*map(_changed, changes), *answer.events])
        stuck = self._note_repeats(name, args, answer)
        self._finish(call_id, answer, started_at=self.open_calls[call_id])
        if stuck is not None:
            raise stuck
        return answer

    def _note_repeats(self, name: str, args: dict[str, Any], answer: Answer) -> Stuck | None:
        """Remember the call, to be stored with its end; the reason to end the run, if it goes round in circles."""
        rules, repeats = self.box.run.stuck, self.box.progress.repeats
        if rules is None:
            return None
        fingerprint = fingerprint_of(name, args, answer.text, ok=answer.ok)
        verdict, times = repeats.note_call(fingerprint, ok=answer.ok, rules=rules)
        if verdict == "warn":
            repeats.warn(name, args, times)
        return Stuck(name, times) if verdict == "stuck" else None

    async def _answer(self, name: str, body: Callable[[], Awaitable[Answer]]) -> Answer:
        try:
            return await body()
        except Fenced:
            raise
        except ToolError as error:
            return self._failed(str(error))
        except Refused as refused:
            return self._failed(str(refused))
        except Exception:  # a tool's own fault must not end the task: the model can go another way
            log.exception("tool failed", extra={"task_id": self.box.run.task_id, "tool": name})
            return self._failed("The tool failed inside the server. Try another way.")

    def _failed(self, reason: str) -> Answer:
        return Answer(f"Error: {reason}", reason.partition("\n")[0][:300], ok=False)

    def _interrupted(self) -> Answer:
        return Answer(
            "Interrupted: the server stopped while this call ran, and its outcome is unknown. It was not run again. "
            "Inspect what it left behind before you decide to repeat it.",
            text("agent_call_interrupted", self.box.run.language),
            ok=False,
        )

    def _returned(self, call_id: str, answer: Answer) -> ToolReturn[str | list[str | BinaryContent]]:
        self.box.has_failure = self.box.has_failure or not answer.ok
        content = images.with_pictures(answer.text, call_id, answer.pictures)
        return ToolReturn(return_value=content, metadata={"ok": answer.ok, "exit_code": answer.exit_code})

    def _finish(self, call_id: str, answer: Answer, *, started_at: int, new_row: ToolCallRow | None = None) -> None:
        run = self.box.run
        now = run.clock()
        finished = NewEvent(
            "tool.finished",
            {
                "call_id": call_id,
                "ok": answer.ok,
                "summary": wellformed(answer.summary),
                "exit_code": answer.exit_code,
                "duration_ms": now - started_at,
                "truncated": answer.truncated,
            },
        )
        kept: dict[str, Any] = {"text": answer.text, "ok": answer.ok, "exit_code": answer.exit_code}
        if answer.pictures:
            kept["pictures"] = images.to_record(answer.pictures)
        result = json.dumps(kept)

        def also(connection: Connection) -> None:
            if new_row is not None:
                agent_runs.start_tool_call(connection, run.task_id, run.run, new_row)
            agent_runs.finish_tool_call(connection, run.task_id, run.run, call_id, finished_at=now, result=result)
            mark_delivered(connection, run.task_id, answer.messages, now)

        self.outbox.hold(finished, *answer.events, also=also)
        self.outbox.hold(also=self.save)
        self.open_calls.pop(call_id, None)

    async def _snapshot(self) -> Snapshot:
        try:
            return await asyncio.to_thread(self.box.run.work_dir.snapshot)
        except Refused as refused:  # a command may do anything to its folder: the run goes on
            log.warning("work_dir could not be looked at: %s", refused, extra={"task_id": self.box.run.task_id})
            nothing = Snapshot()
            nothing.is_complete = False
            return nothing


def _recorded(result: str) -> Answer:
    """A recorded result, as far as the model is told of it. Call it in a thread: it may hold megabytes of pictures."""
    kept = json.loads(result)
    pictures = images.from_record(kept)
    return Answer(kept["text"], "", ok=kept["ok"], exit_code=kept["exit_code"], pictures=pictures)


def _changed(change: FileChange) -> NewEvent:
    return NewEvent("file.changed", {"path": change.path, "change": change.change, "size": change.size})


def request_fields(call_id: str, name: str, args: dict[str, Any]) -> dict[str, Any]:
    """The fields of `tool.requested` and `tool.started`; long arguments are cut, for events are kept for ever."""
    shown = shown_args(args)
    return {"call_id": call_id, "name": name, "args": shown, "title": title_of(name, shown)}


@dataclass
class RecordedToolset(WrapperToolset[None]):
    """Tools whose every call goes through the recorder."""

    recorder: Recorder

    def __init__(self, wrapped: AbstractToolset[None], recorder: Recorder) -> None:
        super().__init__(wrapped)
        self.recorder = recorder
        self._tools: dict[str, ToolsetTool[None]] | None = None

    async def for_run(self, ctx: RunContext[None]) -> AbstractToolset[None]:
        """These, to be looked at anew; sources are opened once for all."""
        return RecordedToolset(self.wrapped, self.recorder)

    async def for_run_step(self, ctx: RunContext[None]) -> AbstractToolset[None]:
        """The same: the library would copy and list them all again."""
        return self

    async def get_tools(self, ctx: RunContext[None]) -> dict[str, ToolsetTool[None]]:
        """The tools, whoever gives them, for one call at a time: the second may need what the first one made.

        Listed once for a request, or for an answer's calls; the library asks again and again.
        """
        if self._tools is None:
            tools = await self.wrapped.get_tools(ctx)
            self._tools = {
                name: replace(tool, tool_def=replace(tool.tool_def, sequential=True)) for name, tool in tools.items()
            }
        return self._tools

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[None], tool: ToolsetTool[None]
    ) -> Any:
        """The call's result, by the record or by running it."""
        assert ctx.tool_call_id is not None, "a call from a model has an id"

        async def body() -> Answer:
            answer: Answer = await self.wrapped.call_tool(name, tool_args, ctx, tool)
            return answer

        is_watched = name in WATCHED or bool((tool.tool_def.metadata or {}).get(CHANGES_FILES))
        return await self.recorder.call(
            name, to_jsonable_python(tool_args), ctx.tool_call_id, body, is_watched=is_watched
        )
