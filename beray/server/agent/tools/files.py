"""Tools that read and change single files of the work_dir. All go through its confined opens."""

import asyncio
import difflib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Annotated, Final

from pydantic import Field

from beray.protocol.types import FileNode
from beray.server.agent.tools.base import Answer, Toolbox, ToolError
from beray.server.agent.tools.process import held_bytes, size_text, why_less
from beray.server.messages import text
from beray.server.work_dirs.listing import FileChange

READ_LINES: Final = 2000
READ_CHARACTERS: Final = 60_000
MOST_TEXT_BYTES: Final = 8 << 20  # a text file read or edited; larger ones are for the shell
LISTED: Final = 1000
UNLISTED_FOLDERS: Final = frozenset({".git", "node_modules", "__pycache__", ".venv"})

Line = Annotated[int, Field(ge=1)]
LineCount = Annotated[int, Field(ge=1, le=READ_LINES)]


def build_read_file(box: Toolbox) -> Callable[..., Awaitable[Answer]]:
    """The tool for one run."""

    async def read_file(path: str, offset: Line = 1, limit: LineCount = READ_LINES) -> Answer:
        """Read a text file of the work_dir.

        Args:
            path: Relative to the work_dir, such as src/main.py.
            offset: Line to start at, counted from 1.
            limit: Lines to read, at most 2000.
        """
        lines = (await read_text(box, path)).splitlines(keepends=True)
        if offset > max(len(lines), 1):
            raise ToolError(f"{path} has {len(lines)} lines; offset {offset} is behind its end.")
        part = "".join(lines[offset - 1 : offset - 1 + limit])
        shown = part[:READ_CHARACTERS]
        last = offset + len(shown.splitlines()) - 1
        summary = text("agent_lines_read", box.run.language, count=max(last - offset + 1, 0))
        if len(shown) < len(part) or last < len(lines):
            shown += f"\n[lines {offset} to {last} of {len(lines)}; go on with offset={last + 1}]"
        return Answer(shown or "(the file is empty)", summary)

    return read_file


def build_write_file(box: Toolbox) -> Callable[..., Awaitable[Answer]]:
    """The tool for one run."""

    async def write_file(path: str, content: str) -> Answer:
        """Write a text file in the work_dir, in place of what it held; folders are made as needed.

        Args:
            path: Relative to the work_dir.
            content: The whole content.
        """
        change = await write_content(box, path, content.encode())
        return Answer(
            f"Wrote {change.size} bytes to {path}{'' if change.change == 'created' else ' (replaced)'}.",
            text("agent_bytes_written", box.run.language, count=change.size),
            changes=[change],
        )

    return write_file


def build_edit_file(box: Toolbox) -> Callable[..., Awaitable[Answer]]:
    """The tool for one run."""

    async def edit_file(path: str, old: str, new: str) -> Answer:
        """Replace one passage of a text file of the work_dir.

        Args:
            path: Relative to the work_dir.
            old: The passage as it stands in the file, blanks included; it must occur exactly once: give enough of it.
            new: What replaces it; empty to delete the passage.
        """
        content = await read_text(box, path)
        if "\r\n" in content and "\r\n" not in old:
            old, new = old.replace("\n", "\r\n"), new.replace("\n", "\r\n")
        _check_edit(path, content, old, new)
        change = await write_content(box, path, content.replace(old, new).encode())
        return Answer(f"Edited {path}.", text("agent_edited", box.run.language), changes=[change])

    return edit_file


def build_list_files(box: Toolbox) -> Callable[..., Awaitable[Answer]]:
    """The tool for one run."""

    async def list_files(path: str = ".", glob: Annotated[str, Field(max_length=200)] = "*") -> Answer:
        """List the files of the work_dir below a folder, with their sizes in bytes.

        Args:
            path: Folder, relative to the work_dir.
            glob: Only files whose name or path matches, such as *.py or src/*.
        """
        tree = await asyncio.to_thread(box.run.work_dir.list_tree, path, limit=LISTED)
        entries = [
            f"{node['size']:>10}  {node['path']}{'@' if node['type'] == 'symlink' else ''}"
            for node in _files(tree.nodes)
            if fnmatchcase(node["name"], glob) or fnmatchcase(node["path"], glob)
        ]
        listed = entries.copy()
        if tree.is_truncated:
            listed.append(f"[cut: only {LISTED} entries are looked at; list a folder below, or use find]")
        return Answer(
            "\n".join(listed) or "(no files)", text("agent_files_found", box.run.language, count=len(entries))
        )

    return list_files


def _files(nodes: list[FileNode]) -> Iterator[FileNode]:
    for node in nodes:
        if node["type"] != "directory":
            yield node
        elif node["name"] not in UNLISTED_FOLDERS:
            yield from _files(node.get("children", []))


async def read_content(box: Toolbox, path: str, *, most_bytes: int) -> bytes:
    """The whole content of a file.

    Raises:
        ToolError: It is larger than `most_bytes`.
    """
    content = await asyncio.to_thread(box.run.work_dir.read_bytes, path, limit=most_bytes + 1)
    if len(content) > most_bytes:
        raise ToolError(f"{path} is larger than {size_text(most_bytes)}. Use the shell: head, tail, sed, grep.")
    return content


async def read_text(box: Toolbox, path: str) -> str:
    """The text of a file.

    Raises:
        ToolError: It is larger than MOST_TEXT_BYTES, or no text.
    """
    content = await read_content(box, path, most_bytes=MOST_TEXT_BYTES)
    try:
        decoded = content.decode()
    except UnicodeDecodeError:
        decoded = "\0"
    if "\0" in decoded:
        raise ToolError(f"{path} is not UTF-8 text. Use the shell to look at it: file, xxd, iconv.")
    return decoded


async def write_content(box: Toolbox, path: str, content: bytes) -> FileChange:
    """Write a file; folders are made as needed.

    Raises:
        ToolError: The task's files may not take so much.
    """
    room = await box.run.room.within(box.run.sandbox_limits.disk_bytes)
    limits = replace(box.run.sandbox_limits, disk_bytes=room)
    held = held_bytes(box) or 0
    if content and held + len(content) > room:
        raise ToolError(
            f"Nothing was written: the task's files take {size_text(held)} of the {size_text(room)} they may"
            f"{why_less(box, limits)}. Delete what is not needed, or empty it, first."
        )
    written = await asyncio.to_thread(box.run.work_dir.write_bytes, path, content)
    box.progress.disk_bytes = max(0, held + written.growth)
    await box.run.room.note(box.progress.disk_bytes)
    return FileChange(written.path, "created" if written.is_new else "modified", written.size)


def _check_edit(path: str, content: str, old: str, new: str) -> None:
    """Raise a ToolError that helps, unless `old` stands in `content` exactly once."""
    if not old:
        raise ToolError("`old` is empty. Give the passage to replace, or write the whole file with write_file.")
    if old == new:
        raise ToolError("`old` and `new` are the same; there is nothing to change.")
    count = content.count(old)
    if count == 1:
        return
    if count == 0:
        raise ToolError(f"`old` does not stand in {path}; nothing was changed. {_closest(content, old)}")
    numbers = [str(content.count("\n", 0, position) + 1) for position in _positions(content, old)]
    raise ToolError(
        f"`old` stands in {path} {count} times (lines {', '.join(numbers)}); nothing was changed. "
        "Include more of the lines around the one you mean."
    )


def _positions(content: str, old: str) -> Iterator[int]:
    position = content.find(old)
    for _ in range(10):
        if position < 0:
            return
        yield position
        position = content.find(old, position + len(old))


def _closest(content: str, old: str) -> str:
    """Where the file comes closest to the first line of `old`, so that the model sees what differs."""
    wanted = next((line for line in old.splitlines() if line.strip()), "").strip()
    lines = content.splitlines()[:20_000]
    stripped = [line.strip() for line in lines]
    found = difflib.get_close_matches(wanted[:500], stripped[:2000], n=1, cutoff=0.6)
    if not found:
        return "Read the file again and copy the passage from it."
    number = stripped.index(found[0])
    height = max(len(old.splitlines()), 1)
    passage = "\n".join(lines[max(number - 1, 0) : number + height + 1])
    return f"The closest passage begins at line {number + 1}:\n{passage}"
