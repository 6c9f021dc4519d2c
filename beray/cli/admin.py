"""`admin`: for the operator, on the server's machine, with the server's settings. Only here the database is opened."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from beray.cli import formats
from beray.cli.connection import App
from beray.cli.exits import CliError, Exit
from beray.cli.language import say
from beray.cli.options import common, pass_app
from beray.cli.table import in_columns
from beray.cli.terminal import one_line

if TYPE_CHECKING:
    from beray.server.settings import Settings


class _Since(click.ParamType[int]):
    """Milliseconds since the epoch, written as a time (UTC unless it says otherwise) or as how long ago."""

    name = "since"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The time in `value`."""
        now = datetime.now(UTC)
        try:
            return _milliseconds(now - timedelta(seconds=formats.parse_seconds(value)))
        except (ValueError, OverflowError):
            at = formats.parse_time(value)
        if at is None:
            self.fail(say("usage.bad_time", value=one_line(value)), param, ctx)
        return _milliseconds(at if at.tzinfo else at.replace(tzinfo=UTC))


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


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


@admin.command(help=say("help.admin.audit"))
@click.option("--user", metavar="ID|MAIL", help=say("help.admin.audit.user"))
@click.option("--action", metavar="NAME", help=say("help.admin.audit.action"))
@click.option("--since", type=_Since(), metavar="WHEN", help=say("help.admin.audit.since"))
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, metavar="N", help=say("help.admin.audit.limit")
)
@click.option("--json", "is_json", is_flag=True, help=say("help.admin.audit.json"))
@click.option(
    "--data", "data_dir", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help=say("help.serve.data")
)
@common
@pass_app
def audit(
    app: App,
    *,
    user: str | None,
    action: str | None,
    since: int | None,
    limit: int,
    is_json: bool,
    data_dir: Path | None,
) -> None:
    settings = _load(data_dir)
    with _server_parts():
        from beray.server.audit import ACTIONS
        from beray.server.audit_log import read_audit
        from beray.server.db.audit import AuditFilter
    if action is not None and action not in ACTIONS:
        raise click.UsageError(say("usage.bad_action", action=one_line(action), known=", ".join(ACTIONS)))
    with _told():
        entries = read_audit(settings, AuditFilter(user=user, action=action, since=since, limit=limit))
    if is_json:
        for entry in entries:
            app.terminal.result(formats.json_line(entry))
    elif entries:
        app.terminal.result("\n".join(_audit_table(entries)))
    else:
        app.terminal.progress(say("audit.none"))


@admin.command("prune-audit", help=say("help.admin.prune_audit"))
@click.option(
    "--days", type=click.IntRange(1, 36_500), required=True, metavar="N", help=say("help.admin.prune_audit.days")
)
@click.option("-y", "--yes", is_flag=True, help=say("help.admin.purge.yes"))
@click.option(
    "--data", "data_dir", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help=say("help.serve.data")
)
@common
@pass_app
def prune_audit(app: App, *, days: int, yes: bool, data_dir: Path | None) -> int:
    settings = _load(data_dir)
    with _server_parts():
        from beray.server import audit_log
    if not yes and not sys.stdin.isatty():
        raise click.UsageError(say("usage.prune_needs_yes"))
    with _told():
        found = audit_log.count_old(settings, days=days)
    if found and not yes and not click.confirm(say("prune.confirm", count=found, days=days), default=False, err=True):
        return Exit.ERROR
    with _told():
        pruned = audit_log.prune_audit(settings, days=days)
    app.terminal.progress(say("prune.done", count=pruned, days=days))
    return Exit.OK


@admin.command(help=say("help.admin.users"))
@click.option("--promote", metavar="MAIL", help=say("help.admin.users.promote"))
@click.option("--demote", metavar="MAIL", help=say("help.admin.users.demote"))
@click.option("--admins", "is_only_admins", is_flag=True, help=say("help.admin.users.admins"))
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, metavar="N", help=say("help.admin.users.limit")
)
@click.option("--json", "is_json", is_flag=True, help=say("help.admin.users.json"))
@click.option(
    "--data", "data_dir", metavar="DIR", type=click.Path(file_okay=False, path_type=Path), help=say("help.serve.data")
)
@common
@pass_app
def users(
    app: App,
    *,
    promote: str | None,
    demote: str | None,
    is_only_admins: bool,
    limit: int,
    is_json: bool,
    data_dir: Path | None,
) -> None:
    if promote is not None and demote is not None:
        raise click.UsageError(say("usage.promote_or_demote"))
    settings = _load(data_dir)
    with _server_parts():
        from beray.server import admin_users
        from beray.server.db.admin import UserFilter
    email = promote if promote is not None else demote
    if email is not None:
        with _told():
            admin_users.set_admin(settings, email, is_admin=promote is not None)
        done = "users.promoted" if promote is not None else "users.demoted"
        app.terminal.progress(say(done, email=one_line(email)))
        return
    with _told():
        found = admin_users.list_users(settings, UserFilter(limit, is_only_admins=is_only_admins))
    if is_json:
        for user in found:
            app.terminal.result(formats.json_line(user))
    elif found:
        app.terminal.result("\n".join(_user_table(found)))
    else:
        app.terminal.progress(say("users.none"))


def _user_table(users: Sequence[Mapping[str, Any]]) -> list[str]:
    names = ("id", "email", "role", "tasks", "active", "stored", "last_login")
    rows = [[say(f"users.{name}") for name in names]]
    for user in users:
        role = say("users.is_admin") if user["is_admin"] else "-"
        counts = [str(user["tasks"]), str(user["active_tasks"]), formats.size(user["stored_bytes"])]
        rows.append([str(user["id"]), one_line(user["email"]), role, *counts, user["last_login_at"] or "-"])
    return in_columns(rows)


def _audit_table(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    names = ("at", "action", "who", "address", "task_id", "resource")
    rows = [[say(f"audit.{name}") for name in names]]
    rows += [["-" if entry[name] is None else one_line(str(entry[name])) for name in names] for entry in entries]
    return in_columns(rows)


@contextmanager
def _server_parts() -> Iterator[None]:
    """What the server needs may not be installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("beray"):
            raise
        raise CliError(say("extra.missing", package=error.name), "pip install 'beray[server]'", Exit.ERROR) from error


@contextmanager
def _told() -> Iterator[None]:
    """Say what is wrong with settings, database or files, and what to do."""
    from beray.server.beside import CannotWork
    from beray.server.settings import SettingError

    try:
        yield
    except SettingError as error:
        raise CliError(str(error), say("serve.setting.remedy"), Exit.USAGE) from error
    except CannotWork as error:
        what, _, remedy = str(error).partition(". ")
        raise CliError(what, remedy, Exit.ERROR) from error


def _load(data_dir: Path | None) -> "Settings":
    with _server_parts(), _told():
        from beray.server.settings import Settings

        return Settings.load(data_dir=None if data_dir is None else data_dir.expanduser().absolute())


def _purge(settings: "Settings", *, days: int, is_dry: bool) -> int:
    """How many tasks there were (`is_dry`), or were deleted."""
    with _server_parts():
        from beray.server.purge import purge
    with _told():
        purged = purge(settings, days=days, is_dry=is_dry)
    return purged.found if is_dry else purged.deleted
