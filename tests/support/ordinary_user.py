"""Run code of ours in a process of another user: a copy of what it needs, by an interpreter everybody can execute."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ORDINARY_UID = 54_321 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
"""One for each test process: the kernel counts a user's processes, and bombs of another test would be among them."""
ROOT = Path(__file__).parents[2]
RUN_SECONDS = 110


@dataclass(frozen=True)
class CaseRun:
    """Which cases to run, how.

    Attributes:
        backend: The sandbox.
        uid: Uid of the process, None for ours.
        in_container: Refuse it what an ordinary container refuses.
    """

    backend: str
    uid: int | None
    in_container: bool = False


def run_cases_apart(run: CaseRun, folder: Path) -> dict[str, str | None]:
    """Run all cases of a backend in a process of their own; each one's traceback, None if it passed."""
    from tests.support.sandbox_cases import CANARY

    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as name:
        place = Path(name)
        place.chmod(0o755)
        data_dir = place / "data"
        data_dir.mkdir(mode=0o711)
        arguments = [run.backend, str(data_dir), "in-container" if run.in_container else "free"]
        env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(data_dir), "SERVER_CANARY": CANARY}
        command = [_python(run.uid), "-W", "error", "-m", "tests.support.sandbox_cases", *arguments]
        if run.uid is not None:
            os.chown(data_dir, run.uid, run.uid)
        ended = subprocess.run(
            command,
            cwd=code_for_all(place) if run.uid is not None else ROOT,
            env=env | {"PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
            check=False,
            user=run.uid,
            group=run.uid,
            extra_groups=None if run.uid is None else [],
        )
    assert ended.returncode == 0, ended.stderr
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    return {line["case"]: line["failure"] for line in lines}


def python_for_all() -> str | None:
    """An interpreter of 3.11 or newer that every user can execute."""
    for program in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        check = "import sys; sys.exit(sys.version_info < (3, 11))"
        try:
            ended = subprocess.run(
                [program, "-I", "-c", check],
                user=ORDINARY_UID,
                group=ORDINARY_UID,
                extra_groups=[],
                timeout=20,
                capture_output=True,
                check=False,
                cwd="/",
            )
        except OSError:
            continue
        if ended.returncode == 0:
            return program
    return None


def _python(uid: int | None) -> str:
    program = sys.executable if uid is None else python_for_all()
    assert program is not None
    return program


def code_for_all(place: Path) -> Path:
    """What the cases import, where everybody can read it."""
    code = place / "code"
    ignored = shutil.ignore_patterns("__pycache__", "console")
    shutil.copytree(ROOT / "beray", code / "beray", ignore=ignored)
    (code / "tests" / "support").mkdir(parents=True)
    for name in (
        "__init__.py",
        *(
            f"support/{file}.py"
            for file in ("__init__", "waiting", "container_image", "sandbox_cases", "sandbox_in_unit")
        ),
    ):
        shutil.copy(ROOT / "tests" / name, code / "tests" / name)
    for path in (code, *code.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return code
