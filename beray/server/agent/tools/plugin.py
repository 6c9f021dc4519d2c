"""The tool of one plug-in, for one run. Imports the model library."""

import asyncio
import contextvars
import functools
import inspect
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from pydantic_ai import FunctionToolset, Tool

from beray.server.agent.plugins import Plugin
from beray.server.agent.tools.base import Answer, Toolbox, ToolError, first_line
from beray.server.agent.tools.files import read_content, read_text, write_content
from beray.server.agent.tools.output import HeadAndTail
from beray.server.agent.wellformed import wellformed
from beray.server.errors import Refused
from beray.server.messages import Language, text
from beray.server.work_dirs.listing import FileChange

T = TypeVar("T")

CALL_SECONDS: Final = 120.0
MOST_READ_BYTES: Final = 64 << 20

# Of their own: a function that never returns keeps its thread, and the server's must not run out by that.
_threads = ThreadPoolExecutor(8, thread_name_prefix="beray-tool")


def build_plugin(plugin: Plugin, box: Toolbox) -> FunctionToolset[None]:
    """Its tool, as the model is offered it."""

    @functools.wraps(plugin.function)
    async def call(**given: Any) -> Answer:
        context = _Context(box)
        try:
            result = await _in_time(lambda: _result(plugin, context, given))
        finally:
            context.is_over = True
        return _answer(box.run.language, result, context.changes)

    call.__signature__ = inspect.Signature(list(plugin.parameters), return_annotation=str)  # type: ignore[attr-defined]  # what `inspect` looks for
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in plugin.parameters}
    tool: Tool[None] = Tool(
        call, name=plugin.name, takes_ctx=False, docstring_format="google", require_parameter_descriptions=True
    )
    return FunctionToolset([tool])


async def _in_time(work: Callable[[], Awaitable[str]]) -> str:
    try:
        async with asyncio.timeout(CALL_SECONDS) as deadline:
            return await work()
    except TimeoutError:
        if deadline.expired():
            raise ToolError(
                f"The tool took longer than {CALL_SECONDS:g} s and was given up. Ask it for less, or go another way."
            ) from None
        raise


async def _result(plugin: Plugin, context: "_Context", given: dict[str, Any]) -> str:
    leading = (context,) if plugin.takes_context else ()
    try:
        if inspect.iscoroutinefunction(plugin.function):
            result = await plugin.function(*leading, **given)
        else:
            within = contextvars.copy_context()
            work = functools.partial(within.run, plugin.function, **given)
            result = await asyncio.get_running_loop().run_in_executor(_threads, work)
    except SystemExit as error:  # it would end the server
        raise RuntimeError(f"the tool {plugin.name} called exit") from error
    if not isinstance(result, str):
        raise TypeError(f"the tool {plugin.name} gave {type(result).__name__}, not str")
    return wellformed(result)


def _answer(language: Language, result: str, changes: list[FileChange]) -> Answer:
    kept = HeadAndTail()
    kept.add(result.encode())
    shown = kept.text("ask the tool for less to see them")
    summary = first_line(result) or text("agent_tool_silent", language)
    return Answer(shown or "(the tool gave nothing back)", summary, truncated=kept.is_cut, changes=changes)


class _Context:
    """What `beray.tools.ToolContext` promises, for one call.

    Attributes:
        changes: Files it has written.
        is_over: The call has ended; what the tool still does must not count for the next one.
    """

    def __init__(self, box: Toolbox) -> None:
        self._box = box
        self._writing = asyncio.Lock()
        self.changes: list[FileChange] = []
        self.is_over = False

    @property
    def task_id(self) -> int:
        return self._box.run.task_id

    @property
    def language(self) -> Language:
        return self._box.run.language

    async def read_text(self, path: str) -> str:
        return await self._checked(lambda: read_text(self._box, path))

    async def read_bytes(self, path: str) -> bytes:
        return await self._checked(lambda: read_content(self._box, path, most_bytes=MOST_READ_BYTES))

    async def write_text(self, path: str, text: str) -> None:
        await self.write_bytes(path, wellformed(text).encode())

    async def write_bytes(self, path: str, content: bytes) -> None:
        async with self._writing:
            change = await self._checked(lambda: write_content(self._box, path, content))
            self.changes = [*(each for each in self.changes if each.path != change.path), change]

    async def _checked(self, work: Callable[[], Awaitable[T]]) -> T:
        if self.is_over:
            raise ToolError("The call that this context was given to has ended.")
        try:
            return await work()
        except Refused as refused:
            raise ToolError(str(refused)) from refused
