"""Makes a run's tools."""

from collections.abc import Awaitable, Callable
from typing import Any

from beray.server.agent.run import AgentRun
from beray.server.agent.tools.ask import build_ask_user, open_question
from beray.server.agent.tools.background import build_background
from beray.server.agent.tools.base import Answer, Opening, Toolbox
from beray.server.agent.tools.edit import build_edit_file
from beray.server.agent.tools.files import build_list_files, build_read_file, build_write_file
from beray.server.agent.tools.plan import build_finish, build_update_plan
from beray.server.agent.tools.python import build_python
from beray.server.agent.tools.search import build_search_files
from beray.server.agent.tools.shell import build_shell

_BUILDERS: dict[str, Callable[[Toolbox], Callable[..., Awaitable[Answer]]]] = {
    "shell": build_shell,
    "background": build_background,
    "python": build_python,
    "read_file": build_read_file,
    "write_file": build_write_file,
    "edit_file": build_edit_file,
    "list_files": build_list_files,
    "search_files": build_search_files,
    "update_plan": build_update_plan,
    "ask_user": build_ask_user,
    "finish": build_finish,
}

WATCHED = frozenset({"shell", "python"})
"""Tools that may change any file: the work_dir is compared before and after."""


RESUMABLE = frozenset({"ask_user"})
"""Tools whose call goes on after a crash: their body waits, and does nothing else. Of others the outcome is unknown."""

OPENINGS: dict[str, Callable[[Toolbox, str, dict[str, Any]], Opening]] = {"ask_user": open_question}
"""Tools whose call's start tells or changes something more: by the toolbox, the call's id and arguments."""


def build_tools(box: Toolbox) -> list[Callable[..., Awaitable[Answer]]]:
    """The tools the run allows and the machine can offer; their names, types and docstrings are what the model sees."""
    run = box.run
    return [_plain(build(box)) for name, build in _BUILDERS.items() if name in run.tools and _can_offer(run, name)]


def _plain(tool: Callable[..., Awaitable[Answer]]) -> Callable[..., Awaitable[Answer]]:
    """Without the type of its result, of which the library would make a schema that nobody reads: 15 ms a run."""
    tool.__annotations__["return"] = Any
    return tool


def _can_offer(run: AgentRun, name: str) -> bool:
    if name == "python":
        return run.python is not None
    return name != "ask_user" or run.asking is not None
