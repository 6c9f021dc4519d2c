"""Searching files. The pattern is the model's and could make Python's `re` hang, so grep does it, in the sandbox."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Annotated, Final

from pydantic import Field

from beray.server.agent.tools.base import Answer, Toolbox, ToolError
from beray.server.agent.tools.files import UNLISTED_FOLDERS
from beray.server.agent.tools.output import HeadAndTail
from beray.server.messages import text
from beray.server.sandbox.base import SandboxError, Spec
from beray.server.work_dirs.paths import parse_path, wire_path

SECONDS: Final = 30
MATCHES: Final = 200
LINE_CHARACTERS: Final = 300


def build_search_files(box: Toolbox) -> Callable[..., Awaitable[Answer]]:
    """The tool for one run."""

    async def search_files(
        pattern: Annotated[str, Field(min_length=1, max_length=1000)], path: str = ".", glob: str = "*"
    ) -> Answer:
        """Search the text files of the work_dir for a pattern; gives path:line:text of at most 200 matches.

        Args:
            pattern: POSIX extended regular expression, as grep -E takes it; case matters.
            path: Folder or file to search, relative to the work_dir.
            glob: Only files whose name matches, such as *.py.
        """
        if "\0" in pattern + path + glob:
            raise ToolError("Patterns and paths can't hold NUL characters.")
        code, output = await _grep(box, pattern, wire_path(parse_path(path)), glob)
        lines = output.splitlines()
        if code not in {0, 1} and not lines:
            raise ToolError(f"The search failed (grep exit code {code}). Check the pattern (grep -E) and the path.")
        if code not in {0, 1}:
            raise ToolError("The search failed: " + "\n".join(lines[:5]))
        shown = [line.removeprefix("././").removeprefix("./")[:LINE_CHARACTERS] for line in lines[:MATCHES]]
        if len(lines) > MATCHES:
            shown.append(f"[only the first {MATCHES} of {len(lines)} matches or more; narrow the pattern]")
        return Answer(
            "\n".join(shown) or "(no matches)", text("agent_matches_found", box.run.language, count=len(lines))
        )

    return search_files


async def _grep(box: Toolbox, pattern: str, path: str, glob: str) -> tuple[int, str]:
    """Exit code and output of grep; the output is not shown to people, for it is not a command they would expect."""
    run = box.run
    excluded = [f"--exclude-dir={name}" for name in sorted(UNLISTED_FOLDERS)]
    spec = Spec(
        argv=["grep", "-rnIE", f"--include={glob}", *excluded, "-m", str(MATCHES), "-e", pattern, "--", f"./{path}"],
        work_dir=run.work_dir.path,
        uid=run.uid,
        limits=replace(run.sandbox_limits, wall_seconds=SECONDS),
    )
    try:
        process = await run.sandbox.start(spec)
    except SandboxError as error:
        raise ToolError(f"The search could not be started: {error}") from error
    output = HeadAndTail(head_bytes=256 * 1024, most_bytes=256 * 1024 + 1)
    try:
        while output.size < 256 * 1024 and (piece := await process.read()) is not None:
            output.add(piece[1])
        if output.size >= 256 * 1024:
            return 0, output.text()
        ended = await process.wait()
    finally:
        await process.kill()
    if ended.reason == "timeout":
        raise ToolError(f"The search took longer than {SECONDS} s. Search a smaller folder.")
    return ended.code, output.text()
