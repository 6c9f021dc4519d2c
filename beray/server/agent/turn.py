"""One turn of a run: ask the model, run its tools, remember. Imports the model library.

The model is asked directly (`asking.py`). Its calls are run by the library's agent, resumed from messages that end in
the answer: by its graph, node by node, always by `node.stream()`. A takeover resumes in exactly that way, so what
happens after a crash is what happens always.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from typing import Any, Final

import pydantic_ai
from pydantic_ai import Agent, FunctionToolset, UsageLimits
from pydantic_ai.exceptions import AgentRunError, ContentFilterError, OutputTokenLimitExceeded
from pydantic_ai.messages import (
    FunctionToolResultEvent,
    ModelRequest,
    ModelResponse,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
)
from pydantic_ai.toolsets import AbstractToolset, CombinedToolset
from pydantic_graph import End
from sqlalchemy import Connection

from beray.protocol.types import TaskError
from beray.server.agent.answer_bounds import MOST_CALLS, REFUSAL_OF_MANY
from beray.server.agent.asking import Asker
from beray.server.agent.budget import BudgetExceeded, describe_budget
from beray.server.agent.conversation import notes
from beray.server.agent.conversation.inbox import Inbox
from beray.server.agent.memory import RunMemory
from beray.server.agent.models import faults
from beray.server.agent.models.chain import ModelChain
from beray.server.agent.models.rules_model import RulesFailed
from beray.server.agent.outbox import Outbox
from beray.server.agent.progress import Progress
from beray.server.agent.recording import RecordedToolset, Recorder, request_fields
from beray.server.agent.run import AgentRun
from beray.server.agent.stuck import Stuck, StuckRules, describe_stuck
from beray.server.agent.tools.base import Toolbox
from beray.server.agent.tools.offered import offered_tools
from beray.server.agent.wellformed import wellformed, wellformed_json
from beray.server.events.log import NewEvent
from beray.server.messages import text

pydantic_ai.BANNER_ENABLED = False  # the library's advertisement has no place on a server's terminal

MOST_EMPTY_ANSWERS: Final = 3
NO_LIBRARY_LIMITS: Final = UsageLimits(request_limit=None)  # limits are ours: they must hold over crashes
TOOL_RETRIES: Final = 20  # wrong calls within one answer; over answers the limit on requests counts

log = logging.getLogger("beray.agent")


class TurnPlayer:
    """Plays the turns of one run in this process.

    Args:
        run: The run.
        progress: Its memory, changed as turns are played.
    """

    def __init__(self, run: AgentRun, progress: Progress) -> None:
        self.progress = progress
        self._timeout: asyncio.Timeout | None = None
        self._outbox = Outbox(run.emit, self._is_late, reads_inline=run.database.reads_inline)
        self._run = run = replace(run, emit=self._outbox)
        self._memory = RunMemory(run, progress)
        self._outbox.included[self._memory.save_state] = self._memory.save_all
        self._box = Toolbox(run, progress)
        self._recorder = Recorder(self._box, self._outbox, self._memory.save_state)
        self._models = ModelChain(run, progress)
        built_in: FunctionToolset[None] = FunctionToolset(offered_tools(self._box), max_retries=TOOL_RETRIES)
        self._toolsets: list[AbstractToolset[None]] = [built_in]
        self._sources = AsyncExitStack()
        toolset = RecordedToolset(CombinedToolset(self._toolsets), self._recorder)
        self._agent: Agent[None, str] = Agent(deps_type=type(None), toolsets=[toolset], retries=TOOL_RETRIES)
        self._asker = Asker(run, self._memory, toolset, self._models)
        self._inbox = Inbox(run)
        self._box.paused = self._paused
        self._late: list[NewEvent] = []

    async def open(self) -> None:
        """Get ready for the first turn: restore what checkpoints leave out, and open tools that are not built in."""
        await self._memory.restore_pictures()
        for source in self._run.sources:
            self._toolsets.append(await self._sources.enter_async_context(source.open(self._box)))

    async def close(self) -> None:
        """End what runs in the background, and close the sources of tools and the model's connections."""
        try:
            await asyncio.shield(self._box.background.close())
        finally:
            try:
                await self._sources.aclose()
            finally:
                await self._models.close()

    async def keep_usage(self) -> None:
        """Store what has been done and used since the last commit: the run is cut here.

        What is held is whole, and the memory that it writes agrees with it; what else is in memory may not.
        """
        self._asker.lose_request()
        await self._outbox(also=self._memory.save_usage)

    async def play(self) -> None:
        """Play the turn that `progress` leads into; afterwards it leads into the next, or holds the outcome."""
        self._memory.begin_turn()
        self._asker.lose_request()  # of an attempt before this one
        self._late = []
        self._box.begin_turn(self._memory.seconds_left)
        await self._hear()
        self._box.picture_bytes = self._memory.picture_bytes
        self._tell_news()
        resets = self._asker.resets("takeover")
        await self._count_request()
        self._outbox.hold(*resets, NewEvent("step.started", self._step_fields()), also=self._inbox.mark)
        await self._outbox(also=self._memory.save_changed())
        try:
            async with self._deadline():
                await self._work()
        except BudgetExceeded as exceeded:
            self._recorder.close_open("agent_call_ended")
            self._fail(describe_budget(exceeded, self._run.ledger.limits, self._run.language))
        except Stuck as stuck:
            self._fail(describe_stuck(stuck, self._run.language))
        except RulesFailed as failed:
            self._fail(failed.error)
        except AgentRunError as error:
            self._fail(self._model_failed(error))
        await self._end_turn()

    def _model_failed(self, error: AgentRunError) -> TaskError:
        """What the user is told; where the model's server is, only the operator is told."""
        model = self._models.choice
        told = faults.describe(error, model, self._run.language)
        log.warning("task %s: %s (its server: %s)", self._run.task_id, told["message"], model.base_url or "none")
        return told

    @asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        """Raises BudgetExceeded when the run's wall time is up."""
        left = self._memory.seconds_left
        try:
            async with asyncio.timeout(left) as deadline:
                self._timeout = deadline
                yield
        except TimeoutError:
            if deadline.expired():
                most = self._run.ledger.limits.task.wall_seconds
                assert most is not None, "without a limit there is no deadline"
                raise BudgetExceeded("wall_seconds", most, most) from None
            raise
        finally:
            self._timeout = None

    def _is_late(self) -> bool:
        return self._timeout is not None and self._timeout.expired()

    async def _count_request(self) -> None:
        """Count the turn's first request with its beginning; a limit that forbids it says so where it is made."""
        if self.progress.phase == "request":
            with suppress(BudgetExceeded):
                await self._asker.count_request()

    @contextmanager
    def _paused(self) -> Iterator[None]:
        """Wall time stands still: the user is waited for."""
        deadline, began = self._timeout, time.monotonic()
        assert deadline is not None, "tools run within a turn"
        ends_at = deadline.when()
        deadline.reschedule(None)
        try:
            yield
        finally:
            waited = time.monotonic() - began
            self._memory.skip(waited)
            self._box.ends_at += waited
            deadline.reschedule(None if ends_at is None else ends_at + waited)

    async def _hear(self) -> None:
        """Add to the next request what the user has said since the last one."""
        await self._memory.begin()
        if self.progress.phase != "request":
            return
        said = await self._inbox.take()
        if self._run.model.kind == "model":  # fixed rules have their goal already
            self._memory.hear(said)

    def _tell_news(self) -> None:
        """Add to the next request what the service has to say; committed with what says that it was told."""
        if self.progress.phase != "request":
            return
        news = self._box.background.news()
        if news:
            self._memory.tell("\n".join([notes.NEWS, *news]))
        warning = self.progress.repeats.take_warning()
        if warning is not None:
            self._memory.tell(notes.note(warning))

    async def _work(self) -> None:
        if self.progress.phase == "request":
            await self._asker.ask()
            has_too_many = self._drop_calls()
            if not self._take_answer():
                return
            if has_too_many:
                await self._refuse_calls()
                return
        await self._act()

    # ---- what the model answered

    def _take_answer(self) -> bool:
        """Remember the answer; whether it asks for tools."""
        answer = self._memory.messages[-1]
        assert isinstance(answer, ModelResponse), "the last message is the answer"
        calls = self._tidy(answer)
        self.progress.open_messages = []
        events = [
            NewEvent("text.done", {"message_id": message_id, "text": wellformed("".join(parts))})
            for message_id, parts in self._asker.texts.items()
        ]
        events += [NewEvent("tool.requested", self._request_fields(call)) for call in calls]
        events.append(NewEvent("usage.updated", {"usage": dict(self._memory.usage())}))
        if not calls:
            self._late = events
            self._take_final(answer)
            return False
        self.progress.refused = None
        self.progress.phase = "tools"
        self._recorder.asked = frozenset(call.tool_call_id for call in calls)
        self.progress.empty_answers = self.progress.repeats.monologues = 0
        self._outbox.hold(*events, also=self._memory.save_all)
        return True

    def _drop_calls(self) -> bool:
        """Keep the first of an answer's calls, where there are more than are taken at once; whether there were."""
        answer = self._memory.messages[-1]
        assert isinstance(answer, ModelResponse), "the last message is the answer"
        calls = [part for part in answer.parts if isinstance(part, ToolCallPart)]
        dropped = {id(part) for part in calls[MOST_CALLS:]}
        if dropped:
            answer.parts = [part for part in answer.parts if id(part) not in dropped]
        return bool(dropped)

    def _tidy(self, answer: ModelResponse) -> list[ToolCallPart]:
        """Make text well-formed and give calls ids of ours (providers repeat theirs); the calls."""
        calls: list[ToolCallPart] = []
        for part in answer.parts:
            if isinstance(part, TextPart | ThinkingPart):
                part.content = wellformed(part.content)
            elif isinstance(part, ToolCallPart):
                part.tool_name = wellformed(part.tool_name)
                part.tool_call_id = f"call_{self._run.run}_{self.progress.turn}_{len(calls)}"
                calls.append(part)
        return calls

    def _request_fields(self, call: ToolCallPart) -> dict[str, Any]:
        return request_fields(call.tool_call_id, call.tool_name[:64], _arguments(call) or {})

    def _take_final(self, answer: ModelResponse) -> None:
        """An answer without tool calls ends the run, unless it is empty, cut, or leaves the plan open."""
        final = "".join(part.content for part in answer.parts if isinstance(part, TextPart)).strip()
        if answer.finish_reason == "content_filter":
            raise ContentFilterError("the provider withheld the answer")
        if final:
            self.progress.refused = None
        if answer.finish_reason == "length":
            self._go_on_after_monologue(notes.CUT)
        elif not final:
            self._go_on_after_nothing()
        elif self._leaves_plan_open():
            self._go_on_after_monologue(notes.OPEN_PLAN)
        else:
            self.progress.end(result=final)

    def _leaves_plan_open(self) -> bool:
        """Whether steps of the plan are not done, which is said once: who then still answers has ended the task."""
        is_open = any(item["status"] != "done" for item in self.progress.plan)
        return is_open and self.progress.repeats.monologues == 0 and self._run.model.kind == "model"

    def _go_on_after_monologue(self, note: str) -> None:
        repeats, rules = self.progress.repeats, self._run.stuck
        if repeats.note_monologue(rules or StuckRules()):
            if rules is None:  # nothing is called stuck here, yet it must not go on for ever
                raise OutputTokenLimitExceeded(f"{repeats.monologues} times, and it called no tool")
            raise Stuck(None, repeats.monologues)
        self._memory.answer_with(note)

    def _go_on_after_nothing(self) -> None:
        self.progress.empty_answers += 1
        if self.progress.empty_answers >= MOST_EMPTY_ANSWERS:
            self._fail(self._empty_error())
            return
        self._memory.drop_answer()
        self._memory.tell(notes.EMPTY)

    def _empty_error(self) -> TaskError:
        language = self._run.language
        return {
            "code": "model_empty",
            "message": text("model_empty", language, model=self._models.choice.name),
            "hint": text("model_empty_hint", language),
            "retryable": True,
        }

    # ---- running its tools

    async def _act(self) -> None:
        """Run the tools the last answer asks for; their results become the next request."""
        self._box.sees_images = self._models.choice.sees_images
        asked = self._arguments_asked()
        history, model = self._memory.messages, self._models.model
        async with self._agent.iter(
            None, model=model, message_history=history, usage_limits=NO_LIBRARY_LIMITS
        ) as library_run:
            start = library_run.next_node
            assert not isinstance(start, End), "a conversation that ends in an answer goes on"
            node = await library_run.next(start)
            assert Agent.is_call_tools_node(node), "messages that end in calls lead to them"
            async with node.stream(library_run.ctx) as events:
                async for event in events:
                    if isinstance(event, FunctionToolResultEvent):
                        await self._recorder.note_refused(event.part, asked[event.part.tool_call_id])
            request_node = await library_run.next(node)
            assert Agent.is_model_request_node(request_node), "results lead to a request"
            # results live in the next request only: without it they would be lost, and the tools run again
            self._memory.messages = [*library_run.all_messages(), request_node.request]
        if self.progress.final_text is not None:
            self.progress.end(result=self.progress.final_text)

    async def _refuse_calls(self) -> None:
        """Run none of the answer's calls, which were too many; that they weren't becomes the next request."""
        asked = self._arguments_asked()
        answer = self._memory.messages[-1]
        results = [
            ToolReturnPart(part.tool_name, REFUSAL_OF_MANY, tool_call_id=part.tool_call_id)
            for part in answer.parts
            if isinstance(part, ToolCallPart)
        ]
        for result in results:
            await self._recorder.note_refused(result, asked[result.tool_call_id])
        self._memory.messages = [*self._memory.messages, ModelRequest(parts=results)]

    def _arguments_asked(self) -> dict[str, dict[str, Any]]:
        """The arguments of the last answer's calls, by id; what is no JSON object as it is."""
        asked: dict[str, dict[str, Any]] = {}
        for part in self._memory.messages[-1].parts:
            if isinstance(part, ToolCallPart):
                args = _arguments(part)
                asked[part.tool_call_id] = {"arguments": part.args} if args is None else args
        return asked

    # ---- the turn's end

    def _fail(self, error: TaskError) -> None:
        self._asker.lose_request()
        self._late = [*self._asker.resets(error["code"]), *self._late]
        if not self.progress.end_as_refused():
            self.progress.end(error=error)

    async def _end_turn(self) -> None:
        self._memory.end_turn()
        self._outbox.hold(*self._late, NewEvent("step.finished", self._step_fields()))
        if self.progress.outcome is not None:
            self._outbox.hold(also=self._look_for_more)
            await self._outbox(also=self._memory.save_all)
            return
        self.progress.turn += 1
        self.progress.phase = "request"
        self._outbox.hold(also=self._memory.save_all)
        await self._outbox.flush_to_read()  # the next turn begins with a look for what the user has said

    def _look_for_more(self, connection: Connection) -> None:
        """Go on if the user has said something meanwhile, of which what was to be the last answer does not know."""
        outcome = self.progress.outcome
        if outcome is not None and outcome["error"] is None and self._inbox.has_more(connection):
            self.progress.go_on()

    def _step_fields(self) -> dict[str, Any]:
        return {"step": self.progress.turn, "usage": dict(self._memory.usage())}


def _arguments(call: ToolCallPart) -> dict[str, Any] | None:
    """What a call was given; None if that is no JSON object."""
    try:
        args = json.loads(call.args or "{}") if isinstance(call.args, str) or call.args is None else call.args
        return dict(wellformed_json(args)) if isinstance(args, dict) else None
    except (ValueError, RecursionError):  # no JSON, or nested without end
        return None
