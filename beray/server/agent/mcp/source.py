"""MCP servers as sources of tools. Imported at start: what speaks the protocol is loaded when a run needs it."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from beray.server.agent.mcp.config import Command, McpServer, read_mcp_config
from beray.server.messages import text
from beray.server.settings import SettingError, Settings

if TYPE_CHECKING:
    from pydantic_ai.toolsets import AbstractToolset

    from beray.server.agent.mcp.toolset import McpToolset
    from beray.server.agent.tools.base import Toolbox


@dataclass(frozen=True)
class McpSource:
    """All tools of one server; see `ToolSource`."""

    server: McpServer

    @property
    def name(self) -> str:
        """What a task asks for."""
        return self.server.name

    @property
    def description(self) -> str:
        """The operator's words, or what kind of server it is."""
        kind = "tool_mcp_command" if isinstance(self.server.target, Command) else "tool_mcp_endpoint"
        return self.server.description or text(kind)

    @property
    def is_default(self) -> bool:
        """As the operator said."""
        return self.server.is_default

    @asynccontextmanager
    async def open(self, box: "Toolbox") -> AsyncIterator["AbstractToolset[None]"]:
        """The server is started when its tools are first listed, and ended with the run."""
        if box.run.model.kind == "rules":  # which calls none but the tools built in
            yield _no_tools()
            return
        toolset = await asyncio.to_thread(_make_toolset, self.server, box)
        try:
            yield toolset
        finally:
            await asyncio.shield(toolset.close())


def open_mcp_sources(
    settings: Settings, environ: Mapping[str, str], *, taken: Collection[str]
) -> tuple[McpSource, ...]:
    """The servers of `BERAY_MCP_CONFIG`; none when it is not set.

    Args:
        settings: What the operator set.
        environ: Where the file's `${VARIABLE}`s are looked up.
        taken: Names of tools that there are already.

    Raises:
        SettingError: The file can't be used, or what speaks the protocol is not installed.
    """
    if settings.mcp_config is None:
        return ()
    runs_tasks = settings.role != "api"
    servers = read_mcp_config(settings.mcp_config, environ if runs_tasks else None, taken=taken)
    if servers and runs_tasks and find_spec("mcp") is None:
        raise SettingError("BERAY_MCP_CONFIG is set, which needs an extra package: pip install 'beray[mcp]'.")
    return tuple(map(McpSource, servers))


def _make_toolset(server: McpServer, box: "Toolbox") -> "McpToolset":
    from beray.server.agent.mcp.toolset import McpToolset  # half a second the first time, hence in a thread

    return McpToolset(server, box)


def _no_tools() -> "AbstractToolset[None]":
    from pydantic_ai.toolsets import CombinedToolset

    return CombinedToolset([])
