"""Runs one command in the sandbox and brings its output to everybody who wants it."""

import asyncio
from dataclasses import dataclass, replace

from beray.server.agent.coalesce import Coalescer
from beray.server.agent.tools.base import Answer, Toolbox, ToolError
from beray.server.agent.tools.output import EVENT_CHARACTERS, HeadAndTail, LiveOutput, OutputLog
from beray.server.messages import text
from beray.server.sandbox.base import Exit, Limits, Process, SandboxError, Spec, StreamName

# Of one file, while the task's files are over their limit. Not less: bubblewrap itself writes some (/etc/mime.types).
OVER_FILE_BYTES = 1 << 20
MOST_OVERFILLS = 3  # so the limit is passed by a few times what a fast disk takes between two looks, not by any number

LOG_AT_ONCE_BYTES = 64 * 1024  # of output that people are not shown any more

PYTHON_ENV = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8"}
"""Output is live, in one encoding, and no __pycache__ clutters the work_dir."""


@dataclass(frozen=True)
class Finished:
    """A command that has ended: how, and what it printed."""

    exit: Exit
    limits: Limits
    output: HeadAndTail
    truncated: bool
    duration_ms: int


async def run_process(box: Toolbox, spec: Spec) -> Finished:
    """Run `spec` to its end, showing its output live.

    However this ends, by cancellation too, no process of the command is left.

    Raises:
        ToolError: The command could not be started.
    """
    started_at = box.run.clock()
    spec = await bounded(box, spec)
    held = held_bytes(box)
    process = await start_process(box, spec)
    has_ended = False
    try:
        output, truncated = await _read_all(box, process)
        ended = await process.wait()
        has_ended = True
    finally:
        if not has_ended:
            await asyncio.shield(process.kill())
    _count_overfill(box, spec.limits, held, ended.disk_bytes)
    box.progress.disk_bytes = ended.disk_bytes
    await box.run.room.note(ended.disk_bytes)
    return Finished(ended, spec.limits, output, truncated, box.run.clock() - started_at)


async def bounded(box: Toolbox, spec: Spec, *, most_overfills: int = MOST_OVERFILLS) -> Spec:
    """`spec` with what the task's files may take now.

    They are looked at while a command runs, so each can get over the limit by what it writes between two looks. When
    they are over it, the next may write small files only, which leaves it to delete; and not many may write on.

    Raises:
        ToolError: Too many have.
    """
    limits = replace(spec.limits, disk_bytes=await box.run.room.within(spec.limits.disk_bytes))
    if (held_bytes(box) or 0) > limits.disk_bytes:
        if box.progress.overfills >= most_overfills:
            raise ToolError(
                f"No command was started: {_over(box, limits)}. Delete what is not needed in the foreground or, when"
                " commands have gone on writing and none is started any more, empty files with write_file."
            )
        limits = replace(limits, file_bytes=min(limits.file_bytes, OVER_FILE_BYTES))
    return replace(spec, limits=limits)


def held_bytes(box: Toolbox) -> int | None:
    """What the task's files take on the disk, as far as is known."""
    return box.run.room.known if box.progress.disk_bytes is None else box.progress.disk_bytes


def _count_overfill(box: Toolbox, limits: Limits, before: int | None, after: int | None) -> None:
    if before is None or after is None:
        return
    if before > limits.disk_bytes and after > before + OVER_FILE_BYTES:
        box.progress.overfills += 1


def _over(box: Toolbox, limits: Limits) -> str:
    return f"the task's files take more than the {size_text(limits.disk_bytes)} they may{why_less(box, limits)}"


async def start_process(box: Toolbox, spec: Spec) -> Process:
    """Start `spec`; whoever gets it must see to its end.

    Raises:
        ToolError: It could not be started.
    """
    try:
        return await box.run.sandbox.start(replace(spec, task_id=box.run.task_id, disk_before=box.progress.disk_bytes))
    except SandboxError as error:
        raise ToolError(f"The command could not be started: {error}") from error


async def _read_all(box: Toolbox, process: Process) -> tuple[HeadAndTail, bool]:
    kept = HeadAndTail()
    live = LiveOutput(box.call_id)
    log = OutputLog(box.run.output_dir, box.call_id)
    unlogged_bytes = 0

    async def hand_on(group: list[tuple[StreamName, str]]) -> None:
        await asyncio.to_thread(log.flush)  # who is shown something finds it in the log too
        await box.run.emit(*live.events(group))

    try:
        async with Coalescer(hand_on, most_characters=4 * EVENT_CHARACTERS) as shown:
            while (piece := await process.read()) is not None:
                stream, content = piece
                kept.add(content)
                log.put(content)
                unlogged_bytes += len(content)
                await shown.put(stream, live.decode(stream, content))
                if unlogged_bytes >= LOG_AT_ONCE_BYTES:
                    await asyncio.to_thread(log.flush)
                    unlogged_bytes = 0
            for stream in ("stdout", "stderr"):
                await shown.put(stream, live.decode(stream, b"", is_last=True))
        if live.truncated:
            await box.run.emit(live.cut_event())
    finally:
        await asyncio.shield(asyncio.to_thread(log.close))
    return kept, live.truncated


def command_answer(box: Toolbox, finished: Finished, *, timeout_seconds: int, note: str = "") -> Answer:
    """What model and people are told about a command that has ended."""
    headline, summary = _ending(box, finished, timeout_seconds)
    if finished.exit.reason == "exit" and (finished.exit.disk_bytes or 0) > finished.limits.disk_bytes:
        small = size_text(OVER_FILE_BYTES)
        headline += (
            f"\nNow {_over(box, finished.limits)}: until you delete some, commands can't write files over {small}."
        )
    body = finished.output.text()
    parts = [headline, note, body if body.strip() else "(no output)"]
    return Answer(
        text="\n".join(part for part in parts if part),
        summary=summary,
        ok=finished.exit.reason == "exit" and finished.exit.code == 0,
        exit_code=finished.exit.code,
        truncated=finished.truncated,
    )


def _ending(box: Toolbox, finished: Finished, timeout_seconds: int) -> tuple[str, str]:
    """How it ended: for the model, and for people."""
    language, limits = box.run.language, finished.limits
    code, reason = finished.exit.code, finished.exit.reason
    seconds = f"{finished.duration_ms / 1000:.1f}"
    if reason == "timeout":
        headline = (
            f"timed out after {timeout_seconds} s and was killed, with all its processes; "
            "set a longer timeout (at most 600), or do less at once"
        )
        summary = text("agent_command_timeout", language, seconds=timeout_seconds)
    elif reason == "lost":
        headline = "was lost: its supervisor vanished, and what it did is unknown; inspect before going on"
        summary = text("agent_command_lost", language)
    elif reason == "memory":
        size = size_text(limits.memory_bytes)
        headline = (
            f"was killed after {seconds} s, with all its processes: they used more than {size} of memory together; "
            "work on smaller pieces, or run fewer processes at once"
        )
        summary = text("agent_command_memory", language, size=size)
    elif reason == "disk":
        size = size_text(limits.disk_bytes)
        headline = (
            f"was killed after {seconds} s, with all its processes: the task's files (work_dir, HOME and TMPDIR) may "
            f"hold {size} together{why_less(box, limits)}, or the disk is nearly full; delete what is not needed "
            "before going on"
        )
        summary = text("agent_command_disk", language, size=size)
    elif code < 0:
        headline = f"was ended by signal {-code} after {seconds} s"
        summary = text("agent_command_signal", language, signal=-code)
    else:
        headline = f"exit code {code} ({seconds} s)"
        summary = text("agent_command_exit", language, code=code)
    return headline, summary


def why_less(box: Toolbox, limits: Limits) -> str:
    """In brackets, if it is the user's store and not the task's own limit that is full."""
    is_less = limits.disk_bytes < box.run.sandbox_limits.disk_bytes
    return " (what the user's other tasks leave of the store; the user can delete some)" if is_less else ""


def size_text(size: int) -> str:
    """For people and models: in the unit it is usually given in."""
    units = (("GiB", 30), ("MiB", 20), ("KiB", 10))
    name, shift = next((unit for unit in units if size >= 1 << unit[1]), units[-1])
    return f"{size / (1 << shift):.3g} {name}"
