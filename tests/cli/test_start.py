"""How the program starts: light, with its help, and with a word where packages are missing."""

import subprocess
import sys
from dataclasses import replace

import pytest

from beray import __version__
from beray.cli.root import COMMANDS
from tests.support.command_line import COMMAND, CommandLine
from tests.support.fake_server import FakeServer

HEAVY = ("requests", "fastapi", "sqlalchemy", "dbos", "uvicorn", "pydantic", "rich.live", "rich.markdown", "asyncio")


def test_version(beray: CommandLine) -> None:
    assert replace(beray, is_forked=False)("--version").out == f"beray {__version__}\n"


def test_help_lists_every_command_and_the_exit_statuses(beray: CommandLine) -> None:
    shown = beray("--help").out

    assert all(name in shown for name in COMMANDS)
    assert "124 time-out" in shown


@pytest.mark.parametrize("command", [*COMMANDS, "files ls", "files get", "files put", "files zip", "files cat"])
def test_every_command_has_help_in_both_languages(beray: CommandLine, command: str) -> None:
    english = beray(*command.split(), "--help")
    chinese = beray(*command.split(), "-h", LANG="zh_CN.UTF-8")

    assert (english.status, chinese.status) == (0, 0)
    assert english.out != chinese.out
    assert any("\u4e00" <= character <= "\u9fff" for character in chinese.out)


def test_no_command_imports_anything_heavy_before_it_runs() -> None:
    modules = [f"beray.cli.{module}" for module in sorted({*COMMANDS.values(), "root", "main"})]
    code = f"import sys\nfor name in {modules!r}: __import__(name)\nprint([m for m in {HEAVY!r} if m in sys.modules])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == "[]\n"


@pytest.mark.parametrize(("blocked", "command"), [("rich_click", "ps"), ("uvicorn", "serve")])
def test_missing_extra_says_how_to_install_it(home: object, beray: CommandLine, blocked: str, command: str) -> None:
    code = (
        f"import sys; sys.modules[{blocked!r}] = None; sys.argv = ['beray', {command!r}]\n"
        "from beray.cli.main import main; sys.exit(main())"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], env=beray.environment(), capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 1
    assert "pip install 'beray[server]'" in done.stderr
    assert blocked in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("worker",), ("serve", "--no-worker")])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_command_that_needs_postgres_says_so_by_its_own_name(
    beray: CommandLine, arguments: tuple[str, ...], language: str
) -> None:
    ended = beray(*arguments, BERAY_LANGUAGE=language)

    assert ended.status == 2
    assert f"`beray {' '.join(arguments)}`" in ended.err
    assert "PostgreSQL" in ended.err
    assert "BERAY_DATABASE_URL=postgresql://" in ended.err
    assert "BERAY_ROLE" not in ended.err


def test_role_that_was_set_is_named_where_it_needs_postgres(beray: CommandLine) -> None:
    ended = beray("serve", BERAY_ROLE="worker")

    assert ended.status == 2
    assert "BERAY_ROLE=worker" in ended.err


@pytest.mark.parametrize(
    ("concurrency", "arguments", "is_told"),
    [
        ("3", ("worker",), True),
        ("4", ("worker",), False),
        ("3", ("serve",), True),
        ("3", ("serve", "--no-worker"), False),  # runs none
    ],
)
def test_process_that_one_user_can_fill_says_so(
    beray: CommandLine, concurrency: str, arguments: tuple[str, ...], is_told: bool
) -> None:
    url = "postgresql://beray@127.0.0.1:1/beray"  # nobody is there, so the process ends
    settings = {"BERAY_DATABASE_URL": url, "BERAY_SECRET_KEY": "k" * 32, "BERAY_MODEL": "rules", "BERAY_PORT": "0"}

    ended = beray(*arguments, "--concurrency", concurrency, **settings)

    assert "127.0.0.1:1" in ended.err
    assert ("BERAY_MAX_RUNNING_TASKS_PER_USER (3)" in ended.err) == is_told


def test_program_is_the_script_of_the_package(beray: CommandLine, fake: FakeServer) -> None:
    assert COMMAND[-1] == "beray.cli.main"
    assert replace(beray, is_forked=False)("whoami").status == 0
