"""One command over several ids."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from beray.cli.connection import App
from beray.cli.exits import Exit
from beray.cli.failures import explain, show
from beray.cli.terminal import one_line

SAME_FOR_ALL: Final = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


def for_each(app: App, ids: tuple[int, ...], act: Callable[[int], str]) -> int:
    """Do it to every id, also where it failed for one; the first failure is the exit status."""
    from beray.exceptions import APIError

    exit = Exit.OK
    for one in ids:
        try:
            app.terminal.result(f"{one}  {one_line(act(one))}")
        except APIError as error:
            if error.status_code in SAME_FOR_ALL:
                raise
            explained = explain(error)
            show(app.terminal, explained)
            exit = exit or explained.exit
    return exit
