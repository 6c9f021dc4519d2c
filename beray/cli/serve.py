"""`serve`: the server in this process. Only here is the server imported."""

import sys
from collections.abc import Mapping
from pathlib import Path

import rich_click as click

from beray.cli.connection import App
from beray.cli.embedded import EmbeddedServer
from beray.cli.exits import CliError, Exit, Terminated
from beray.cli.language import say
from beray.cli.loopback import LOOPBACK_HOSTS
from beray.cli.options import common, pass_app


@click.command(help=say("help.serve"))
@click.option("--host", metavar="ADDRESS", help=say("help.serve.host"))
@click.option("--port", type=click.IntRange(0, 65535), help=say("help.serve.port"))
@click.option(
    "--data", "data_dir", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help=say("help.serve.data")
)
@common
@pass_app
def serve(app: App, *, host: str | None, port: int | None, data_dir: Path | None) -> int:
    try:
        from beray.server.serve import StartError, run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("beray"):
            raise
        what = say("extra.missing", package=error.name)
        raise CliError(what, "pip install 'beray[server]'", Exit.ERROR) from error
    from beray.server.settings import SettingError, Settings

    try:
        settings = Settings.load(
            host=host,
            port=port,
            data_dir=None if data_dir is None else data_dir.expanduser().absolute(),
            local_user=local_user(app.environ, host),
        )
        EmbeddedServer(settings.data_dir, app.environ, app.terminal.status).make_way(note=app.note)
        run(settings, announce=_announce)
    except (KeyboardInterrupt, Terminated):  # a signal before the server had taken them over: nothing had begun
        return Exit.OK
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
