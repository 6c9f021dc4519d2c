"""What a model is told of a path that is not what it took the path for: what is there, and what it may have meant."""

import asyncio
import difflib
import posixpath
from collections.abc import Iterator, Sequence
from typing import Final

from beray.protocol.types import FileNode
from beray.server.agent.tools.base import Toolbox, ToolError
from beray.server.errors import Refused

LISTED: Final = 1000
UNLISTED_FOLDERS: Final = frozenset({".git", "node_modules", "__pycache__", ".venv"})
MOST_NAMED: Final = 8
MEANT: Final = 3  # paths that are like the one that is not there


async def astray(box: Toolbox, path: str, refused: Refused) -> ToolError:
    """The error that says why `path` can't be used, and what can be used instead."""
    if refused.code == "not_a_directory":
        return ToolError(f"{refused} Read a file with read_file.")
    if refused.code not in {"file_not_found", "not_a_file"}:
        return ToolError(str(refused))
    try:
        if refused.code == "not_a_file":
            return ToolError(await _folder_text(box, path) or str(refused))
        return ToolError(f"{refused} {await _missing_text(box, posixpath.normpath(path))}")
    except Refused:  # the folder itself can't be looked at: then there is nothing to add
        return ToolError(str(refused))


async def _folder_text(box: Toolbox, path: str) -> str:
    """What a folder holds, if it is one."""
    try:
        nodes = await asyncio.to_thread(box.run.work_dir.tree, path, depth=1, limit=LISTED)
    except Refused as refused:
        if refused.code == "not_a_directory":  # a pipe, a socket
            return ""
        raise
    return f"{path} is a folder. It holds {_named([_shown(node) for node in nodes])}."


async def _missing_text(box: Toolbox, path: str) -> str:
    tree = await asyncio.to_thread(box.run.work_dir.list_tree, ".", limit=LISTED)
    known = list(_walk(tree.nodes))
    in_shell = posixpath.normpath(posixpath.join(box.progress.cwd, path))
    if in_shell != path and in_shell in known:
        return f"Paths are relative to the work_dir, not to the shell's current folder: use {in_shell}."
    meant = _meant(path, known)
    if meant:
        return f"Did you mean {' or '.join(meant)}?"
    folder = posixpath.dirname(path)
    if folder in known:
        return await _folder_text(box, folder)
    return f"The work_dir holds {_named([_shown(node) for node in tree.nodes])}."


def _meant(path: str, known: Sequence[str]) -> list[str]:
    """Paths of the same name elsewhere, or else those that look like it."""
    name = posixpath.basename(path).casefold()
    same = [each for each in known if posixpath.basename(each).casefold() == name]
    return (same or difflib.get_close_matches(path, known, n=MEANT, cutoff=0.6))[:MEANT]


def _walk(nodes: Sequence[FileNode]) -> Iterator[str]:
    for node in nodes:
        yield node["path"]
        if node["name"] not in UNLISTED_FOLDERS:
            yield from _walk(node.get("children") or [])


def _shown(node: FileNode) -> str:
    return f"{node['name']}/" if node["type"] == "directory" else node["name"]


def _named(names: Sequence[str]) -> str:
    if not names:
        return "nothing"
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more}"
