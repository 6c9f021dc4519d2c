"""What a person has to type to call this program again."""

import os


def program_name() -> str:
    """`beray`, or `uv run beray` where uv started it from a checkout (uv sets the variable for what it runs)."""
    return "uv run beray" if os.environ.get("UV_RUN_RECURSION_DEPTH") else "beray"
