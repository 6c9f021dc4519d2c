"""What is loaded when: packages of others, and parts of ours, by the point that a program has got to.

What is missing here loads at first use: the model library at the first task, an SMTP client at the first mail sent,
Alembic for an older database. Who adds a package to a stage makes every start pay for it.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.command_line import CommandLine
from tests.support.fake_server import TOKEN, FakeServer
from tests.support.server import ServerProcess
from tests.support.told_imports import loaded


def _packages(names: str) -> frozenset[str]:
    return frozenset(names.split())


CLIENT: Final = _packages("beray certifi charset_normalizer idna orjson requests urllib3")
ASYNC_CLIENT: Final = _packages(
    "aiohappyeyeballs aiohttp aiosignal attr beray frozenlist idna multidict orjson propcache typing_extensions yarl"
)
TERMINAL: Final = _packages("beray click rich rich_click")
HEALTH: Final = TERMINAL | _packages(
    "annotated_doc annotated_types anyio argon2 deprecated email_validator fastapi httptools idna limits opentelemetry"
    " orjson packaging pydantic pydantic_core python_multipart sniffio sqlalchemy starlette typing_extensions"
    " typing_inspection uvicorn uvloop watchfiles wrapt"
)
READY: Final = HEALTH | _packages("croniter dateutil dbos greenlet psycopg psycopg_binary yaml")

NOT_BEFORE_A_TASK: Final = {"beray.server.agent.turn", "beray.server.agent.models.building"}
NOT_BEFORE_HEALTH: Final = NOT_BEFORE_A_TASK | {"beray.server.sandbox.choose", "sqlalchemy.orm", "alembic"}


NOBODYS: Final = {"__main__", "__mp_main__", "_virtualenv", "_distutils_hack", "sitecustomize", "tests"}
HELPERS: Final = {"cython_runtime", "_argon2_cffi_bindings", "_cffi_backend"}  # of the packages beside them
NUMBERED: Final = ("_cython_", "_sysconfigdata_")  # and such whose names go on with a version


def others(modules: set[str]) -> set[str]:
    """Packages that are not Python's; of compiled ones, whose helpers have names of their own, the package alone."""
    top = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names - NOBODYS - HELPERS
    return {name for name in top if not name.startswith(NUMBERED)}


def loaded_by(program: str, environment: dict[str, str] | None = None) -> set[str]:
    """What a program has loaded at its end."""
    told = f"{program}\nimport sys\nprint('loaded', *sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", told]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    return set(done.stderr.splitlines()[-1].split()[1:])


def told_by_server(data_dir: Path) -> str:
    """What a server tells of one start, in which it never runs a task."""
    server = ServerProcess(data_dir)
    server.program = (sys.executable, "-m", "tests.support.told_imports")
    before = len(server.log_text())
    try:
        server.start()
    finally:
        server.stop()
    return server.log_text()[before:]


@pytest.fixture(scope="module")
def logs(module_dir: Path) -> dict[str, str]:
    """Of the first start, which makes the database, and of the next one, which finds it."""
    return {database: told_by_server(module_dir / "data") for database in ("new", "old")}


@pytest.mark.parametrize(
    ("program", "may"),
    [
        ("import beray", frozenset({"beray"})),
        ("from beray import BeRayClient", CLIENT),
        ("from beray import AsyncBeRayClient", ASYNC_CLIENT),
        ("import beray.webhooks", frozenset({"beray"})),
        ("import beray.tools", frozenset({"beray"})),
    ],
)
def test_sdk_loads_what_it_needs(program: str, may: frozenset[str]) -> None:
    modules = loaded_by(program)

    assert others(modules) <= may
    assert not modules & {"beray.server", "beray.cli"}


@pytest.mark.parametrize(("command", "may"), [("--help", TERMINAL), ("ps", TERMINAL | CLIENT)])
def test_command_line_loads_no_server(tmp_path: Path, command: str, may: frozenset[str]) -> None:
    fake = FakeServer()
    beray = CommandLine(tmp_path, {"BERAY_BASE_URL": fake.base_url, "BERAY_TOKEN": TOKEN})
    program = f"import sys; sys.argv = ['beray', {command!r}]\nfrom beray.cli.main import main; assert main() == 0"

    modules = loaded_by(program, beray.environment())
    fake.close()

    assert others(modules) <= may
    assert not modules & {"beray.server", "asyncio"}


@pytest.mark.parametrize("database", ["new", "old"])
@pytest.mark.parametrize(
    ("stage", "may", "not_yet"),
    [
        ("health answers", HEALTH, NOT_BEFORE_HEALTH),
        ("ready", READY, NOT_BEFORE_A_TASK),
    ],
)
def test_server_loads_only_what_it_needs_to_get_so_far(
    logs: dict[str, str], database: str, stage: str, may: frozenset[str], not_yet: set[str]
) -> None:
    """Neither makes a schema by Alembic, nor does one at its newest revision need it."""
    modules = loaded(logs[database], stage)

    assert others(modules) <= may
    assert not modules & not_yet
