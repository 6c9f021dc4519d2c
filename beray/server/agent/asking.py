"""Asks the model: within the limits, in the room it has, again after passing faults, its text shown while it comes.

The one owner of retries: the provider's client makes one try. What was shown of an answer that was cut is taken back by
`text.reset`, and the request is made again. Imports the model library.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar

from pydantic_ai import RunContext, RunUsage
from pydantic_ai.direct import model_request_stream
from pydantic_ai.exceptions import AgentRunError, ModelContextWindowExceededError
from pydantic_ai.messages import (
    InstructionPart,
    ModelMessage,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.toolsets import AbstractToolset
from sqlalchemy import Connection

from beray.server.agent.answer_bounds import AnswerBounds, TooManyCalls, tidy_arguments
from beray.server.agent.budget import check_cost_is_told, check_model_call
from beray.server.agent.coalesce import Coalescer
from beray.server.agent.conversation import compaction, images
from beray.server.agent.conversation.context import ContextRoom
from beray.server.agent.memory import RunMemory
from beray.server.agent.models import costs, faults
from beray.server.agent.models.chain import ModelChain
from beray.server.agent.models.unreadable import readable
from beray.server.agent.progress import Estimate
from beray.server.agent.prompts import summary_prompt, system_prompt
from beray.server.agent.run import AgentRun
from beray.server.agent.wellformed import wellformed
from beray.server.events.log import NewEvent

TEXT_EVENT_CHARACTERS: Final = 1024
ONE_TRY: Final = ModelSettings(max_retries=0)
MOST_SQUEEZES: Final = 3  # of one conversation that is refused for its length: what it takes is not known exactly

T = TypeVar("T")


class Asker:
    """Asks one run's model.

    Attributes:
        texts: The pieces of text of the latest answer, by message.
    """

    def __init__(self, run: AgentRun, memory: RunMemory, toolset: AbstractToolset[None], models: ModelChain) -> None:
        self.texts: dict[str, list[str]] = {}
        self._run = run
        self._memory = memory
        self._toolset = toolset
        self._instructions = [system_prompt(run.tools)] if run.model.kind == "model" else []
        self._models = models
        self._room = self._make_context()
        self._streamed_bytes = 0
        for choice in (run.model, *run.fallback):  # loads the library's prices now, in the thread that makes this
            costs.estimate(choice, run.prices)

    async def ask(self) -> None:
        """Get the model's answer to the conversation; it becomes the latest message.

        Raises:
            BudgetExceeded: A limit doesn't let the model be asked.
            AgentRunError: It could not be had.
        """
        await self._make_room()
        squeezed = 0
        while True:
            try:
                return await self._again(self._ask_once)
            except ModelContextWindowExceededError:
                squeezed += 1
                if squeezed > MOST_SQUEEZES or not await self._make_room(is_forced=True):
                    raise
            except AgentRunError as error:
                if not faults.is_rejected(error) or not await self._drop_pictures(error):
                    raise

    def resets(self, reason: str) -> list[NewEvent]:
        """Take back what was shown of an answer that never became whole."""
        progress = self._memory.progress
        events = [
            NewEvent("text.reset", {"message_id": message_id, "reason": reason})
            for message_id in progress.open_messages
        ]
        progress.open_messages = []
        return events

    async def _again(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What `attempt` gives, tried again after faults that may pass, and by another model after others."""
        tries = 0
        while True:
            tries += 1
            try:
                return await attempt()
            except AgentRunError as error:
                self._count_fault(error)
                if faults.is_transient(error) and tries < faults.MOST_TRIES:
                    await self._wait_to_retry(error, tries)
                elif await self._fall_back(error):
                    tries = 0
                else:
                    raise

    async def _wait_to_retry(self, error: Exception, tries: int) -> None:
        wait_seconds = faults.wait_seconds(error, tries)
        code = faults.code_of(error)
        retry = NewEvent("model.retry", {"attempt": tries, "wait_s": round(wait_seconds, 3), "code": code})
        await self._run.emit(*self.resets(code), retry, also=self._memory.save_state)
        await asyncio.sleep(wait_seconds)

    async def _fall_back(self, error: Exception) -> bool:
        """Whether another model takes over from here; that is announced and remembered."""
        following = self._models.give_up(error)
        if following is None:
            return False
        code = faults.code_of(error)

        def save(connection: Connection) -> None:
            self._memory.save_state(connection)
            self._models.save(connection, following)

        await self._run.emit(*self.resets(code), *self._models.announce(following, code=code), also=save)
        await self._models.change_to(following)
        self._room = self._make_context()
        return True

    async def _ask_once(self) -> None:
        await self._begin_request()
        self.texts = {}
        asked = self._memory.messages
        answer, is_whole = await self._stream(asked)
        self._memory.messages = [*asked, answer]
        tidy_arguments(answer)  # first of all: whatever looks into them may go by recursion
        if not is_whole:  # what was told of its usage, if anything, is of its beginning
            self.lose_request()
            return
        self._room.note_measured(asked, answer)
        self._count_answer(answer)

    # ---- what requests use

    async def count_request(self) -> None:
        """Count the next request, unless that has been done; to be committed before it is made.

        Raises:
            BudgetExceeded: A limit doesn't let it be made.
        """
        used = self._memory.progress.used
        if used.under_way is not None:
            return
        await self._check_limits()
        tokens = self._room.tokens(self._memory.messages)
        used.send(costs.estimate(self._models.choice, self._run.prices, input_tokens=tokens))

    def lose_request(self) -> None:
        """The request under way, if there is one, gets no answer."""
        self._memory.progress.used.lose(self._seen(self._streamed_bytes))
        self._streamed_bytes = 0

    async def _begin_request(self) -> None:
        """A request is about to be made: most are counted with the turn's beginning, further ones are here."""
        self._streamed_bytes = 0
        if self._memory.progress.used.under_way is None:
            await self.count_request()
            usage = NewEvent("usage.updated", {"usage": dict(self._memory.usage())})
            await self._run.emit(usage, also=self._memory.save_state)

    async def _check_limits(self) -> None:
        used, ledger = self._memory.progress.used, self._run.ledger
        if used.has_untold:
            check_cost_is_told(used.sums, ledger.limits)
        check_model_call(used.sums, ledger.limits.task)
        await ledger.check_model_call(self._memory.used_since)

    def _count_answer(self, answer: ModelResponse) -> None:
        used, model = self._memory.progress.used, self._models.choice
        if model.kind == "rules":
            used.refuse()
        elif costs.is_told(answer):
            used.answer(costs.tokens_of(answer), cost_usd=costs.cost_of(answer, model, self._run.prices))
        else:
            used.answer_untold(self._seen(compaction.count_bytes([answer])))
        self._streamed_bytes = 0

    def _count_fault(self, error: Exception) -> None:
        if faults.was_refused(error):
            self._memory.progress.used.refuse()
        else:
            self.lose_request()

    def _seen(self, size: int) -> Estimate:
        return costs.estimate(self._models.choice, self._run.prices, output_tokens=costs.tokens_in(size))

    # ---- text while it comes

    async def _stream(self, asked: list[ModelMessage]) -> tuple[ModelResponse, bool]:
        """The answer, its text shown while it comes, and whether it has come to its end.

        Asked without the library's graph of an agent, which costs more than all else in a step.
        """
        messages, parameters = await self._offer(asked)
        stream = model_request_stream(
            self._models.model, messages, model_settings=ONE_TRY, model_request_parameters=parameters
        )
        async with (
            Coalescer(self._show_text, most_characters=TEXT_EVENT_CHARACTERS) as shown,
            readable(stream) as (answer, events),
        ):
            try:
                await self._take_text(events, shown)
            except TooManyCalls:
                return answer.get(), False
            return answer.get(), True

    async def _offer(self, asked: list[ModelMessage]) -> tuple[list[ModelMessage], ModelRequestParameters]:
        """What is sent: the conversation with the instructions, and the tools."""
        context = RunContext(deps=None, model=self._models.model, usage=RunUsage(), messages=asked)
        toolset = await self._toolset.for_run(context)
        tools = await toolset.get_tools(context)
        request = asked[-1]
        assert isinstance(request, ModelRequest), "what leads to an answer is a request"
        texts = [*self._instructions, *_texts(await toolset.get_instructions(context))]
        told = replace(request, instructions="\n\n".join(text.strip() for text in texts) or None)
        parameters = ModelRequestParameters(function_tools=[tool.tool_def for tool in tools.values()])
        return self._models.model.prepare_messages([*asked[:-1], told], parameters), parameters

    async def _take_text(self, events: AsyncIterator[Any], shown: Coalescer[str]) -> None:
        ids: dict[int, str] = {}
        bounds = self._bounds()
        async for event in events:
            self._note_size(event, bounds)
            if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                ids[event.index] = self._new_message_id()
                await self._put_text(shown, ids[event.index], event.part.content)
            elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                await self._put_text(shown, ids[event.index], event.delta.content_delta)

    def _bounds(self) -> AnswerBounds:
        used, most = self._memory.progress.used, self._run.ledger.limits.task.tokens
        before = used.sums.tokens - (0 if used.under_way is None else used.under_way.tokens)
        left = None if most is None else max(most - before, 0)
        return AnswerBounds(left, most)

    def _note_size(self, event: Any, bounds: AnswerBounds) -> None:
        size = costs.bytes_of(event)
        self._streamed_bytes += size
        bounds.note(event, size)

    def _new_message_id(self) -> str:
        progress = self._memory.progress
        progress.message_count += 1
        return f"msg_{self._run.run}_{progress.message_count}"

    async def _put_text(self, shown: Coalescer[str], message_id: str, delta: str) -> None:
        self.texts.setdefault(message_id, []).append(delta)
        await shown.put(message_id, wellformed(delta))

    async def _show_text(self, group: list[tuple[str, str]]) -> None:
        """Emit deltas; a message's first is remembered with it, so that a takeover can take it back."""
        progress = self._memory.progress
        new = {message_id for message_id, _ in group} - set(progress.open_messages)
        progress.open_messages += sorted(new)
        events = [NewEvent("text.delta", {"message_id": message_id, "delta": delta}) for message_id, delta in group]
        await self._run.emit(*events, also=self._memory.save_state if new else None)

    # ---- room in the model's context

    def _make_context(self) -> ContextRoom:
        size = self._run.context_tokens or self._models.model.context_window
        return ContextRoom(self._memory.progress, size)

    async def _make_room(self, *, is_forced: bool = False) -> bool:
        """Compact the conversation if it needs it; whether it was."""
        made = await self._room.make(self._memory.messages, self._summarise, is_forced=is_forced)
        if made is None:
            return False
        self._memory.messages = made.messages
        usage = NewEvent("usage.updated", {"usage": dict(self._memory.usage())})
        await self._run.emit(NewEvent("context.compacted", made.fields), usage, also=self._memory.save_all)
        return True

    async def _drop_pictures(self, error: Exception) -> bool:
        """Take the pictures out of a conversation that was refused; whether there were any.

        A provider refuses what it takes for damaged or unsuitable with each further request again.
        """
        messages = self._memory.messages
        if not images.count(messages):
            return False
        self._memory.messages = images.refused(messages)
        retry = NewEvent("model.retry", {"attempt": 1, "wait_s": 0, "code": faults.code_of(error)})
        await self._run.emit(*self.resets(faults.code_of(error)), retry, also=self._memory.save_all)
        return True

    async def _summarise(self, record: str) -> str:
        """The model's own summary of what happened."""
        prompt: list[ModelMessage] = [ModelRequest.user_text_prompt(summary_prompt(record))]

        async def attempt() -> str:
            await self._begin_request()
            bounds = self._bounds()
            async with readable(model_request_stream(self._models.model, prompt, model_settings=ONE_TRY)) as read:
                async for event in read[1]:
                    self._note_size(event, bounds)
                answer = read[0].get()
            self._count_answer(answer)
            if answer.finish_reason == "content_filter":
                return ""
            return wellformed("".join(part.content for part in answer.parts if isinstance(part, TextPart)).strip())

        return await self._again(attempt)


def _texts(instructions: str | InstructionPart | Sequence[str | InstructionPart] | None) -> list[str]:
    """What sources of tools have to say, as texts."""
    if instructions is None:
        return []
    parts = [instructions] if isinstance(instructions, str | InstructionPart) else instructions
    return [part if isinstance(part, str) else part.content for part in parts]
