"""Tools that the operator has installed: Python functions named by entry points of the group `beray.tools`.

They are code the operator trusts, and run in the server's process. All are loaded and checked once, at start: one that
can't work stops the start with its name and the reason, rather than a task later on.
"""

import inspect
import re
import typing
from collections.abc import Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, Final

from pydantic import TypeAdapter
from pydantic.errors import PydanticUserError

from beray.server.agent.tools.catalogue import CatalogueError
from beray.tools import ToolContext

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pydantic_ai.toolsets import AbstractToolset

    from beray.server.agent.tools.base import Toolbox

GROUP: Final = "beray.tools"
NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,47}")  # what every provider takes as a tool's name
DESCRIPTION_CHARACTERS: Final = 200


@dataclass(frozen=True)
class Plugin:
    """A source of one tool, which is a function.

    Attributes:
        parameters: What the model gives, with types resolved.
        takes_context: Its first argument is a `ToolContext`.
    """

    name: str
    description: str
    function: Callable[..., Any]
    parameters: tuple[inspect.Parameter, ...]
    takes_context: bool
    is_default: bool = True

    @asynccontextmanager
    async def open(self, box: "Toolbox") -> "AsyncIterator[AbstractToolset[None]]":
        """The tool for one run."""
        from beray.server.agent.tools.plugin import build_plugin  # the model library comes with it

        yield build_plugin(self, box)


def load_plugins(built_in: Sequence[str]) -> tuple[Plugin, ...]:
    """All plug-ins that are installed, by name.

    Args:
        built_in: Names that are taken.

    Raises:
        CatalogueError: One of them can't work; says which, and why.
    """
    found = sorted(entry_points(group=GROUP), key=lambda entry: (entry.name, entry.value))
    for entry in found:
        _check_name(entry, built_in, found)
    return tuple(_load(entry) for entry in found)


def _check_name(entry: EntryPoint, built_in: Sequence[str], found: Sequence[EntryPoint]) -> None:
    if NAME.fullmatch(entry.name) is None:
        raise _unusable(entry, "a name is a small letter, then at most 47 small letters, digits and underscores")
    if entry.name in built_in:
        raise _unusable(entry, "a tool of that name is built in; give the entry point another")
    others = [_home(other) for other in found if other.name == entry.name and other is not entry]
    if others:
        raise _unusable(entry, f"{others[0]} has a tool of the same name; uninstall one of them")


def _load(entry: EntryPoint) -> Plugin:
    try:
        function = entry.load()
    except (Exception, SystemExit) as error:  # whatever a module does when it is imported
        raise _unusable(entry, f"it could not be loaded ({type(error).__name__}: {error})") from error
    try:
        return _checked(entry.name, function)
    except _Unfit as unfit:
        raise _unusable(entry, str(unfit)) from unfit


class _Unfit(Exception):
    """A function can't be a tool; says why."""


def _checked(name: str, function: Any) -> Plugin:
    is_generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    if not inspect.isfunction(function) or is_generator:
        raise _Unfit("it is not a function that returns its result")
    hints = _hints(function)
    if hints.get("return") is not str:
        raise _Unfit("its result must be annotated as str")
    parameters = list(inspect.signature(function).parameters.values())
    takes_context = bool(parameters) and hints.get(parameters[0].name) is ToolContext
    if takes_context and not inspect.iscoroutinefunction(function):
        raise _Unfit("a function that takes a ToolContext must be async")
    given = tuple(_checked_parameters(parameters[takes_context:], hints, inspect.getdoc(function) or ""))
    return Plugin(name, _description(function), function, given, takes_context)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # annotations are code: anything may go wrong in them
        raise _Unfit(f"its annotations can't be resolved ({type(error).__name__}: {error})") from error


def _checked_parameters(
    parameters: Sequence[inspect.Parameter], hints: dict[str, Any], docstring: str
) -> Iterator[inspect.Parameter]:
    for parameter in parameters:
        if parameter.kind not in {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}:
            raise _Unfit(f"its parameter {parameter} can't be given by name")
        if parameter.name not in hints:
            raise _Unfit(f"its parameter {parameter.name} has no annotation")
        if not _is_described(parameter.name, docstring):
            raise _Unfit(f"its docstring does not say under Args: what {parameter.name} means")
        _check_type(parameter.name, hints[parameter.name])
        yield parameter.replace(annotation=hints[parameter.name], kind=inspect.Parameter.KEYWORD_ONLY)


def _is_described(name: str, docstring: str) -> bool:
    _, heading, described = docstring.partition("\nArgs:\n")
    entry = re.compile(rf"^[ \t]+{re.escape(name)}(?: ?\([^)\n]*\))?:[ \t]*\S", re.MULTILINE)
    return bool(heading) and entry.search(described) is not None


def _check_type(name: str, hint: Any) -> None:
    if hint is ToolContext:
        raise _Unfit(f"only its first parameter can be a ToolContext, not {name}")
    try:
        TypeAdapter(hint).json_schema()
    except (PydanticUserError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise _Unfit(f"no JSON can be given for its parameter {name} ({reason})") from error


def _description(function: Callable[..., Any]) -> str:
    first = (inspect.getdoc(function) or "").partition("\n")[0].strip()
    if not first or first == "Args:":
        raise _Unfit("it has no docstring that begins with what the tool does")
    return first[:DESCRIPTION_CHARACTERS]


def _home(entry: EntryPoint) -> str:
    """Where an entry point comes from."""
    return "a package without a name" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"


def _unusable(entry: EntryPoint, reason: str) -> CatalogueError:
    return CatalogueError(
        f"The tool {entry.name} ({entry.value}) of {_home(entry)} cannot be used: {reason}. "
        "Mend that package or uninstall it."
    )
