"""Searching files. The pattern is the model's and could make Python's `re` hang, so grep does it, in the sandbox."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Annotated, Final

from pydantic import Field

from beray.server.agent.tools.base import Answer, Toolbox, ToolError
from beray.server.agent.tools.whereabouts import UNLISTED_FOLDERS, astray
from beray.server.errors import Refused
from beray.server.messages import text
from beray.server.sandbox.base import Process, SandboxError, Spec
from beray.server.work_dirs.paths import parse_path, wire_path

SECONDS: Final = 30
MATCHES: Final = 200
LINE_CHARACTERS: Final = 300
MOST_BYTES: Final = 256 * 1024
MOST_CONTEXT: Final = 10

_PERL: Final = re.compile(r"\\[dD]|\(\?[:=!<]")
_PLACE: Final = re.compile(r"[0-9]+([:-])")

ContextLines = Annotated[int, Field(ge=0, le=MOST_CONTEXT)]


@dataclass(frozen=True)
class Search:
    """What is searched for, and where."""

    pattern: str
    path: str
    glob: str
    context: int


@dataclass(frozen=True)
class Found:
    """What grep came to.

    Attributes:
        code: Its exit code: 0 found, 1 nothing, else an error.
        lines: What stands where: path, NUL, number, `:` or (around a match) `-`, text.
        complaints: What it did not like.
        is_cut: There is more.
    """

    code: int
    lines: list[str]
    complaints: list[str]
    is_cut: bool


def build_search_files(box: Toolbox) -> Callable[..., Awaitable[Answer]]:
    """The tool for one run."""

    async def search_files(
        pattern: Annotated[str, Field(min_length=1, max_length=1000)],
        path: str = ".",
        glob: str = "*",
        context: ContextLines = 0,
    ) -> Answer:
        """Search the text files of the work_dir for a pattern; gives path:line:text of at most 200 lines.

        Args:
            pattern: POSIX extended regular expression, as grep -E takes it; case matters.
            path: Folder or file to search, relative to the work_dir.
            glob: Only files whose name matches, such as *.py.
            context: Lines to show before and after each match, at most 10; they are given as path-line-text.
        """
        if "\0" in pattern + path + glob:
            raise ToolError("Patterns and paths can't hold NUL characters.")
        await _check_path(box, path)
        found = await _grep(box, Search(pattern, wire_path(parse_path(path)), glob, context))
        if found.code not in {0, 1}:
            raise ToolError(_failure(found))
        return _answer(box, pattern, found)

    return search_files


async def _check_path(box: Toolbox, path: str) -> None:
    """Raise a ToolError that helps, if there is nothing to search."""
    try:
        await asyncio.to_thread(box.run.work_dir.tree, path, depth=1, limit=1)
    except Refused as refused:
        if refused.code != "not_a_directory":  # one file can be searched, too
            raise await astray(box, path, refused) from refused


def _failure(found: Found) -> str:
    reason = "\n".join(found.complaints[:5]) or f"grep ended with exit code {found.code}"
    advice = r"In grep -E a character that is meant as it stands needs a backslash: \( \[ \{"
    return f"The search failed: {reason}\n{advice}"


def _answer(box: Toolbox, pattern: str, found: Found) -> Answer:
    shown = [_shown(line) for line in found.lines[:MATCHES]]
    if len(found.lines) > MATCHES or found.is_cut:
        shown.append(f"[only the first {len(shown)} lines; narrow the pattern, path or glob]")
    if not shown:
        shown.append("(no matches)")
        if _PERL.search(pattern):
            shown.append(r"[grep -E knows neither \d nor (?: ; write [0-9] and ( instead]")
    matches = sum(_is_match(line) for line in found.lines)
    return Answer("\n".join(shown), text("agent_matches_found", box.run.language, count=matches))


def _shown(line: str) -> str:
    path, nul, rest = line.partition("\0")
    path = path.removeprefix("././").removeprefix("./")
    return f"{path}{':' if _is_match(line) else '-'}{rest}"[:LINE_CHARACTERS] if nul else line


def _is_match(line: str) -> bool:
    place = _PLACE.match(line.partition("\0")[2])
    return place is not None and place[1] == ":"


async def _grep(box: Toolbox, search: Search) -> Found:
    """Run grep; its output is not shown to people, for it is not a command they would expect."""
    run = box.run
    excluded = [f"--exclude-dir={name}" for name in sorted(UNLISTED_FOLDERS)]
    around = ["-C", str(search.context)] if search.context else []
    about = [f"--include={search.glob}", *excluded, "-m", str(MATCHES + 1), *around]
    spec = Spec(
        argv=["grep", "-rnHIEZ", *about, "-e", search.pattern, "--", f"./{search.path}"],
        work_dir=run.work_dir.path,
        uid=run.uid,
        limits=replace(run.sandbox_limits, wall_seconds=SECONDS),
    )
    try:
        process = await run.sandbox.start(spec)
    except SandboxError as error:
        raise ToolError(f"The search could not be started: {error}") from error
    try:
        return await _read(process)
    finally:
        await process.kill()


async def _read(process: Process) -> Found:
    printed = {"stdout": bytearray(), "stderr": bytearray()}
    while len(printed["stdout"]) < MOST_BYTES and (piece := await process.read()) is not None:
        stream, content = piece
        printed[stream] += content[: MOST_BYTES - len(printed[stream])]
    lines, complaints = (printed[name].decode("utf-8", "replace").splitlines() for name in ("stdout", "stderr"))
    if len(printed["stdout"]) >= MOST_BYTES:
        return Found(0, lines, complaints, is_cut=True)
    ended = await process.wait()
    if ended.reason == "timeout":
        raise ToolError(f"The search took longer than {SECONDS} s. Search a smaller folder.")
    # an unreadable file makes it an error, though it has found something in others
    return Found(0 if lines else ended.code, lines, complaints, is_cut=False)
