"""`register`, `login`, `logout`, `whoami`, `reset-password`."""

import sys
from typing import TYPE_CHECKING

import rich_click as click

from beray.cli.connection import App, Server
from beray.cli.exits import CliError, Exit
from beray.cli.language import say
from beray.cli.options import common, pass_app
from beray.cli.terminal import one_line
from beray.credentials import LOCAL, Login, read_credentials, write_credentials

if TYPE_CHECKING:
    pass

PASSWORD_LEAST = 8

email_option = click.option("--email", metavar="ADDRESS", help=say("help.account.email"))
password_option = click.option("--password-stdin", is_flag=True, help=say("help.account.password_stdin"))


@click.command(help=say("help.register"))
@email_option
@click.option("--code", metavar="CODE", help=say("help.register.code"))
@password_option
@common
@pass_app
def register(app: App, *, email: str | None, code: str | None, password_stdin: bool) -> None:
    server = app.find_server("server")
    password = _password_from_stdin() if password_stdin else None
    with app.client_of(Server(server.base_url, None, server.name, server.data_dir)) as client:
        address = email or _prompt(say("account.email"))
        if code is None:
            app.terminal.progress(one_line(client.request_verification_code(address)["message"]))
            _say_where_the_code_is(app, server)
            code = _prompt(say("account.code"))
        session = client.register(address, code.strip(), password or _new_password(app))
        _keep(app, server, session["access_token"], session["user"]["email"])
    app.terminal.progress(_done(app, "account.registered", session["user"]["email"], server))


@click.command(help=say("help.login"))
@email_option
@password_option
@click.option("--with-token", is_flag=True, help=say("help.login.with_token"))
@common
@pass_app
def login(app: App, *, email: str | None, password_stdin: bool, with_token: bool) -> None:
    server = app.find_server("server")
    if with_token:
        token = _read_secret(say("account.token"))
        with app.client_of(Server(server.base_url, token, server.name)) as client:
            address = client.get_current_user()["email"]
    else:
        address = email or _prompt(say("account.email"))
        password = _password_from_stdin() if password_stdin else _prompt(say("account.password"), is_secret=True)
        with app.client_of(Server(server.base_url, None, server.name)) as client:
            session = client.login(address, password)
            token, address = session["access_token"], session["user"]["email"]
    _keep(app, server, token, address)
    app.terminal.progress(_done(app, "account.logged_in", address, server))


@click.command(help=say("help.logout"))
@common
@pass_app
def logout(app: App) -> None:
    from beray.exceptions import AuthenticationError, NetworkError

    credentials = read_credentials(app.credentials_path)
    name = app.named_server() or credentials.server
    if name is None or name not in credentials.logins:
        app.terminal.progress(say("account.not_logged_in"))
        return
    server = app.find_server("server")
    try:
        with app.client_of(Server(server.base_url, credentials.logins[name].token, name)) as client:
            client.logout()
    except AuthenticationError:
        pass  # the token was dead already, which is what was wanted
    except NetworkError:
        app.terminal.progress(app.terminal.style("warn", say("account.not_revoked", server=_shown(server))))
    write_credentials(app.credentials_path, credentials.removed(name))
    app.terminal.progress(f"{app.terminal.style('good', '✓')} {say('account.logged_out', server=_shown(server))}")


@click.command(help=say("help.whoami"))
@common
@pass_app
def whoami(app: App) -> None:
    server = app.logged_in("server")
    with app.client_of(server) as client:
        user = client.get_current_user()
    app.terminal.result(one_line(user["email"]))
    app.note(_shown(server))


@click.command("reset-password", help=say("help.reset_password"))
@email_option
@click.option("--code", metavar="CODE", help=say("help.register.code"))
@password_option
@common
@pass_app
def reset_password(app: App, *, email: str | None, code: str | None, password_stdin: bool) -> None:
    server = app.find_server("server")
    password = _password_from_stdin() if password_stdin else None
    with app.client_of(Server(server.base_url, None, server.name, server.data_dir)) as client:
        address = email or _prompt(say("account.email"))
        if code is None:
            app.terminal.progress(one_line(client.request_password_reset(address)["message"]))
            _say_where_the_code_is(app, server)
            code = _prompt(say("account.code"))
        password = password or _new_password(app)
        client.reset_password(address, code.strip(), password)
        session = client.login(address, password)
        _keep(app, server, session["access_token"], session["user"]["email"])
    app.terminal.progress(_done(app, "account.reset", session["user"]["email"], server))


def _keep(app: App, server: Server, token: str, email: str) -> None:
    credentials = read_credentials(app.credentials_path)
    write_credentials(app.credentials_path, credentials.added(server.name, Login(token, email)))


def _done(app: App, key: str, email: str, server: Server) -> str:
    sentence = say(key, email=one_line(email), server=_shown(server), path=app.credentials_path)
    return f"{app.terminal.style('good', '✓')} {sentence}"


def _shown(server: Server) -> str:
    return say("server.embedded", url=server.base_url) if server.name == LOCAL else server.base_url


def _say_where_the_code_is(app: App, server: Server) -> None:
    """The embedded server has no mail server unless one is set: its mails lie in the outbox."""
    if server.data_dir is not None and not app.environ.get("BERAY_SMTP_URL"):
        app.note(say("account.outbox", path=server.data_dir / "outbox"))


def _prompt(label: str, *, is_secret: bool = False) -> str:
    try:
        value: str = click.prompt(label, hide_input=is_secret, err=True)
    except click.Abort as abort:
        if isinstance(abort.__context__, EOFError):  # not Ctrl-C: there was nobody to answer
            raise click.UsageError(say("usage.no_answer", label=label)) from None
        raise
    return value if is_secret else value.strip()


def _new_password(app: App) -> str:
    if not sys.stdin.isatty():
        raise click.UsageError(say("usage.password_needed"))
    while True:
        password = _prompt(say("account.new_password", least=PASSWORD_LEAST), is_secret=True)
        if len(password) < PASSWORD_LEAST:
            app.terminal.progress(say("account.password_short", least=PASSWORD_LEAST))
        elif _prompt(say("account.repeat"), is_secret=True) != password:
            app.terminal.progress(say("account.password_differs"))
        else:
            return password


def _password_from_stdin() -> str:
    return _first_line(sys.stdin.readline())


def _read_secret(label: str) -> str:
    return _prompt(label, is_secret=True) if sys.stdin.isatty() else _first_line(sys.stdin.readline()).strip()


def _first_line(line: str) -> str:
    value = line.rstrip("\r\n")
    if not value:
        raise CliError(say("account.stdin_empty"), say("account.stdin_empty.remedy"), Exit.USAGE)
    return value
