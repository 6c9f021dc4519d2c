"""`admin`: for the operator, on the server's machine, with the server's settings. Only here the database is opened."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from beray.cli.connection import App
from beray.cli.exits import CliError, Exit
from beray.cli.language import say
from beray.cli.options import common, pass_app

if TYPE_CHECKING:
    from beray.server.settings import Settings


@click.group(help=say("help.admin"))
def admin() -> None:
    """See the help."""


@admin.command(help=say("help.admin.purge"))
@click.option("--days", type=click.IntRange(0, 36_500), metavar="N", help=say("help.admin.purge.days"))
@click.option("--dry-run", "is_dry", is_flag=True, help=say("help.admin.purge.dry_run"))
@click.option("-y", "--yes", is_flag=True, help=say("help.admin.purge.yes"))
@click.option(
    "--data", "data_dir", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help=say("help.serve.data")
)
@common
@pass_app
def purge(app: App, *, days: int | None, is_dry: bool, yes: bool, data_dir: Path | None) -> int:
    settings = _load(data_dir)
    days = days if days is not None else settings.retention_days or None
    if days is None:
        raise click.UsageError(say("usage.purge_needs_days"))
    if not (yes or is_dry) and not sys.stdin.isatty():
        raise click.UsageError(say("usage.purge_needs_yes"))
    found = _purge(settings, days=days, is_dry=True)
    if is_dry:
        app.terminal.progress(say("purge.found", count=found, days=days))
        return Exit.OK
    if found and not yes and not click.confirm(say("purge.confirm", count=found, days=days), default=False, err=True):
        return Exit.ERROR
    deleted = _purge(settings, days=days, is_dry=False)  # also without any: it finishes deletions that were begun
    app.terminal.progress(say("purge.done" if found else "purge.found", count=deleted, days=days))
    return Exit.OK


def _load(data_dir: Path | None) -> "Settings":
    try:
        from beray.server.settings import SettingError, Settings
    except ModuleNotFoundError as error:
        raise CliError(say("extra.missing", package=error.name), "pip install 'beray[server]'", Exit.ERROR) from error
    try:
        return Settings.load(data_dir=None if data_dir is None else data_dir.expanduser().absolute())
    except SettingError as error:
        raise CliError(str(error), say("serve.setting.remedy"), Exit.USAGE) from error


def _purge(settings: "Settings", *, days: int, is_dry: bool) -> int:
    """How many tasks there were (`is_dry`), or were deleted."""
    try:
        from beray.server.purge import PurgeError, purge
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("beray"):
            raise
        raise CliError(say("extra.missing", package=error.name), "pip install 'beray[server]'", Exit.ERROR) from error
    from beray.server.settings import SettingError

    try:
        purged = purge(settings, days=days, is_dry=is_dry)
    except SettingError as error:
        raise CliError(str(error), say("serve.setting.remedy"), Exit.USAGE) from error
    except PurgeError as error:
        what, _, remedy = str(error).partition(". ")
        raise CliError(what, remedy, Exit.ERROR) from error
    return purged.found if is_dry else purged.deleted
