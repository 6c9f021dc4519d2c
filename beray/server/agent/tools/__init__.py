"""The tools a model can call. Importing this package costs nothing; `build.py` makes the tools."""

from typing import Final

TOOL_NAMES: Final = (
    "shell",
    "background",
    "python",
    "read_file",
    "write_file",
    "edit_file",
    "list_files",
    "search_files",
    "update_plan",
    "ask_user",
    "finish",
)
"""Every tool, in the order shown; a task's `tools` selects among them, null means all."""
