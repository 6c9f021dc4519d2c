"""Run programs one after another in this process, as if each were the main one; print their outputs as JSON.

A program of its own: `python snippet_runner.py program_0.py program_1.py`. One process, since most of a short
program's time goes into starting Python.
"""

import ast
import asyncio
import contextlib
import gc
import inspect
import io
import json
import runpy
import sys
from pathlib import Path


def output_of(path: str) -> str:
    """What the program prints; what it left open is told as a warning at once."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        run(path)
        gc.collect()
    return printed.getvalue()


def run(path: str) -> None:
    """Run the program; one that awaits at its top level as a notebook would."""
    source = Path(path).read_text(encoding="utf-8")
    code = compile(source, path, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    if code.co_flags & inspect.CO_COROUTINE:
        asyncio.run(eval(code, {"__name__": "__main__"}))
    else:
        runpy.run_path(path, run_name="__main__")


if __name__ == "__main__":
    sys.path[0] = str(Path.cwd())
    print(json.dumps([output_of(path) for path in sys.argv[1:]]))
