"""Which tools there are: those built in, and those that sources add. Made once, at start; costs nothing to import.

A task's `tools` names what it may use, and what it names must stand here; with null it gets what is default. A name
that a source adds may stand for several tools: that of an MCP server stands for all that the server has.
"""

from collections.abc import Collection, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from beray.protocol.types import ToolInfo
from beray.server.agent.tools import TOOL_NAMES
from beray.server.messages import text

if TYPE_CHECKING:
    from pydantic_ai.toolsets import AbstractToolset

    from beray.server.agent.tools.base import Toolbox

DESCRIPTIONS: Final = {  # of the tools built in: keys of the catalogue of sentences
    "shell": "tool_shell",
    "background": "tool_background",
    "python": "tool_python",
    "read_file": "tool_read_file",
    "write_file": "tool_write_file",
    "edit_file": "tool_edit_file",
    "list_files": "tool_list_files",
    "search_files": "tool_search_files",
    "update_plan": "tool_update_plan",
    "ask_user": "tool_ask_user",
    "finish": "tool_finish",
}

CHANGES_FILES: Final = "changes_files"
"""Key of a tool's metadata: true says that a call may change any file, so the work_dir is compared before and after."""


class ToolSource(Protocol):
    """Tools that are not built in: a plug-in's function, or all those of a server.

    Attributes:
        name: What a task asks for.
        description: What it is good for, in one line, for people.
        is_default: A task that names no tools may use it.
    """

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def is_default(self) -> bool: ...

    def open(self, box: "Toolbox") -> AbstractAsyncContextManager["AbstractToolset[None]"]:
        """The tools for one run, open from its first turn in this process to its end, however that comes.

        Each is named as the source, or by that name, `_` and a name of its own; a call gives an `Answer`, or raises
        ToolError with what the model is told. Calls are recorded, and come one after the other. The set stays the
        same while it is open. It may be closed by another asyncio task than the one that opened it.
        """
        ...


class CatalogueError(ValueError):
    """The tools can't be offered as they are installed or configured; the text says which, why, and what to do."""


@dataclass(frozen=True)
class ToolCatalogue:
    """All tools that a task of this process may ask for.

    Attributes:
        built_in: Names of those that `build.py` makes.
        sources: What gives the others.

    Raises:
        CatalogueError: A name stands for two of them.
    """

    built_in: tuple[str, ...] = TOOL_NAMES
    sources: tuple[ToolSource, ...] = ()

    def __post_init__(self) -> None:
        names = self.names
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise CatalogueError(f"The name {twice[0]} stands for two tools. Rename or remove one of them.")

    @property
    def names(self) -> tuple[str, ...]:
        """What may be asked for, in the order shown."""
        return (*self.built_in, *(source.name for source in self.sources))

    @property
    def default(self) -> tuple[str, ...]:
        """What a task gets that names nothing."""
        return (*self.built_in, *(source.name for source in self.sources if source.is_default))

    def unknown(self, names: Iterable[str]) -> list[str]:
        """Those of `names` that do not stand here."""
        known = frozenset(self.names)
        return [name for name in names if name not in known]

    def sources_of(self, names: Collection[str]) -> tuple[ToolSource, ...]:
        """The sources among `names`."""
        return tuple(source for source in self.sources if source.name in names)

    def shown(self) -> list[ToolInfo]:
        """What /api/v1/info says of them, in the language of the request."""
        default = self.default
        told = {name: text(DESCRIPTIONS[name]) for name in self.built_in}
        told |= {source.name: source.description for source in self.sources}
        return [{"name": name, "description": told[name], "is_default": name in default} for name in self.names]
