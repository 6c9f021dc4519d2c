"""One turn of a run: ask the model, run its tools, remember. Imports the model library.

The library is driven node by node, always by `node.stream()`: iterating over a run makes requests that don't stream.
Asking and running tools are two of its runs, the second resumed from messages that end in the model's answer. A
takeover resumes in exactly that way, so what happens after a crash is what happens always.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import pydantic_ai
from pydantic_ai import Agent, FunctionToolset, UsageLimits
from pydantic_ai.exceptions import AgentRunError, ContentFilterError, OutputTokenLimitExceeded
from pydantic_ai.messages import (
    FunctionToolResultEvent,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ToolCallPart,
    UserPromptPart,
)
from pydantic_ai.run import AgentRun as LibraryRun
from pydantic_ai.settings import ModelSettings
from pydantic_graph import End
from sqlalchemy import Connection

from beray.protocol.types import TaskError
from beray.server.agent import faults
from beray.server.agent.budget import BudgetExceeded, describe_budget
from beray.server.agent.building import build_model, close_model
from beray.server.agent.coalesce import Coalescer
from beray.server.agent.progress import Progress
from beray.server.agent.prompts import system_prompt
from beray.server.agent.recording import RecordedToolset, Recorder, request_fields
from beray.server.agent.rules_model import RulesFailed
from beray.server.agent.run import AgentRun
from beray.server.agent.tools.base import Toolbox
from beray.server.agent.tools.build import build_tools
from beray.server.agent.wellformed import wellformed, wellformed_arguments, wellformed_json
from beray.server.db import agent_runs
from beray.server.events.log import NewEvent
from beray.server.messages import text

pydantic_ai.BANNER_ENABLED = False  # the library's advertisement has no place on a server's terminal

TEXT_EVENT_CHARACTERS: Final = 1024
MOST_EMPTY_ANSWERS: Final = 3
TOOL_RETRIES: Final = 20  # wrong calls within one answer; over answers the limit on requests counts
NO_LIMITS: Final = UsageLimits(request_limit=None)  # limits are ours: they must hold over crashes

_NUDGE: Final = "Your last answer was empty. Go on with a tool call, or end the task with an answer."
_NEWS: Final = "A note of the service, not of the user, about what runs in the background:"


class TurnPlayer:
    """Plays the turns of one run in this process.

    Args:
        run: The run.
        progress: Its memory, changed as turns are played.
    """

    def __init__(self, run: AgentRun, progress: Progress) -> None:
        self.progress = progress
        self._run = run
        self._box = Toolbox(run, progress)
        self._recorder = Recorder(self._box, self._save_state)
        self._model = build_model(run.model, run.language)
        tools: FunctionToolset[None] = FunctionToolset(
            build_tools(self._box),
            max_retries=TOOL_RETRIES,
            docstring_format="google",
            require_parameter_descriptions=True,
            sequential=True,  # the second command of an answer may need what the first one made
        )
        self._agent: Agent[None, str] = Agent(
            self._model,
            deps_type=type(None),
            instructions=system_prompt(run.tools) if run.model.kind == "model" else None,
            toolsets=[RecordedToolset(tools, self._recorder)],
            retries=TOOL_RETRIES,
            model_settings=ModelSettings(timeout=run.model.timeout_seconds, max_retries=0),
        )
        stored = ModelMessagesTypeAdapter.validate_json(progress.messages)
        self._messages: list[ModelMessage] = stored or [ModelRequest(parts=[UserPromptPart(wellformed(run.goal))])]
        self._texts: dict[str, list[str]] = {}
        self._late: list[NewEvent] = []
        self._started_at = 0.0  # by the monotonic clock: a clock that is set must not use up a run
        self._elapsed_ms = 0

    async def close(self) -> None:
        """End what runs in the background, and close the model's connections."""
        try:
            await asyncio.shield(self._box.background.close())
        finally:
            await close_model(self._run.model, self._model)

    async def play(self) -> None:
        """Play the turn that `progress` leads into; afterwards it leads into the next, or holds the outcome."""
        progress = self.progress
        self._started_at, self._elapsed_ms = time.monotonic(), progress.elapsed_ms
        self._late = []
        self._box.has_failure = False
        self._box.ends_at = self._started_at + self._run.limits.wall_seconds - self._elapsed_ms / 1000
        self._tell_news()
        resets = self._resets("takeover")
        await self._run.emit(*resets, NewEvent("step.started", self._step_fields()), also=self._save_all)
        try:
            async with self._deadline():
                await self._work()
        except BudgetExceeded as exceeded:
            await self._recorder.close_open("agent_call_ended")
            self._fail(describe_budget(exceeded, self._run.language))
        except RulesFailed as failed:
            self._fail(failed.error)
        except AgentRunError as error:
            self._fail(faults.describe(error, self._run.model, self._run.language))
        await self._end_turn()

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        """Raises BudgetExceeded when the run's wall time is up; time between attempts doesn't count."""
        most = self._run.limits.wall_seconds
        left = most - self._elapsed_ms / 1000
        try:
            async with asyncio.timeout(max(left, 0)) as deadline:
                yield
        except TimeoutError:
            if deadline.expired():
                raise BudgetExceeded("wall_seconds", most, most) from None
            raise

    def _tell_news(self) -> None:
        """Add to the next request which background processes have ended; committed with what says that it was told."""
        if self.progress.phase != "request":
            return
        news = self._box.background.news()
        if news:
            note = "\n".join([_NEWS, *news])
            self._messages = [*self._messages[:-1], self._extended(self._messages[-1], note)]

    def _extended(self, request: ModelMessage, note: str) -> ModelRequest:
        assert isinstance(request, ModelRequest), "what leads to an answer is a request"
        return ModelRequest(parts=[*request.parts, UserPromptPart(note)])

    async def _work(self) -> None:
        if self.progress.phase == "request":
            await self._ask()
            if not await self._take_answer():
                return
        await self._act()

    # ---- asking the model

    async def _ask(self) -> None:
        """Get the model's answer, trying again after transient faults."""
        tries = 0
        while True:
            tries += 1
            try:
                await self._ask_once()
                return
            except AgentRunError as error:
                if not faults.is_transient(error) or tries >= faults.MOST_TRIES:
                    raise
                await self._wait_to_retry(error, tries)

    async def _ask_once(self) -> None:
        self._check_budget()
        self._texts = {}
        async with self._resumed() as library_run:
            node = await self._first_node(library_run)
            assert Agent.is_model_request_node(node), "messages that end in a request lead to a request"
            await self._stream_text(node, library_run)
            node = await library_run.next(node)
            assert Agent.is_call_tools_node(node), "an answer leads to its tools"
            self._messages = list(library_run.all_messages())

    def _check_budget(self) -> None:
        used, limits = self.progress.used, self._run.limits
        if used.requests >= limits.requests:
            raise BudgetExceeded("requests", used.requests, limits.requests)
        tokens = used.input_tokens + used.output_tokens
        if tokens >= limits.tokens:
            raise BudgetExceeded("tokens", tokens, limits.tokens)

    async def _stream_text(self, node: Any, library_run: LibraryRun[None, str]) -> None:
        ids: dict[int, str] = {}
        async with (
            Coalescer(self._show_text, most_characters=TEXT_EVENT_CHARACTERS) as shown,
            node.stream(library_run.ctx) as events,
        ):
            async for event in events:
                if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                    ids[event.index] = self._new_message_id()
                    await self._put_text(shown, ids[event.index], event.part.content)
                elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                    await self._put_text(shown, ids[event.index], event.delta.content_delta)

    def _new_message_id(self) -> str:
        self.progress.message_count += 1
        return f"msg_{self._run.run}_{self.progress.message_count}"

    async def _put_text(self, shown: Coalescer[str], message_id: str, delta: str) -> None:
        self._texts.setdefault(message_id, []).append(delta)
        await shown.put(message_id, wellformed(delta))

    async def _show_text(self, group: list[tuple[str, str]]) -> None:
        """Emit deltas; a message's first is remembered with it, so that a takeover can take it back."""
        new = {message_id for message_id, _ in group} - set(self.progress.open_messages)
        self.progress.open_messages += sorted(new)
        events = [NewEvent("text.delta", {"message_id": message_id, "delta": delta}) for message_id, delta in group]
        await self._run.emit(*events, also=self._save_state if new else None)

    async def _wait_to_retry(self, error: Exception, tries: int) -> None:
        wait_seconds = faults.wait_seconds(error, tries)
        code = faults.code_of(error)
        retry = NewEvent("model.retry", {"attempt": tries, "wait_s": round(wait_seconds, 3), "code": code})
        await self._run.emit(*self._resets(code), retry, also=self._save_state)
        await asyncio.sleep(wait_seconds)

    def _resets(self, reason: str) -> list[NewEvent]:
        """Take back what was shown of an answer that never became whole."""
        events = [
            NewEvent("text.reset", {"message_id": message_id, "reason": reason})
            for message_id in self.progress.open_messages
        ]
        self.progress.open_messages = []
        return events

    # ---- what the model answered

    async def _take_answer(self) -> bool:
        """Remember the answer; whether it asks for tools."""
        answer = self._messages[-1]
        assert isinstance(answer, ModelResponse), "the last message is the answer"
        calls = self._tidy(answer)
        self._count(answer)
        self.progress.open_messages = []
        events = [
            NewEvent("text.done", {"message_id": message_id, "text": wellformed("".join(parts))})
            for message_id, parts in self._texts.items()
        ]
        events += [NewEvent("tool.requested", self._request_fields(call)) for call in calls]
        events.append(NewEvent("usage.updated", {"usage": self._usage()}))
        if not calls:
            self._late = events
            self._take_final(answer)
            return False
        self.progress.phase = "tools"
        self.progress.empty_answers = 0
        await self._run.emit(*events, also=self._save_all)
        return True

    def _tidy(self, answer: ModelResponse) -> list[ToolCallPart]:
        """Make text well-formed and give calls ids of ours (providers repeat theirs); the calls."""
        calls: list[ToolCallPart] = []
        for part in answer.parts:
            if isinstance(part, TextPart | ThinkingPart):
                part.content = wellformed(part.content)
            elif isinstance(part, ToolCallPart):
                part.args = wellformed_arguments(cast(str | dict[str, Any] | None, part.args))
                part.tool_name = wellformed(part.tool_name)
                part.tool_call_id = f"call_{self._run.run}_{self.progress.turn}_{len(calls)}"
                calls.append(part)
        return calls

    def _request_fields(self, call: ToolCallPart) -> dict[str, Any]:
        try:
            args = json.loads(call.args or "{}") if isinstance(call.args, str) or call.args is None else call.args
        except ValueError:
            args = None
        return request_fields(
            call.tool_call_id, call.tool_name[:64], wellformed_json(args) if isinstance(args, dict) else {}
        )

    def _count(self, answer: ModelResponse) -> None:
        used, usage = self.progress.used, answer.usage
        used.requests += 1
        used.input_tokens += usage.input_tokens if self._run.model.kind == "model" else 0
        used.output_tokens += usage.output_tokens if self._run.model.kind == "model" else 0
        used.is_measured = used.is_measured and bool(usage.input_tokens or usage.output_tokens)
        # prices are known of providers' own servers only; the same name elsewhere may cost anything
        if usage.cost is None or self._run.model.is_own_url:
            used.is_priced = False
        else:
            used.cost_usd += float(usage.cost)

    def _take_final(self, answer: ModelResponse) -> None:
        """An answer without tool calls ends the run, unless it is empty."""
        final = "".join(part.content for part in answer.parts if isinstance(part, TextPart)).strip()
        if answer.finish_reason == "content_filter":
            raise ContentFilterError("the provider withheld the answer")
        if final:
            self.progress.end(result=final)
            return
        if answer.finish_reason == "length":
            raise OutputTokenLimitExceeded("the answer reached the model's limit before it held anything")
        self.progress.empty_answers += 1
        if self.progress.empty_answers >= MOST_EMPTY_ANSWERS:
            self._fail(self._empty_error())
            return
        self._messages = [*self._messages[:-2], self._extended(self._messages[-2], _NUDGE)]

    def _empty_error(self) -> TaskError:
        language = self._run.language
        return {
            "code": "model_empty",
            "message": text("model_empty", language, model=self._run.model.name),
            "hint": text("model_empty_hint", language),
            "retryable": True,
        }

    # ---- running its tools

    async def _act(self) -> None:
        """Run the tools the last answer asks for; their results become the next request."""
        async with self._resumed() as library_run:
            node = await self._first_node(library_run)
            assert Agent.is_call_tools_node(node), "messages that end in calls lead to them"
            async with node.stream(library_run.ctx) as events:
                async for event in events:
                    if isinstance(event, FunctionToolResultEvent):
                        await self._recorder.note_refused(event.part)
            request_node = await library_run.next(node)
            assert Agent.is_model_request_node(request_node), "results lead to a request"
            # results live in the next request only: without it they would be lost, and the tools run again
            self._messages = [*library_run.all_messages(), request_node.request]
        if self.progress.final_text is not None:
            self.progress.end(result=self.progress.final_text)

    # ---- memory

    @asynccontextmanager
    async def _resumed(self) -> AsyncIterator[LibraryRun[None, str]]:
        async with self._agent.iter(None, message_history=self._messages, usage_limits=NO_LIMITS) as library_run:
            yield library_run

    async def _first_node(self, library_run: LibraryRun[None, str]) -> Any:  # the library has no public name for it
        start = library_run.next_node
        assert not isinstance(start, End), "a new run has something to do"
        return await library_run.next(start)

    def _fail(self, error: TaskError) -> None:
        self._late = [*self._resets(error["code"]), *self._late]
        self.progress.end(error=error)

    async def _end_turn(self) -> None:
        finished = NewEvent("step.finished", self._step_fields())
        if self.progress.outcome is None:
            self.progress.turn += 1
            self.progress.phase = "request"
        await self._run.emit(*self._late, finished, also=self._save_all)

    def _usage(self) -> dict[str, Any]:
        return dict(self.progress.used.shown(self._run.model.kind))

    def _step_fields(self) -> dict[str, Any]:
        return {"step": self.progress.turn, "usage": self._usage()}

    def _save_all(self, connection: Connection) -> None:
        run = self._run
        self.progress.messages = ModelMessagesTypeAdapter.dump_json(self._messages)
        self._note_time()
        agent_runs.save_checkpoint(connection, run.task_id, run.run, self.progress.to_row())

    def _save_state(self, connection: Connection) -> None:
        run = self._run
        self._note_time()
        row = self.progress.to_row()
        agent_runs.save_state(connection, run.task_id, run.run, usage=row.usage, state=row.state)

    def _note_time(self) -> None:
        self.progress.elapsed_ms = self._elapsed_ms + round((time.monotonic() - self._started_at) * 1000)
