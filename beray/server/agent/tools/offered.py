"""A run's tools as the model library offers them. Imports that library."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from types import CodeType
from typing import TYPE_CHECKING

from pydantic_ai import Tool

from beray.server.agent.tools.base import Answer, Toolbox
from beray.server.agent.tools.build import build_tools

if TYPE_CHECKING:
    from pydantic_ai._function_schema import FunctionSchema

# What the library reads from a tool's signature and docstring, 7 ms of processor time for all of them, is the same in
# every run: the functions are made anew for each, but of the same code.
_schemas: "dict[CodeType, FunctionSchema]" = {}


def offered_tools(box: Toolbox) -> list[Tool[None]]:
    """The built-in tools of a run."""
    return [_offered(function) for function in build_tools(box)]


def _offered(function: Callable[..., Awaitable[Answer]]) -> Tool[None]:
    known = _schemas.get(function.__code__)
    if known is not None:
        return Tool(function, function_schema=replace(known, function=function))
    tool: Tool[None] = Tool(function, docstring_format="google", require_parameter_descriptions=True)
    _schemas[function.__code__] = tool.function_schema
    return tool
