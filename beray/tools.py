"""What a tool for BeRay's agents is written with (docs: "Write a tool"). Needs nothing but Python.

A tool is a function such as `async def look_up(context: ToolContext, term: str) -> str`, whose docstring (Google style)
tells the model what it is for and what each parameter means. An entry point of the group `beray.tools` makes it known;
its name is the tool's.
"""

from typing import Literal, Protocol

__all__ = ["ToolContext", "ToolError"]


class ToolError(Exception):
    """A call failed. The text is what the model is told: what failed, and what to do instead."""


class ToolContext(Protocol):
    """The task that a tool works for. It serves one call, and nothing after that call's end.

    Paths are relative to the task's work_dir and never lead out of it.
    """

    @property
    def task_id(self) -> int:
        """Id of the task."""
        ...

    @property
    def language(self) -> Literal["zh", "en"]:
        """The language the user wrote in."""
        ...

    async def read_text(self, path: str) -> str:
        """The text of a UTF-8 file of at most 8 MiB.

        Raises:
            ToolError: There is no such file, it is larger, or it is no text.
        """
        ...

    async def read_bytes(self, path: str) -> bytes:
        """The content of a file of at most 64 MiB.

        Raises:
            ToolError: There is no such file, or it is larger.
        """
        ...

    async def write_text(self, path: str, text: str) -> None:
        """Write a file in place of what it held; folders are made as needed. The user sees that it has changed.

        Raises:
            ToolError: It can't be written there, or the task's files may not take so much.
        """
        ...

    async def write_bytes(self, path: str, content: bytes) -> None:
        """`write_text` for bytes."""
        ...
