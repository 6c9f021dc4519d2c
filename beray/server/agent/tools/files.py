"""Tools that read and change single files of the work_dir. All go through its confined opens."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Annotated, Final

from pydantic import Field

from beray.protocol.types import FileNode
from beray.server.agent.tools.base import Answer, Toolbox, ToolError
from beray.server.agent.tools.pictures import recognise
from beray.server.agent.tools.process import held_bytes, size_text, why_less
from beray.server.agent.tools.whereabouts import LISTED, UNLISTED_FOLDERS, astray
from beray.server.errors import Refused
from beray.server.messages import text
from beray.server.work_dirs.listing import FileChange

READ_LINES: Final = 2000
READ_CHARACTERS: Final = 60_000
MOST_TEXT_BYTES: Final = 8 << 20  # a text file read or edited; larger ones are for the shell

_LOOK: Final = "Use the shell to look at it: file, xxd, iconv."

Line = Annotated[int, Field(ge=1)]
LineCount = Annotated[int, Field(ge=1, le=READ_LINES)]


def build_read_file(box: Toolbox) -> Callable[..., Awaitable[Answer]]:
    """The tool for one run."""

    async def read_file(path: str, offset: Line = 1, limit: LineCount = READ_LINES) -> Answer:
        """Read a text file of the work_dir, or see a picture (PNG, JPEG, GIF or WebP), if this model can.

        Args:
            path: Relative to the work_dir, such as src/main.py.
            offset: Line to start at, counted from 1; not for pictures.
            limit: Lines to read, at most 2000; not for pictures.
        """
        content = await read_content(box, path, most_bytes=MOST_TEXT_BYTES)
        picture = await asyncio.to_thread(recognise, content)
        if picture is not None:
            summary = text("agent_picture_read", box.run.language, width=picture.width, height=picture.height)
            return Answer(f"{path} is {picture.about}.", summary, pictures=[picture])
        return _shown(box, path, _split(_decoded(path, content)), first=offset, most=limit)

    return read_file


def build_write_file(box: Toolbox) -> Callable[..., Awaitable[Answer]]:
    """The tool for one run."""

    async def write_file(path: str, content: str) -> Answer:
        """Write a text file in the work_dir, in place of what it held; folders are made as needed.

        Args:
            path: Relative to the work_dir.
            content: The whole content.
        """
        encoded = content.encode()
        if encoded == await _content_now(box, path, len(encoded)):
            return Answer(
                f"{path} holds exactly this already; nothing was changed.", text("agent_unchanged", box.run.language)
            )
        change = await write_content(box, path, encoded)
        return Answer(
            f"Wrote {change.size} bytes to {path}{'' if change.change == 'created' else ' (replaced)'}.",
            text("agent_bytes_written", box.run.language, count=change.size),
            changes=[change],
        )

    return write_file


def build_list_files(box: Toolbox) -> Callable[..., Awaitable[Answer]]:
    """The tool for one run."""

    async def list_files(path: str = ".", glob: Annotated[str, Field(max_length=200)] = "*") -> Answer:
        """List the files of the work_dir below a folder, with their sizes in bytes.

        Args:
            path: Folder, relative to the work_dir.
            glob: Only files whose name or path matches, such as *.py or src/*.
        """
        try:
            tree = await asyncio.to_thread(box.run.work_dir.list_tree, path, limit=LISTED)
        except Refused as refused:
            raise await astray(box, path, refused) from refused
        files = list(_files(tree.nodes))
        wanted = [node for node in files if fnmatchcase(node["name"], glob) or fnmatchcase(node["path"], glob)]
        listed = [_entry(node) for node in wanted] or [_why_none(files, glob)]
        if unlisted := sorted(node["name"] for node in tree.nodes if _is_unlisted(node)):
            listed.append(f"[left out: {', '.join(unlisted)}]")
        if tree.is_truncated:
            listed.append(f"[cut: only {LISTED} entries are looked at; list a folder below, or use find]")
        return Answer(_bounded(listed), text("agent_files_found", box.run.language, count=len(wanted)))

    return list_files


def _entry(node: FileNode) -> str:
    return f"{node['size']:>10}  {node['path']}{'@' if node['type'] == 'symlink' else ''}"


def _why_none(files: list[FileNode], glob: str) -> str:
    return f"(no file matches {glob}; there are {len(files)} others)" if files else "(no files)"


def _is_unlisted(node: FileNode) -> bool:
    return node["type"] == "directory" and node["name"] in UNLISTED_FOLDERS


def _bounded(lines: list[str]) -> str:
    """The lines that have room; names may be long."""
    whole = "\n".join(lines)
    if len(whole) <= READ_CHARACTERS:
        return whole
    return whole[: whole.rindex("\n", 0, READ_CHARACTERS)] + "\n[cut: there are more; list a folder below]"


def _files(nodes: list[FileNode]) -> Iterator[FileNode]:
    for node in nodes:
        if node["type"] != "directory":
            yield node
        elif not _is_unlisted(node):
            yield from _files(node.get("children", []))


async def read_content(box: Toolbox, path: str, *, most_bytes: int) -> bytes:
    """The whole content of a file.

    Raises:
        ToolError: It is not there, is no file, or is larger than `most_bytes`.
    """
    try:
        content = await asyncio.to_thread(box.run.work_dir.read_bytes, path, limit=most_bytes + 1)
    except Refused as refused:
        raise await astray(box, path, refused) from refused
    if len(content) > most_bytes:
        raise ToolError(
            f"{path} is larger than {size_text(most_bytes)}. Use the shell: head, tail, sed -n '100,200p', grep."
        )
    return content


async def read_text(box: Toolbox, path: str) -> str:
    """The text of a file.

    Raises:
        ToolError: As `read_content`, for MOST_TEXT_BYTES; or it is no text.
    """
    return _decoded(path, await read_content(box, path, most_bytes=MOST_TEXT_BYTES))


def _decoded(path: str, content: bytes) -> str:
    try:
        decoded = content.decode()
    except UnicodeDecodeError as error:
        raise ToolError(f"{path} is not UTF-8 text (byte {error.start}). {_LOOK}") from error
    if "\0" in decoded:
        raise ToolError(f"{path} is not text: it holds NUL characters. {_LOOK}")
    return decoded


def _split(content: str) -> list[str]:
    """Lines as editors and grep count them, with their ends."""
    lines = [f"{line}\n" for line in content.split("\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


def _shown(box: Toolbox, path: str, lines: list[str], *, first: int, most: int) -> Answer:
    """Lines of a file, from `first` on, as many as are wanted and have room."""
    if first > max(len(lines), 1):
        raise ToolError(f"{path} has {len(lines)} lines; offset {first} is behind its end.")
    part = lines[first - 1 : first - 1 + most]
    room = READ_CHARACTERS
    count = 0
    for line in part:
        room -= len(line)
        if room < 0 and count:
            break
        count += 1
    shown, last = "".join(part[:count]), first + count - 1
    if len(shown) > READ_CHARACTERS:
        shown = f"{shown[:READ_CHARACTERS]}\n[line {first} has {len(part[0])} characters; for its rest use cut -c]"
    if last < len(lines):
        shown += f"\n[lines {first} to {last} of {len(lines)}; go on with offset={last + 1}]"
    return Answer(shown or "(the file is empty)", text("agent_lines_read", box.run.language, count=max(count, 0)))


async def _content_now(box: Toolbox, path: str, size: int) -> bytes | None:
    """What a file holds, if that is no more than `size` bytes."""
    try:
        content = await asyncio.to_thread(box.run.work_dir.read_bytes, path, limit=size + 1)
    except Refused:  # it is not there, or can't be read: then it is written
        return None
    return content if len(content) <= size else None


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
