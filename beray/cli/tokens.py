"""`tokens ls|new|rm`: the account's API tokens."""

from typing import TYPE_CHECKING

import rich_click as click

from beray.cli import formats
from beray.cli.connection import App
from beray.cli.each import for_each
from beray.cli.language import say
from beray.cli.options import Duration, common, pass_app
from beray.cli.table import in_columns
from beray.cli.terminal import one_line

if TYPE_CHECKING:
    from beray.protocol.types import ApiToken

COLUMNS = ("id", "created", "expires", "used", "name")


@click.group(help=say("help.tokens"))
def tokens() -> None:
    pass


@tokens.command(help=say("help.tokens.ls"))
@click.option("--json", "is_json", is_flag=True, help=say("help.json"))
@common
@pass_app
def ls(app: App, *, is_json: bool) -> None:
    with app.connect("server") as client:
        made = client.list_tokens()
    if is_json:
        app.terminal.result(formats.json_page(made))
    elif made:
        app.terminal.result("\n".join(in_columns([[say(f"tokens.{name}") for name in COLUMNS], *map(_row, made)])))
    else:
        app.terminal.progress(say("tokens.none"))


@tokens.command(help=say("help.tokens.new"))
@click.argument("name", metavar="NAME")
@click.option("--expires", metavar="TIME", type=Duration(), help=say("help.tokens.expires"))
@click.option("--json", "is_json", is_flag=True, help=say("help.json"))
@common
@pass_app
def new(app: App, *, name: str, expires: float | None, is_json: bool) -> None:
    server = app.logged_in("server")
    with app.client_of(server) as client:
        made = client.create_token(name, expires_in=None if expires is None else int(expires))
    app.terminal.result(formats.json_page(made) if is_json else one_line(made["token"]))
    app.note(say("tokens.once", url=server.base_url))


@tokens.command(help=say("help.tokens.rm"))
@click.argument("token_ids", metavar="ID...", type=int, nargs=-1, required=True)
@common
@pass_app
def rm(app: App, *, token_ids: tuple[int, ...]) -> int:
    with app.connect("server") as client:
        return for_each(app, token_ids, lambda token_id: client.delete_token(token_id)["message"])


def _row(made: "ApiToken") -> list[str]:
    ends = made["expires_at"] or say("tokens.never")
    return [str(made["id"]), *map(one_line, (made["created_at"], ends, made["last_used_at"] or "-", made["name"]))]
