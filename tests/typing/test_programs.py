"""Programs of users, read by the type checkers that users have: strict, with the package as it is installed.

Each file of `programs/` but `refused.py` must be free of faults; a further job of the SDK is a further file.
"""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import indent

import pytest

from beray.client import BeRayClient
from tests.support.snippets import programs_of

PROGRAMS = Path(__file__).parent / "programs"
REFUSED = re.compile(r"  # refused: ([\w-]+), (\w+)( \(strict\))?$")
PAGES = Path(__file__).parents[2] / "docs/en"
ROUGH = {"webhooks", "write-a-tool"}  # pages whose programs are written without types, or are for the server's side
CHECK_SECONDS = 100

Faults = dict[str, set[str]]
"""Rules that are broken, by file and line."""


@dataclass(frozen=True)
class Mistake:
    """What the checkers must say of a line."""

    mypy: str
    pyright: str
    is_strict: bool
    """Pyright says it in its strict mode alone."""


def mistakes() -> dict[str, Mistake]:
    """Those of `refused.py`, by file and line."""
    lines = (PROGRAMS / "refused.py").read_text(encoding="utf-8").splitlines()
    found = {f"refused.py:{number}": REFUSED.search(line) for number, line in enumerate(lines, 1)}
    return {place: Mistake(match[1], match[2], match[3] is not None) for place, match in found.items() if match}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The programs, those of the documentation too, where nothing else of this repository is seen."""
    for mode in ("basic", "strict"):
        shutil.copytree(PROGRAMS, tmp_path / mode)
        for name, program in programs_of_pages().items():
            (tmp_path / mode / name).write_text(as_program(program), encoding="utf-8")
    return tmp_path


def programs_of_pages() -> dict[str, str]:
    """Those that use typed packages alone, by a name for a file."""
    return {
        f"{page.stem.replace('-', '_')}_{number}.py": program.source
        for page in sorted(PAGES.glob("*.md"))
        if page.stem not in ROUGH
        for number, program in enumerate(programs_of(page.read_text(encoding="utf-8")))
        if "import tqdm" not in program.source
    }


def as_program(snippet: str) -> str:
    """A notebook's cell awaits at its top level, which a file may not, and ends with what it shows."""
    try:
        compile(snippet, "snippet", "exec")
    except SyntaxError:
        *lines, shown = snippet.splitlines()
        return "async def cell() -> None:\n" + indent("\n".join([*lines, f"print({shown})\n"]), "    ")
    return snippet


def check(command: Sequence[str], folder: Path) -> str:
    """What a checker prints; it must have found something, for there are mistakes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MYPY", "PYRIGHT"))}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=CHECK_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, ""), done.stdout
    return done.stdout


def test_mypy_accepts_the_programs_and_refuses_the_mistakes(folder: Path) -> None:
    shown = check(["mypy", "--strict", "--config-file=", "--cache-dir=cache", "--output=json", "strict"], folder)

    found: Faults = {}
    for fault in map(json.loads, shown.splitlines()):
        if fault["severity"] == "error":
            place = f"{Path(fault['file']).name}:{fault['line']}"
            found.setdefault(place, set()).add(fault["code"])
    assert found == {place: {mistake.mypy} for place, mistake in mistakes().items()}


def test_pyright_accepts_the_programs_and_refuses_the_mistakes(folder: Path) -> None:
    """In its basic mode, which editors have, and in its strict one."""
    settings = {"include": ["basic", "strict"], "typeCheckingMode": "basic", "strict": ["strict"]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))

    report = json.loads(check(["pyright", "--pythonpath", sys.executable, "--outputjson"], folder))

    found: dict[str, Faults] = {"basic": {}, "strict": {}}
    for fault in report["generalDiagnostics"]:
        path = Path(fault["file"])
        place = f"{path.name}:{fault['range']['start']['line'] + 1}"
        found[path.parent.name].setdefault(place, set()).add(fault["rule"])
    told = mistakes()
    assert found["basic"] == {place: {one.pyright} for place, one in told.items() if not one.is_strict}
    assert found["strict"].keys() == told.keys()
    assert all(one.pyright in found["strict"][place] for place, one in told.items())


def test_every_method_of_the_client_is_used_by_a_program() -> None:
    used = set(re.findall(r"\bclient\.(\w+)\(", "".join(path.read_text("utf-8") for path in PROGRAMS.glob("*.py"))))
    methods = {name for name, _ in inspect.getmembers(BeRayClient, inspect.isfunction) if not name.startswith("_")}

    assert sorted(methods - used) == []
