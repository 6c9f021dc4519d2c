"""Parameter types and the options that all commands share."""

import math
from collections.abc import Callable
from typing import Any, Final, TypeVar

import rich_click as click

from beray.cli import formats
from beray.cli.connection import App
from beray.cli.language import say

Function = TypeVar("Function", bound=Callable[..., Any])

pass_app = click.make_pass_decorator(App)


class Duration(click.ParamType[float]):
    """Seconds, written `30`, `30s`, `5m` or `1h`."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The seconds in `value`."""
        if isinstance(value, int | float):
            return float(value)
        try:
            return formats.parse_seconds(value)
        except ValueError:
            self.fail(say("usage.bad_duration", value=value), param, ctx)


LIMITS: Final = ("requests", "tool_calls", "tokens", "wall_seconds", "cost_usd")
"""What a task may limit for itself."""


class Limit(click.ParamType[tuple[str, float]]):
    """One of a task's own limits, written `NAME=VALUE`; whole numbers but for money."""

    name = "limit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        """The limit's name, and its value."""
        name, _, written = str(value).partition("=")
        if name not in LIMITS:
            self.fail(say("usage.bad_limit_name", value=value, known=", ".join(LIMITS)), param, ctx)
        is_money = name == "cost_usd"
        try:
            number = float(written) if is_money else int(written)
        except ValueError:
            number = 0
        if not 0 < number < math.inf:
            key = "usage.bad_limit_money" if is_money else "usage.bad_limit_number"
            self.fail(say(key, value=value, name=name), param, ctx)
        return name, number


def common(function: Function) -> Function:
    """Add `--server` and `--debug`; they are kept in the `App`, so that they may stand before the command too."""
    for option in (
        click.option(
            "--server",
            metavar="URL",
            expose_value=False,
            callback=_remember_server,
            help=say("help.server"),
        ),
        click.option("--debug", is_flag=True, expose_value=False, callback=_remember_debug, help=say("help.debug")),
    ):
        function = option(function)
    return function


def _remember_server(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        _app(ctx).server_option = value


def _remember_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        _app(ctx).is_debug = True


def _app(ctx: click.Context) -> App:
    app = ctx.find_object(App)
    assert app is not None, "main() always gives one"
    return app
