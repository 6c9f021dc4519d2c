"""The entry point of `beray`: runs a command and turns whatever happens into an exit status."""

import os
import sys
import traceback
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from beray.cli.connection import App
    from beray.cli.exits import CliError

_PACKAGES_OF_THE_EXTRA = frozenset({"click", "rich", "rich_click"})


def main() -> int:
    """Run the command line; returns the exit status."""
    try:
        from beray.cli import root as commands
    except ModuleNotFoundError as error:
        if error.name not in _PACKAGES_OF_THE_EXTRA:
            raise
        from beray.cli.language import say

        print(f"✗ {say('extra.missing', package=error.name)}\n  pip install 'beray[server]'", file=sys.stderr)
        return 1
    from beray.cli.connection import App
    from beray.cli.terminal import Terminal

    with Terminal.standard() as terminal:
        app = App(terminal)
        try:
            return int(_invoke(commands.beray, app))
        except BrokenPipeError:  # the reader of our output has gone: `beray ps | head -1`
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in (sys.stdout, sys.stderr):  # what is still buffered would fail once more at the very end
                os.dup2(nowhere, stream.fileno())
            return 1


def _invoke(group: object, app: "App") -> int:
    import rich_click as click

    from beray.cli.exits import CliError, Exit, Terminated
    from beray.cli.follow import termination_as_exception
    from beray.cli.language import say

    assert isinstance(group, click.Group)
    try:
        with termination_as_exception():
            result = group.main(prog_name="beray", obj=app, standalone_mode=False)
        return result if isinstance(result, int) else Exit.OK  # `--help` and the like give a number too
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "beray"
        return _show(app, CliError(error.format_message(), say("usage.see_help", command=command), Exit.USAGE))
    except click.ClickException as error:
        return _show(app, CliError(error.format_message(), "", Exit.ERROR))
    except (click.Abort, KeyboardInterrupt):
        app.terminal.status(None)
        app.terminal.progress()
        return Exit.INTERRUPTED
    except Terminated:
        return Exit.TERMINATED
    except BrokenPipeError:
        raise
    except Exception as error:  # the edge of the process: nothing may reach the user as a traceback
        return _failed(app, error)


def _failed(app: "App", error: Exception) -> int:
    from beray.cli.failures import explain

    explained = explain(error)
    app.terminal.status(None)
    if app.is_debug:
        traceback.print_exception(error, file=app.terminal.err)
        if request_id := getattr(error, "request_id", None):
            app.terminal.progress(f"request id: {request_id}")
    return _show(app, explained)


def _show(app: "App", error: "CliError") -> int:
    from beray.cli.failures import show

    app.terminal.status(None)
    app.terminal.end_stream()
    show(app.terminal, error)
    return error.exit


if __name__ == "__main__":
    sys.exit(main())
