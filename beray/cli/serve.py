"""`serve` and `worker`: the server in this process. Only here is the server imported."""

import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import rich_click as click

from beray.cli.connection import App
from beray.cli.embedded import EmbeddedServer
from beray.cli.exits import CliError, Exit
from beray.cli.language import say
from beray.cli.loopback import LOOPBACK_HOSTS
from beray.cli.options import common, pass_app
from beray.cli.program import program_name

COMMAND_OF: Final = {"api": "serve --no-worker", "worker": "worker"}
"""Which command gives a process its role."""

Data = click.option(
    "--data", "data_dir", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help=say("help.serve.data")
)
Concurrency = click.option("--concurrency", type=click.IntRange(1, 1000), metavar="N", help=say("help.concurrency"))


@click.command(help=say("help.serve"))
@click.option("--host", metavar="ADDRESS", help=say("help.serve.host"))
@click.option("--port", type=click.IntRange(0, 65535), help=say("help.serve.port"))
@Data
@click.option("--no-worker", "is_api_only", is_flag=True, help=say("help.serve.no_worker"))
@Concurrency
@common
@pass_app
def serve(app: App, /, *, data_dir: Path | None, is_api_only: bool, concurrency: int | None, **options: Any) -> int:
    role = "api" if is_api_only else None
    host = options["host"]
    return _run(
        app, data_dir, role=role, max_running_tasks=concurrency, local_user=local_user(app.environ, host), **options
    )


@click.command(help=say("help.worker"))
@Concurrency
@click.option("--host", metavar="ADDRESS", help=say("help.worker.host"))
@click.option("--port", type=click.IntRange(0, 65535), default=0, help=say("help.worker.port"))
@Data
@common
@pass_app
def worker(app: App, /, *, data_dir: Path | None, concurrency: int | None, **options: Any) -> int:
    return _run(app, data_dir, role="worker", max_running_tasks=concurrency, local_user=False, **options)


STOPS: Final = {signal.SIGINT, signal.SIGTERM}


def _run(app: App, data_dir: Path | None, *, role: str | None, **overrides: Any) -> int:
    with _stops_held():
        return _serve(app, data_dir, role=role, **overrides)


@contextmanager
def _stops_held() -> Iterator[None]:
    """Let SIGINT and SIGTERM wait until the server takes them (`serve.py` does within a second), or is not to be had.

    Raised in the middle of an import, what they raise can come out as another error, or be lost.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(app: App, data_dir: Path | None, *, role: str | None, **overrides: Any) -> int:
    from beray.server.heap import begin_start

    begin_start()
    try:
        from beray.server.serve import StartError, run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("beray"):
            raise
        what = say("extra.missing", package=error.name)
        raise CliError(what, "pip install 'beray[server]'", Exit.ERROR) from error
    from beray.server.settings import SettingError, Settings

    try:
        folder = None if data_dir is None else data_dir.expanduser().absolute()
        settings = Settings.load(data_dir=folder, role=role, **overrides)
        if role is not None and settings.database_url is None:
            raise CliError(
                say("serve.no_database", command=f"{program_name()} {COMMAND_OF[role]}"),
                say("serve.no_database.remedy"),
                Exit.USAGE,
            )
        places, per_user = settings.max_running_tasks, settings.max_running_tasks_per_user
        if settings.role != "api" and places <= per_user:
            _announce(say("serve.crowded", places=places, per_user=per_user))
        if settings.role != "worker":
            EmbeddedServer(settings.data_dir, app.environ, app.terminal.status).make_way(note=app.note)
        run(settings, announce=_announce)
    except SettingError as error:
        raise CliError(str(error), say("serve.setting.remedy"), Exit.USAGE) from error
    except StartError as error:
        what, _, remedy = str(error).partition(". ")
        raise CliError(what, remedy, Exit.ERROR) from error
    return Exit.OK


def local_user(environ: Mapping[str, str], host: str | None) -> bool | None:
    """Make a local user on a loopback address, so that `beray run` finds and uses this server; None: as it is set.

    Its token lies in the data folder, readable for its owner only, who could read the whole database anyway.
    """
    if "BERAY_LOCAL_USER" in environ:
        return None
    return True if (host or environ.get("BERAY_HOST") or LOOPBACK_HOSTS[0]) in LOOPBACK_HOSTS else None


def _announce(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
