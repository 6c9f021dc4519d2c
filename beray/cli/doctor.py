"""`doctor`: is everything there that a task needs, and if not, what to do."""

import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import rich_click as click

from beray import __version__
from beray.cli import formats
from beray.cli.connection import App, Server
from beray.cli.embedded import ready_state
from beray.cli.exits import Exit
from beray.cli.failures import explain
from beray.cli.language import language, say
from beray.cli.options import common, pass_app
from beray.cli.terminal import one_line

if TYPE_CHECKING:
    from beray.client import BeRayClient

DISK_LEAST_BYTES: Final = 1_000_000_000


@dataclass(frozen=True)
class Finding:
    """One line: a part, whether it is well, what was seen, and the remedy where it isn't."""

    name: str
    is_good: bool
    seen: str
    remedy: str = ""


@click.command(help=say("help.doctor"))
@common
@pass_app
def doctor(app: App) -> int:
    is_broken = False
    for finding in examine(app):
        is_broken |= not finding.is_good
        style, mark = ("good", "✓") if finding.is_good else ("bad", "✗")
        name = say(f"doctor.{finding.name}")
        app.terminal.result(f"{app.terminal.style(style, mark)} {name}  {one_line(finding.seen)}")
        if finding.remedy:
            app.terminal.result(f"    {one_line(finding.remedy)}")
    return Exit.ERROR if is_broken else Exit.OK


def examine(app: App) -> Iterator[Finding]:
    """Every check, in the order in which one rests on the other."""
    yield Finding("program", is_good=True, seen=f"beray {__version__} · Python {platform.python_version()} · {_uv()}")
    try:
        server = app.find_server("settings")
    except Exception as error:  # the finding is what is shown; the checks that need no server still follow
        explained = explain(error)
        seen = " · ".join([explained.what, *explained.details[-3:]])
        yield Finding("server", is_good=False, seen=seen, remedy=explained.remedy)
        yield _disk(app.data_dir())
        return
    yield from _server(app, server)
    if server.data_dir is not None:
        yield _disk(server.data_dir)


def _server(app: App, server: Server) -> Iterator[Finding]:
    with app.client_of(server) as client:
        ready = _try("server", client.get_ready)
        if isinstance(ready, Finding):
            yield ready
            return
        state = ready_state(ready)
        name = say("server.embedded", url=server.base_url) if server.data_dir else server.base_url
        seen = name if state.is_ready else " · ".join([name, *(state.hints or (say("doctor.starting"),))])
        yield Finding(
            "server", is_good=state.is_ready, seen=seen, remedy="" if state.is_ready else say("doctor.see_ready")
        )
        login = _login(server, _try("login", client.get_current_user))
        yield login
        info = _try("model", client.get_info)
        if isinstance(info, Finding):
            yield info
            return
        yield _model(info)
        if login.is_good and info.get("model_kind") == "model":
            yield from _model_call(app, client)
        yield from _sandbox(info.get("sandbox"))


def _try(name: str, ask: Callable[[], Any]) -> Any:
    """What `ask` answers, or the finding that it failed."""
    from beray.exceptions import BeRayException

    try:
        return ask()
    except BeRayException as error:
        explained = explain(error)
        return Finding(name, is_good=False, seen=explained.what, remedy=explained.remedy)


def _login(server: Server, user: Any) -> Finding:
    return user if isinstance(user, Finding) else Finding("login", is_good=True, seen=str(user["email"]))


def _model(info: Mapping[str, Any]) -> Finding:
    """Rules mode is no fault, but its notice says how to set a model."""
    notice = info.get("model_notice")
    text = notice.get(language()) if isinstance(notice, Mapping) else notice
    return Finding("model", is_good=True, seen=str(text or info.get("model") or say("usage.unknown")))


def _model_call(app: App, client: "BeRayClient") -> Iterator[Finding]:
    """Whether the model answers a real request; nothing where the server is too old to be asked."""
    from beray.exceptions import NotFoundError

    def ask() -> Any:
        try:
            return client.check_model()
        except NotFoundError:
            return None

    app.terminal.status(lambda: say("doctor.asking"))
    try:
        checked = _try("model_call", ask)
    finally:
        app.terminal.status(None)
    if isinstance(checked, Finding):
        yield checked
    elif checked is not None:
        yield _answer(checked)


def _answer(checked: Mapping[str, Any]) -> Finding:
    error = checked.get("error")
    if isinstance(error, Mapping):
        seen = f"{error.get('message')} ({error.get('code')})"
        return Finding("model_call", is_good=False, seen=seen, remedy=str(error.get("hint") or ""))
    latency = checked.get("latency_ms")
    duration = formats.seconds(latency / 1000) if isinstance(latency, int) else say("usage.unknown")
    seen = say("doctor.answered", text=one_line(str(checked.get("answered") or "")), duration=duration)
    return Finding("model_call", is_good=True, seen=seen)


def _sandbox(sandbox: Any) -> Iterator[Finding]:
    if not isinstance(sandbox, Mapping):
        return
    rows = [row for row in sandbox.get("confinements") or [] if isinstance(row, Mapping)]
    closed, open_ = (
        [
            f"{row['name']} ({row['note']})" if row.get("note") else str(row["name"])
            for row in rows
            if bool(row.get("is_confined")) is is_confined
        ]
        for is_confined in (True, False)
    )
    seen = f"{sandbox.get('backend')} · {say('doctor.confined', names=', '.join(closed) or '-')}"
    if open_:
        seen += f" · {say('doctor.not_confined', names=', '.join(open_))}"
    seen = " · ".join((seen, *map(str, sandbox.get("notes") or [])))
    is_good = sandbox.get("backend") not in {None, "none"}
    yield Finding("sandbox", is_good=is_good, seen=seen, remedy="" if is_good else say("doctor.sandbox.remedy"))
    python = sandbox.get("python")
    yield Finding(
        "python",
        is_good=python is not None,
        seen=str(python or say("doctor.no_python")),
        remedy="" if python else say("doctor.no_python.remedy"),
    )


def _disk(folder: Path) -> Finding:
    existing = next((path for path in (folder, *folder.parents) if path.exists()), Path("/"))
    free = shutil.disk_usage(existing).free
    is_good = free >= DISK_LEAST_BYTES
    seen = say("doctor.disk_free", size=formats.size(free), path=folder)
    return Finding("disk", is_good=is_good, seen=seen, remedy="" if is_good else say("doctor.disk.remedy"))


def _uv() -> str:
    program = shutil.which("uv")
    if program is None:
        return say("doctor.no_uv")
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return say("doctor.no_uv")
    return one_line(answer.stdout) or say("doctor.no_uv")
