"""Programs out of documents, run as a reader would run them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.server import ServerProcess

SNIPPET_SECONDS = 60
ADDRESS = "http://localhost:8000"  # what the documents say
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
RUNNER = Path(__file__).with_name("snippet_runner.py")


@dataclass(slots=True)
class Program:
    """A program of a page, and what the page says that it prints: `…` stands for anything."""

    source: str
    output: str | None = None

    @property
    def is_async(self) -> bool:
        return "AsyncBeRayClient" in self.source


def programs_of(markdown: str) -> list[Program]:
    """The page's programs. A fence of `text` is what the one before it prints, and its twin for the other client."""
    programs: list[Program] = []
    before = ""
    for kind, content in FENCE.findall(markdown):
        if kind == "python":
            programs.append(Program(content))
        if kind == "text" and before == "python":
            is_pair = len(programs) > 1 and programs[-1].is_async and not programs[-2].is_async
            for program in programs[-2:] if is_pair else programs[-1:]:
                program.output = content
        before = kind
    return programs


def is_as_told(printed: str, told: str) -> bool:
    """Whether the program printed what its page says."""
    return re.fullmatch(".*?".join(map(re.escape, told.split("…"))), printed, re.DOTALL) is not None


def run_programs(programs: Sequence[Program], server: ServerProcess, folder: Path, *, token: str) -> list[str]:
    """What each prints, one after another in one process. All must end well and warn of nothing.

    `from_env` finds the server, logged in; whoever is asked for a code (`input`) gives a wrong one.
    """
    paths = [folder / f"program_{number}.py" for number in range(len(programs))]
    for path, program in zip(paths, programs, strict=True):
        path.write_text(program.source, encoding="utf-8")
    environment = {"BERAY_BASE_URL": ADDRESS, "BERAY_TOKEN": token}
    printed = _run([str(RUNNER), *(path.name for path in paths)], server, folder, environment)
    outputs: list[str] = json.loads(printed)
    return outputs


def run_snippet(program: str, server: ServerProcess, folder: Path) -> str:
    """What the program prints. It must end well and warn of nothing."""
    path = folder / "snippet.py"
    path.write_text(program, encoding="utf-8")
    return _run([path.name], server, folder, {})


def _run(arguments: list[str], server: ServerProcess, folder: Path, more: dict[str, str]) -> str:
    """Programs' text is left as it is, so whatever address they name, they reach the test's server as a proxy."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"http_proxy": server.base_url, "PYTHONIOENCODING": "utf-8", **more}
    done = subprocess.run(
        [sys.executable, "-W", "error", *arguments],
        cwd=folder,
        env=environment,
        input="000000\n" * 10,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=SNIPPET_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), f"ended with {done.returncode}:\n{done.stderr}"
    return done.stdout
