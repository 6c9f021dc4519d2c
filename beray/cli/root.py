"""The command tree. A command's module is imported when the command is named, or listed by `--help`; none imports
more than click before it runs.
"""

from importlib import import_module
from typing import Any, Final

import rich_click as click

from beray import __version__
from beray.cli.language import say
from beray.cli.options import common

COMMANDS: Final[dict[str, str]] = {
    "run": "tasks",
    "watch": "tasks",
    "send": "talk",
    "ps": "tasks",
    "show": "tasks",
    "stop": "tasks",
    "rm": "tasks",
    "files": "files",
    "serve": "serve",
    "worker": "serve",
    "admin": "admin",
    "register": "account",
    "login": "account",
    "logout": "account",
    "whoami": "account",
    "reset-password": "account",
    "tokens": "tokens",
    "doctor": "doctor",
}
"""Each command and the module that holds it, in the order of `--help`."""


class LazyGroup(click.RichGroup):
    """Finds a command in its module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the order of `COMMANDS`."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, its module imported."""
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: Any = getattr(import_module(f"beray.cli.{module}"), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command


@click.group(
    cls=LazyGroup,
    help=say("help"),
    epilog=say("help.epilog"),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.rich_config(
    {
        "commands_panel_title": say("help.commands"),
        "options_panel_title": say("help.options"),
        "arguments_panel_title": say("help.arguments"),
        "show_arguments": False,
        "style_epilog_text": "dim",
    }
)
@common
@click.version_option(__version__, "-V", "--version", message="beray %(version)s", help=say("help.version"))
def beray() -> None:
    pass
