"""`run`, `watch`, `ps`, `show`, `stop`, `rm`."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import rich_click as click

from beray.cli import formats
from beray.cli.connection import App, NothingHere, Server
from beray.cli.each import for_each
from beray.cli.exits import CliError, Exit, Terminated
from beray.cli.follow import Patience, follow
from beray.cli.language import language, say
from beray.cli.options import Duration, Limit, common, pass_app
from beray.cli.program import program_name
from beray.cli.questions import Questions
from beray.cli.screen import Screen
from beray.cli.terminal import cell_width, fit, one_line, plain

if TYPE_CHECKING:
    from beray.client import BeRayClient

GOAL_MOST_BYTES: Final = 1 << 20  # a goal may have 100 000 characters; no need to read a disk image into memory
PS_DEFAULT: Final = 20
STATUS_STYLE: Final[Mapping[str, str]] = {"completed": "good", "failed": "bad", "stopped": "warn", "running": "accent"}

JsonObject = Mapping[str, Any]


@dataclass(frozen=True)
class Shape:
    """What `run` and `watch` print: the screen, one JSON object at the end, or every event as a line of JSON."""

    is_json: bool
    is_events: bool
    is_verbose: bool

    @property
    def is_screen(self) -> bool:
        """Whether people read it."""
        return not (self.is_json or self.is_events)


@dataclass(frozen=True)
class Wish:
    """The task that `run` makes; None: as the server does by itself."""

    goal: str
    attachments: tuple[Path, ...]
    model: str | None
    tools: list[str] | None
    limits: Mapping[str, float] | None
    webhook_url: str | None


@click.command(help=say("help.run"))
@click.argument("goal", nargs=-1)
@click.option("-f", "--file", "goal_file", type=click.Path(dir_okay=False), help=say("help.run.file"))
@click.option(
    "-a", "--attach", multiple=True, type=click.Path(exists=True, path_type=Path), help=say("help.run.attach")
)
@click.option("-m", "--model", metavar="NAME", help=say("help.run.model"))
@click.option("--tool", "tools", metavar="NAME", multiple=True, help=say("help.run.tool"))
@click.option("--limit", "limits", type=Limit(), metavar="NAME=VALUE", multiple=True, help=say("help.run.limit"))
@click.option("--webhook", "webhook_url", metavar="URL", help=say("help.run.webhook"))
@click.option("-d", "--detach", is_flag=True, help=say("help.run.detach"))
@click.option("--timeout", type=Duration(), help=say("help.run.timeout"))
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help=say("help.run.out"))
@click.option("--json", "is_json", is_flag=True, help=say("help.run.json"))
@click.option("--events", "is_events", is_flag=True, help=say("help.run.events"))
@click.option("--exit-status/--no-exit-status", default=True, show_default=True, help=say("help.run.exit_status"))
@click.option("--stop-on-interrupt", is_flag=True, help=say("help.run.stop_on_interrupt"))
@click.option("--retry-for", type=Duration(), default="5m", show_default=True, help=say("help.run.retry_for"))
@click.option("-v", "--verbose", is_flag=True, help=say("help.run.verbose"))
@common
@pass_app
def run(
    app: App,
    *,
    goal: tuple[str, ...],
    goal_file: str | None,
    attach: tuple[Path, ...],
    model: str | None,
    tools: tuple[str, ...],
    limits: tuple[tuple[str, float], ...],
    webhook_url: str | None,
    detach: bool,
    timeout: float | None,
    out: Path | None,
    is_json: bool,
    is_events: bool,
    exit_status: bool,
    stop_on_interrupt: bool,
    retry_for: float,
    verbose: bool,
) -> int:
    shape = Shape(is_json, is_events, verbose)
    _check_shape(shape)
    if detach and (out is not None or timeout is not None or is_events):
        raise click.UsageError(say("usage.detach_alone"))
    wish = Wish(read_goal(goal, goal_file), attach, model, list(tools) or None, dict(limits) or None, webhook_url)
    server = app.logged_in("settings")
    with app.client_of(server) as client:
        task = _create(app, client, wish)
        if detach:
            return _leave(app, task, shape)
        try:
            _introduce(app, client, server, task, shape)
        except (KeyboardInterrupt, Terminated):
            app.terminal.progress(say("follow.still_running", program=program_name(), id=task["id"]))
            raise
    patience = Patience(
        retry_seconds=retry_for,
        timeout_seconds=timeout,
        stops_on_timeout=True,
        stops_on_interrupt=stop_on_interrupt,
    )
    exit = _follow(app, server, task["id"], shape, patience, can_ask=sys.stdin.isatty())
    if out is not None and exit in {Exit.OK, Exit.TASK_FAILED, Exit.TASK_STOPPED}:
        _download_all(app, server, task["id"], out)
    return exit if exit_status or exit >= Exit.TIMEOUT else Exit.OK


@click.command(help=say("help.watch"))
@click.argument("task_id", metavar="[ID]", type=int, required=False)
@click.option("--timeout", type=Duration(), help=say("help.watch.timeout"))
@click.option("--json", "is_json", is_flag=True, help=say("help.run.json"))
@click.option("--events", "is_events", is_flag=True, help=say("help.run.events"))
@click.option("--exit-status/--no-exit-status", default=True, show_default=True, help=say("help.run.exit_status"))
@click.option("--retry-for", type=Duration(), default="5m", show_default=True, help=say("help.run.retry_for"))
@click.option("-v", "--verbose", is_flag=True, help=say("help.run.verbose"))
@common
@pass_app
def watch(
    app: App,
    *,
    task_id: int | None,
    timeout: float | None,
    is_json: bool,
    is_events: bool,
    exit_status: bool,
    retry_for: float,
    verbose: bool,
) -> int:
    shape = Shape(is_json, is_events, verbose)
    _check_shape(shape)
    server = app.logged_in()
    with app.client_of(server) as client:
        task = _latest(client) if task_id is None else client.get_task(task_id, events="none")
        _introduce(app, client, server, task, shape, hint=say("watch.hint"))
    patience = Patience(retry_seconds=retry_for, timeout_seconds=timeout, can_interrupt=False)
    exit = _follow(app, server, task["id"], shape, patience)
    return exit if exit_status or exit >= Exit.TIMEOUT else Exit.OK


@click.command(help=say("help.ps"))
@click.option("-a", "--all", "is_all", is_flag=True, help=say("help.ps.all"))
@click.option("--status", multiple=True, help=say("help.ps.status"))
@click.option("--limit", type=click.IntRange(min=1), default=PS_DEFAULT, show_default=True, help=say("help.ps.limit"))
@click.option("-q", "--quiet", is_flag=True, help=say("help.ps.quiet"))
@click.option("--json", "is_json", is_flag=True, help=say("help.json"))
@common
@pass_app
def ps(app: App, *, is_all: bool, status: tuple[str, ...], limit: int, quiet: bool, is_json: bool) -> None:
    _check_statuses(status)
    try:
        with app.connect() as client:
            tasks = client.list_tasks(limit=None if is_all or status else limit)
    except NothingHere:
        tasks = []
    shown: list[JsonObject] = [dict(task) for task in tasks if not status or task["status"] in status]
    shown = shown if is_all else shown[:limit]
    if is_json:
        app.terminal.result(formats.json_page(shown))
    elif quiet:
        for task in shown:
            app.terminal.result(str(task["id"]))
    elif shown:
        app.terminal.result("\n".join(_table(app, shown)))
    else:
        app.terminal.progress(say("ps.none", program=program_name()))


@click.command(help=say("help.show"))
@click.argument("task_id", metavar="ID", type=int)
@click.option("--json", "is_json", is_flag=True, help=say("help.json"))
@common
@pass_app
def show(app: App, *, task_id: int, is_json: bool) -> None:
    with app.connect() as client:
        task = client.get_task(task_id, events=None if is_json else "none")
    app.terminal.result(formats.json_page(task) if is_json else "\n".join(_details(app, task)))


@click.command(help=say("help.stop"))
@click.argument("task_ids", metavar="ID...", type=int, nargs=-1, required=True)
@common
@pass_app
def stop(app: App, *, task_ids: tuple[int, ...]) -> int:
    with app.connect() as client:
        return for_each(app, task_ids, lambda task_id: client.stop_task(task_id)["message"])


@click.command(help=say("help.rm"))
@click.argument("task_ids", metavar="ID...", type=int, nargs=-1, required=True)
@click.option("-y", "--yes", is_flag=True, help=say("help.rm.yes"))
@common
@pass_app
def rm(app: App, *, task_ids: tuple[int, ...], yes: bool) -> int:
    if not yes and not sys.stdin.isatty():
        raise click.UsageError(say("usage.rm_needs_yes"))
    with app.connect() as client:
        if not yes and not _confirms(client, task_ids):
            return Exit.ERROR
        return for_each(app, task_ids, lambda task_id: client.delete_task(task_id)["message"])


# the goal and its files


def read_goal(words: tuple[str, ...], goal_file: str | None) -> str:
    """The goal: the words, what stdin brings for `-`, or the file's text.

    Raises:
        UsageError: There is none, there are two, or it is no text.
    """
    if words and goal_file is not None:
        raise click.UsageError(say("usage.goal_twice"))
    if goal_file is not None:
        goal = read_text(sys.stdin.buffer) if goal_file == "-" else _read_goal_file(Path(goal_file))
    elif words == ("-",):
        goal = read_text(sys.stdin.buffer)
    else:
        goal = " ".join(words)
    if not goal.strip():
        raise click.UsageError(say("usage.no_goal", program=program_name()))
    try:
        goal.encode()
    except UnicodeEncodeError as error:
        raise click.UsageError(say("usage.goal_no_text")) from error
    return goal.strip()


def _read_goal_file(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return read_text(file)
    except OSError as error:
        what = say("usage.goal_unreadable", path=path, reason=error.strerror or type(error).__name__)
        raise click.UsageError(what) from error


def read_text(stream: Any) -> str:
    """All of a stream, which must be UTF-8 and not too long.

    Raises:
        UsageError: It is not.
    """
    content: bytes = stream.read(GOAL_MOST_BYTES + 1)
    if len(content) > GOAL_MOST_BYTES:
        raise click.UsageError(say("usage.goal_too_long", limit=formats.size(GOAL_MOST_BYTES)))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise click.UsageError(say("usage.goal_no_text")) from error


def _create(app: App, client: "BeRayClient", wish: Wish) -> JsonObject:
    tools = wish.tools
    if tools is None and not sys.stdin.isatty():
        tools = _tools_without_asking(client)
    create = partial(
        client.create_task,
        wish.goal,
        tools,
        model=wish.model,
        limits=wish.limits,
        webhook_url=wish.webhook_url,
    )
    if not wish.attachments:
        return dict(create())
    from beray.cli.transfer import attached_files, upload

    files = attached_files(wish.attachments)  # read the folders first: a wrong name must not leave a held task behind
    task_id = create(hold=True)["id"]
    try:
        for file in files:
            upload(app.terminal, client, task_id, file)
        return dict(client.start_task(task_id))
    except BaseException:
        client.delete_task(task_id)  # nobody would ever start it
        raise


def _tools_without_asking(client: "BeRayClient") -> list[str] | None:
    """The server's tools but the one that asks: nobody is here to answer. None where it asks nothing anyway."""
    info = _info(client)
    default = [tool["name"] for tool in info.get("tools") or [] if tool["is_default"]]
    if info.get("model_kind") == "rules" or "ask_user" not in default:
        return None
    return [name for name in default if name != "ask_user"]


def _leave(app: App, task: JsonObject, shape: Shape) -> int:
    app.terminal.result(formats.json_page(task) if shape.is_json else str(task["id"]))
    if shape.is_screen:
        app.note(say("run.detached", program=program_name(), id=task["id"]))
    return Exit.OK


# the screen


def _check_shape(shape: Shape) -> None:
    if shape.is_json and shape.is_events:
        raise click.UsageError(say("usage.json_or_events"))


def _introduce(
    app: App, client: "BeRayClient", server: Server, task: JsonObject, shape: Shape, *, hint: str | None = None
) -> None:
    """The header; of JSON output only the line that says that no AI model works, which is always shown."""
    screen = Screen(app.terminal)
    if shape.is_screen:
        screen.header(task, base_url=server.base_url, hint=hint or say("run.hint"))
    info = _info(client)
    shown = dict(task)
    if shown.get("model_kind") is None:
        shown["model"], shown["model_kind"] = info.get("model"), info.get("model_kind")
    if shape.is_screen or shown["model_kind"] == "rules":
        is_current = info.get("model") == shown["model"]
        screen.model_line(shown, _in_language(info.get("model_notice")) if is_current else None)


def _info(client: "BeRayClient") -> JsonObject:
    """What the server says of itself; nothing from one that isn't ours."""
    from beray.exceptions import APIError, ProtocolError

    try:
        info = client.get_info()
    except (APIError, ProtocolError):
        return {}
    return info if isinstance(info, dict) else {}


def _in_language(text: object) -> str | None:
    found = text.get(language()) if isinstance(text, Mapping) else text
    return found if isinstance(found, str) else None


def _follow(app: App, server: Server, task_id: int, shape: Shape, patience: Patience, *, can_ask: bool = False) -> Exit:
    if shape.is_events:
        return follow(app, server, task_id, patience=patience, show=lambda event: _event_line(app, event))
    screen = Screen(app.terminal, is_verbose=shape.is_verbose)
    if shape.is_screen and can_ask:
        screen.can_ask = True
        ask = Questions(app, server, screen).ask
        return follow(app, server, task_id, patience=patience, show=screen.show, ask=ask)
    if shape.is_screen:
        return follow(app, server, task_id, patience=patience, show=screen.show)
    ended: dict[str, Any] = {}

    def keep(event: JsonObject) -> None:
        if event.get("type") == "task.finished":
            ended.update(files=event.get("files"), files_total=event.get("files_total"))

    exit = follow(app, server, task_id, patience=patience, show=keep)
    with app.client_of(server) as client:
        app.terminal.result(formats.json_page({**client.get_task(task_id, events="none"), **ended}))
    return exit


def _event_line(app: App, event: JsonObject) -> None:
    app.terminal.result(formats.json_line(event))


def _download_all(app: App, server: Server, task_id: int, folder: Path) -> None:
    from beray.cli.transfer import Target, download_folder

    with app.client_of(server) as client:
        download_folder(app.terminal, client, task_id, ".", Target(folder))


# lists and details


def _latest(client: "BeRayClient") -> JsonObject:
    tasks = client.list_tasks(limit=1)
    if not tasks:
        raise CliError(say("watch.none"), say("server.nothing_here.remedy", program=program_name()), Exit.NOT_FOUND)
    return dict(tasks[0])


def _check_statuses(names: tuple[str, ...]) -> None:
    from beray.protocol.status import STATUSES

    unknown = [name for name in names if name not in STATUSES]
    if unknown:
        raise click.UsageError(say("usage.bad_status", names=", ".join(unknown), known=", ".join(STATUSES)))


def _table(app: App, tasks: list[JsonObject]) -> list[str]:
    now = datetime.now(UTC).isoformat()
    heads = [say(f"ps.{name}") for name in ("id", "status", "age", "took", "goal")]
    rows = [
        [
            str(task["id"]),
            say("status.stopping") if task.get("stop_requested") and not task.get("finished_at") else task["status"],
            _duration(task.get("created_at"), now),
            _duration(task.get("started_at"), task.get("finished_at") or now),
            one_line(task["goal"]),
        ]
        for task in tasks
    ]
    widths = [max(cell_width(row[column]) for row in [heads, *rows]) for column in range(4)]
    room = max(20, app.terminal.columns - sum(widths) - 2 * len(widths))
    is_styled = app.terminal.is_live and app.terminal.is_joined
    lines = [_row(heads, widths, room)]
    for row in rows:
        line = _row(row, widths, room)
        style = STATUS_STYLE.get(row[1]) if is_styled else None
        lines.append(line.replace(row[1], app.terminal.style(style, row[1]), 1) if style else line)
    return lines


def _row(cells: list[str], widths: list[int], room: int) -> str:
    padded = [cell + " " * (width - cell_width(cell)) for cell, width in zip(cells, widths, strict=False)]
    return "  ".join([*padded, fit(cells[-1], room)]).rstrip()


def _duration(start: str | None, end: str | None) -> str:
    between = formats.seconds_between(start, end)
    return "-" if between is None else formats.whole_seconds(between)


def _details(app: App, task: JsonObject) -> list[str]:
    usage = task.get("usage") or {}
    error = task.get("error")
    question = task.get("question")
    fields = [
        ("goal", plain(task["goal"])),
        ("status", say("status.stopping") if task.get("stop_requested") else task["status"]),
        ("model", _model_of(task)),
        ("question", _question_of(task["id"], question) if question else None),
        ("created", task.get("created_at")),
        ("took", _time_of(task)),
        (
            "usage",
            " · ".join(f"{name} {say('usage.unknown') if count is None else count}" for name, count in usage.items()),
        ),
        ("error", f"{one_line(error['message'])} ({error['code']})" if error else None),
        ("hint", one_line(error["hint"]) if error and error.get("hint") else None),
        ("result", plain(task["result"]).strip() if task.get("result") else None),
        ("files", f"{program_name()} files ls {task['id']}"),
    ]
    labels = {name: say(f"show.{name}") for name, value in fields if value}
    width = max(cell_width(label) for label in labels.values())
    lines = [app.terminal.style("strong", f"{say('show.task')} {task['id']}")]
    for name, value in fields:
        if value:
            label = labels[name]
            first, *rest = str(value).split("\n")
            lines.append(f"  {label}{' ' * (width - cell_width(label))}  {first}")
            lines += [" " * (width + 4) + line for line in rest]
    return lines


def _question_of(task_id: int, question: JsonObject) -> str:
    """What is asked, the choices, and how to answer."""
    choices = [f"  {number}. {one_line(str(choice))}" for number, choice in enumerate(question.get("choices") or [], 1)]
    how = say("note.answer_by", program=program_name(), id=task_id)
    return "\n".join([one_line(str(question.get("question"))), *choices, how])


def _time_of(task: JsonObject) -> str:
    """How long the run has taken, so far or as a whole, and which it is where there were several."""
    time = _duration(task.get("started_at"), task.get("finished_at") or datetime.now(UTC).isoformat())
    run = task.get("run") or 1
    return time if run == 1 else say("show.run", run=run, duration=time)


def _model_of(task: JsonObject) -> str:
    model = task.get("model")
    if task.get("model_kind") == "rules":
        return say("show.rules", model=model)
    return say("usage.unknown") if model is None else one_line(str(model))


# several tasks at once


def _confirms(client: "BeRayClient", task_ids: tuple[int, ...]) -> bool:
    for task_id in task_ids:
        task = client.get_task(task_id, events="none")
        click.echo(f"  {task_id}  {task['status']}  {fit(one_line(task['goal']), 60)}", err=True)
    return click.confirm(say("rm.confirm", count=len(task_ids)), err=True)
