"""The edit_file tool: one passage of a file is replaced, or the model is told exactly why not."""

import asyncio
from collections.abc import Awaitable, Callable

from beray.server.agent.tools.base import Answer, Toolbox, ToolError
from beray.server.agent.tools.closest import explain_miss, line_numbers
from beray.server.agent.tools.files import read_text, write_content
from beray.server.messages import text

MOST_NUMBERS = 10


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
        if "\r\n" in content and "\r\n" not in old and old not in content:
            old, new = old.replace("\n", "\r\n"), new.replace("\n", "\r\n")
        wrong = await asyncio.to_thread(_find_fault, path, content, old, new)
        if wrong:
            raise ToolError(wrong)
        change = await write_content(box, path, content.replace(old, new).encode())
        first = line_numbers(content, old)[0]
        return Answer(f"Edited {path} at line {first}.", text("agent_edited", box.run.language), changes=[change])

    return edit_file


def _find_fault(path: str, content: str, old: str, new: str) -> str:
    """What keeps the edit from being made, and how to make it; "" if nothing does."""
    if not old:
        return "`old` is empty. Give the passage to replace, or write the whole file with write_file."
    if old == new:
        return "`old` and `new` are the same; there is nothing to change."
    count = content.count(old)
    if count == 1:
        return ""
    if count == 0:
        return f"`old` does not stand in {path}; nothing was changed. {_why_not(path, content, old, new)}"
    numbers = ", ".join(map(str, line_numbers(content, old, most=MOST_NUMBERS)))
    more = ", …" if count > MOST_NUMBERS else ""
    return (
        f"`old` stands in {path} {count} times (lines {numbers}{more}); nothing was changed. "
        "Include more of the lines around the one you mean."
    )


def _why_not(path: str, content: str, old: str, new: str) -> str:
    if new.strip() and (numbers := line_numbers(content, new, most=1)):
        return f"`new` stands there already, at line {numbers[0]}: the edit may have been made before."
    content, old = content.replace("\r\n", "\n"), old.replace("\r\n", "\n")
    if old in content:
        return r"It differs only in line ends, of which the file has two kinds. Unify them first: sed -i 's/\r$//' FILE"
    return explain_miss(path, content, old)
