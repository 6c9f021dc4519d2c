"""Which python commands get."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from beray.server.sandbox import guarded
from beray.server.sandbox.environment import Layout
from beray.server.sandbox.interpreter import (
    CHECK,
    Interpreter,
    candidates,
    copy_interpreter,
    write_commands,
)
from tests.support.sandbox_cases import open_box

BASE = Path(sys.base_prefix)
needs_an_own_python = pytest.mark.skipif(Path("/usr") == BASE, reason="the tests run by the system's own python")


@needs_an_own_python
def test_a_copy_of_the_base_interpreter_runs_without_the_original(service_dir: Path) -> None:
    """As root, the original may lie below /root, out of every other user's reach."""
    root = service_dir / "copied"
    root.mkdir()
    program = copy_interpreter(Path(sys._base_executable).resolve(), root)
    assert program is not None
    again = copy_interpreter(Path(sys._base_executable).resolve(), root)

    ended = subprocess.run(
        [program, "-I", "-S", "-c", f"{CHECK}; print(sys.prefix)"],
        env={"LD_LIBRARY_PATH": str(program.parents[1] / "lib")},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert again == program
    assert Path(ended.stdout.split()[-1]) == program.parents[1]
    assert not list(root.rglob("site-packages"))
    assert [path.name for path in root.iterdir()] == [program.parents[1].name]


def test_the_servers_environment_is_no_candidate(service_dir: Path) -> None:
    root = service_dir / "candidates"
    root.mkdir()

    found = list(candidates(Layout(root), None))

    assert found
    if sys.prefix != sys.base_prefix:
        for candidate in found:
            assert not any(Path(sys.prefix).is_relative_to(path) for path in candidate.paths)
            assert not candidate.path.startswith(f"{sys.prefix}/")


def test_an_interpreter_whose_folder_holds_somebodys_home_is_no_candidate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    program = tmp_path / ".local" / "bin" / "python3"
    program.parent.mkdir(parents=True)
    program.touch(mode=0o755)

    assert list(candidates(Layout(tmp_path), str(program))) == []


def test_commands_run_the_interpreter_whatever_its_path_holds(tmp_path: Path) -> None:
    odd = tmp_path / "it's $HOME"
    odd.mkdir()
    (odd / "python").symlink_to(sys.executable)
    layout = Layout(tmp_path)
    layout.bin.mkdir()

    write_commands(layout, Interpreter(str(odd / "python"), library_path=str(odd)))

    for name in ("python", "python3"):
        script = "import os, sys; print(os.environ['LD_LIBRARY_PATH'], *sys.argv[1:])"
        ended = subprocess.run(
            [layout.bin / name, "-c", script, "a b"], env={}, capture_output=True, text=True, timeout=60, check=True
        )
        assert ended.stdout.strip() == f"{odd} a b"


@needs_an_own_python
@pytest.mark.needs("landlock", "root")
async def test_commands_run_the_copy_where_nothing_else_can_be_executed(
    service_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A root server whose interpreter lies below /root, on a machine without another."""

    def only_copies(layout: Layout, chosen: str | None) -> Iterator[Interpreter]:
        return (found for found in candidates(layout, chosen) if found.path.startswith(str(layout.root)))

    monkeypatch.setattr(guarded, "candidates", only_copies)
    async with open_box("landlock", service_dir / "copy") as box:
        ended = await box.run("python", "-c", "import sys, ssl; print(sys.prefix)")

    assert ended.stdout.strip().startswith(str(service_dir / "copy" / "sandbox" / "python-")), ended.stderr
