"""The tools of one MCP server in one run. Imports the protocol's library and the model's.

The server is started when its tools are first asked for, and they stay the same as long as this process plays the run:
providers cache what stands at the beginning of a request. When it dies a call fails, the next one starts it anew, and
after some deaths it is left alone.
"""

import asyncio
import json
import logging
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import mcp_types
from pydantic_ai import RunContext
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.toolsets import AbstractToolset
from pydantic_ai.toolsets.abstract import ToolsetTool
from pydantic_core import SchemaValidator, core_schema

from beray.server.agent.mcp.config import Command, McpServer
from beray.server.agent.mcp.connection import Carry, Connection, ServerLost, ServerRefused
from beray.server.agent.mcp.http import endpoint_streams
from beray.server.agent.mcp.result import readable
from beray.server.agent.mcp.stdio import command_streams
from beray.server.agent.tools import TOOL_NAMES
from beray.server.agent.tools.base import Answer, Toolbox, ToolError, first_line
from beray.server.agent.tools.catalogue import CHANGES_FILES
from beray.server.agent.tools.output import LiveOutput
from beray.server.agent.wellformed import wellformed, wellformed_json
from beray.server.messages import text

START_SECONDS: Final = 30.0
MOST_DEATHS: Final = 3  # of one server in one run; then it is not started any more
MOST_TOOLS: Final = 128  # of one server; providers take some hundred in all
MOST_DESCRIPTION_CHARACTERS: Final = 2000
MOST_SCHEMA_BYTES: Final = 64 * 1024
MOST_NAME_CHARACTERS: Final = 64  # what providers take
WRONG_CALLS: Final = 20  # within one answer, as for other tools

_ODD = re.compile(r"[^a-zA-Z0-9_-]")
_ANY_ARGUMENTS = SchemaValidator(core_schema.dict_schema(core_schema.str_schema(), core_schema.any_schema()))

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Offered:
    """A tool as the model sees it.

    Attributes:
        own_name: What the server calls it.
    """

    own_name: str
    definition: ToolDefinition


class McpToolset(AbstractToolset[None]):
    """One server's tools, and its life."""

    def __init__(self, server: McpServer, box: Toolbox) -> None:
        self._server = server
        self._box = box
        self._carry = _carry(server, box)
        self._taken = {*TOOL_NAMES, *box.run.tools}
        self._connection: Connection | None = None
        self._deaths = 0
        self._offered: dict[str, Offered] | None = None
        self._lacks: str | None = None

    @property
    def id(self) -> str:
        """The server's name."""
        return self._server.name

    async def get_tools(self, ctx: RunContext[None]) -> dict[str, ToolsetTool[None]]:
        """Its tools, by name; none if it can't be had."""
        if self._offered is None:
            self._offered = {offered.definition.name: offered for offered in await self._list()}
        definitions = [offered.definition for offered in self._offered.values()] or self._asked_before(ctx.messages)
        return {
            definition.name: ToolsetTool(
                toolset=self, tool_def=definition, max_retries=WRONG_CALLS, args_validator=_ANY_ARGUMENTS
            )
            for definition in definitions
        }

    def _asked_before(self, messages: Sequence[ModelMessage]) -> list[ToolDefinition]:
        """Tools of a server that can't be had now, which the last answer asks for all the same.

        It could be had when that was asked, by the process before this one. Such calls have to come to their end: with
        what is recorded of them or, if nothing is, with the news that the server is gone.
        """
        last = messages[-1] if messages else None
        if self._lacks is None or not isinstance(last, ModelResponse):
            return []
        prefix = f"{self._server.name}_"
        asked = {call.tool_name for call in last.tool_calls if call.tool_name.startswith(prefix)}
        return [ToolDefinition(name=name) for name in sorted(asked - self._taken)]

    async def get_instructions(self, ctx: RunContext[None]) -> str | None:
        """Tells the model that tools are missing, and why: a run doesn't go on with less in silence."""
        if self._lacks is None:
            return None
        return (
            f"The tools of the MCP server {self._server.name} can't be had in this run: {self._lacks}. Do without them;"
            " where that changes the result, say so in your answer."
        )

    async def call_tool(
        self, name: str, tool_args: dict[str, Any], ctx: RunContext[None], tool: ToolsetTool[None]
    ) -> Any:
        """See `Answer`."""
        assert self._offered is not None, "a tool is called after it was listed"
        if self._lacks is not None:
            raise ToolError(f"The MCP server {self._server.name} can't be had: {self._lacks}. Do without its tools.")
        result = await self._call(self._offered[name].own_name, tool_args)
        shown = await asyncio.to_thread(readable, result)  # its pictures are unpacked
        told = shown.text
        events = LiveOutput(self._box.call_id).events([("stdout", told)])
        await self._box.run.emit(*events)
        summary = "agent_mcp_failed" if result.is_error else "agent_mcp_answered"
        return Answer(
            text=told if not result.is_error else f"Error: {told}",
            summary=text(summary, self._box.run.language, server=self._server.name, said=first_line(told)),
            ok=not result.is_error,
            truncated=shown.is_cut,
            pictures=shown.pictures,
        )

    async def close(self) -> None:
        """End the server's part in the run."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    # ---- its life

    async def _list(self) -> list[Offered]:
        """What it offers; the first time the server is needed."""
        cause: BaseException
        try:
            async with asyncio.timeout(START_SECONDS):
                tools = await (await self._connected()).list_tools()
        except TimeoutError as error:
            self._lacks, cause = f"it was not ready within {START_SECONDS:g} s", error
        except ServerLost as error:
            self._lacks, cause = str(error), error.__cause__ or error
        except ServerRefused as error:
            self._lacks, cause = "it did not say which tools it has", error
        else:
            return offered_tools(self._server, tools, taken=self._taken)
        await self.close()
        self._log(f"its tools can't be had: {self._lacks} ({_cut(repr(cause))})")
        return []

    async def _call(self, own_name: str, arguments: dict[str, Any]) -> mcp_types.CallToolResult:
        connection = await self._live()
        try:
            async with asyncio.timeout(self._server.timeout_seconds):
                return await connection.call_tool(own_name, arguments)
        except TimeoutError:
            reason = f"it did not answer within {self._server.timeout_seconds} s, and was ended"
        except ServerLost as lost:
            reason = str(lost)
        except ServerRefused as refused:
            raise ToolError(f"The MCP server {self._server.name} refused the call: {_cut(str(refused))}") from refused
        await self._bury(reason)
        remedy = (
            "Inspect before you repeat the call, which starts it anew."
            if self._deaths < MOST_DEATHS
            else "It has failed too often, and is not started again in this run: go on without it."
        )
        raise ToolError(
            f"The MCP server {self._server.name} failed: {_cut(reason)}. Whether the call has done something is"
            f" unknown. {remedy}"
        )

    async def _live(self) -> Connection:
        """A connection that is open, a new one if need be.

        Raises:
            ToolError: There is none, and why.
        """
        name = self._server.name
        if self._connection is not None and not self._connection.is_open:  # it has died between two calls
            await self._bury("it ended between two calls")
        if self._deaths >= MOST_DEATHS:
            raise ToolError(f"The MCP server {name} is gone: it failed {MOST_DEATHS} times. Go on without its tools.")
        try:
            async with asyncio.timeout(START_SECONDS):
                return await self._connected()
        except TimeoutError:
            reason = f"it was not ready within {START_SECONDS:g} s"
        except ServerLost as lost:
            reason = str(lost)
        await self._bury(reason)
        raise ToolError(f"The MCP server {name} could not be started anew: {_cut(reason)}. The call has done nothing.")

    async def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = Connection(self._carry)
            await self._connection.open()
        return self._connection

    async def _bury(self, reason: str) -> None:
        self._deaths += 1
        self._log(f"failed {self._deaths} of {MOST_DEATHS} times in this run: {reason}")
        await self.close()

    def _log(self, what: str) -> None:
        log.warning("MCP server %s, task %s: %s", self._server.name, self._box.run.task_id, what)


def _carry(server: McpServer, box: Toolbox) -> Carry:
    target = server.target
    if isinstance(target, Command):
        return lambda: command_streams(server, target, box)
    return lambda: endpoint_streams(server, target)


def offered_tools(
    server: McpServer, tools: Iterable[mcp_types.Tool], *, taken: Collection[str] = TOOL_NAMES
) -> list[Offered]:
    """Those of a server's tools that a model can be given, by name; what is left out is logged.

    Args:
        server: Whose they are.
        tools: What it lists.
        taken: Names of other tools.
    """
    offered: dict[str, Offered] = {}
    for tool in sorted(tools, key=lambda tool: tool.name):
        if server.tools is not None and tool.name not in server.tools:
            continue
        name = f"{server.name}_{_ODD.sub('_', tool.name)}"
        is_taken = name in offered or name in taken
        fault = "there is a tool of this name already" if is_taken else _fault(name, tool)
        if fault is None and len(offered) >= MOST_TOOLS:
            fault = f"more than {MOST_TOOLS} are not taken"
        if fault is None:
            offered[name] = Offered(tool.name, _definition(server, name, tool))
        else:
            log.warning("MCP server %s: its tool %r is left out: %s", server.name, tool.name[:100], fault)
    for missing in sorted((server.tools or frozenset()) - {tool.own_name for tool in offered.values()}):
        log.warning("MCP server %s: it does not offer the tool %r of the configuration", server.name, missing[:100])
    return [offered[name] for name in sorted(offered)]


def _fault(name: str, tool: mcp_types.Tool) -> str | None:
    """Why a model can't be given this tool."""
    if not tool.name or len(name) > MOST_NAME_CHARACTERS:
        return f"its name is empty or, with the server's, longer than {MOST_NAME_CHARACTERS} characters"
    if len(json.dumps(tool.input_schema)) > MOST_SCHEMA_BYTES:
        return f"its schema is larger than {MOST_SCHEMA_BYTES} bytes"
    return None


def _definition(server: McpServer, name: str, tool: mcp_types.Tool) -> ToolDefinition:
    described = wellformed(tool.description or tool.title or "")
    if len(described) > MOST_DESCRIPTION_CHARACTERS:
        described = described[:MOST_DESCRIPTION_CHARACTERS] + " …"
    return ToolDefinition(
        name=name,
        description=described,
        parameters_json_schema={"properties": {}, **wellformed_json(tool.input_schema)},
        metadata={CHANGES_FILES: isinstance(server.target, Command)},
    )


def _cut(reason: str) -> str:
    """A server's own words, as far as they go into a sentence of ours."""
    return wellformed(reason)[:500].rstrip(".")
