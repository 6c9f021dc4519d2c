"""Runs one command in the sandbox and brings its output to everybody who wants it."""

import asyncio
from dataclasses import dataclass, replace

from beray.server.agent.coalesce import Coalescer
from beray.server.agent.tools.base import Answer, Toolbox, ToolError
from beray.server.agent.tools.output import EVENT_CHARACTERS, HeadAndTail, LiveOutput, OutputLog
from beray.server.messages import text
from beray.server.sandbox.base import Exit, Limits, Process, SandboxError, Spec, StreamName

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
    process = await start_process(box, spec)
    has_ended = False
    try:
        output, truncated = await _read_all(box, process)
        ended = await process.wait()
        has_ended = True
    finally:
        if not has_ended:
            await asyncio.shield(process.kill())
    box.progress.disk_bytes = ended.disk_bytes
    await box.run.room.note(ended.disk_bytes)
    return Finished(ended, spec.limits, output, truncated, box.run.clock() - started_at)


async def bounded(box: Toolbox, spec: Spec) -> Spec:
    """`spec` with what the task's files may take now."""
    disk_bytes = await box.run.room.within(spec.limits.disk_bytes)
    return replace(spec, limits=replace(spec.limits, disk_bytes=disk_bytes))


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
    unlogged: list[bytes] = []
    unlogged_bytes = 0

    async def hand_on(group: list[tuple[StreamName, str]]) -> None:
        await box.run.emit(*live.events(group))

    async def write_log() -> None:
        pieces = unlogged.copy()
        unlogged.clear()
        await asyncio.to_thread(log.write, pieces)

    try:
        async with Coalescer(hand_on, most_characters=4 * EVENT_CHARACTERS) as shown:
            while (piece := await process.read()) is not None:
                stream, content = piece
                kept.add(content)
                unlogged.append(content)
                unlogged_bytes += len(content)
                await shown.put(stream, live.decode(stream, content))
                if unlogged_bytes >= 64 * 1024:
                    await write_log()
                    unlogged_bytes = 0
            for stream in ("stdout", "stderr"):
                await shown.put(stream, live.decode(stream, b"", is_last=True))
        if live.truncated:
            await box.run.emit(live.cut_event())
    finally:
        if unlogged:
            await asyncio.shield(write_log())
        log.close()
    return kept, live.truncated


def command_answer(box: Toolbox, finished: Finished, *, timeout_seconds: int, note: str = "") -> Answer:
    """What model and people are told about a command that has ended."""
    headline, summary = _ending(box, finished, timeout_seconds)
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
        size = _size(limits.memory_bytes)
        headline = (
            f"was killed after {seconds} s, with all its processes: they used more than {size} of memory together; "
            "work on smaller pieces, or run fewer processes at once"
        )
        summary = text("agent_command_memory", language, size=size)
    elif reason == "disk":
        size = _size(limits.disk_bytes)
        headline = (
            f"was killed after {seconds} s, with all its processes: the task's files (work_dir, HOME and TMPDIR) may "
            f"hold {size} together{_why_less(box, limits)}, or the disk is nearly full; delete what is not needed "
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


def _why_less(box: Toolbox, limits: Limits) -> str:
    is_less = limits.disk_bytes < box.run.sandbox_limits.disk_bytes
    return " (what the user's other tasks leave of the user's store)" if is_less else ""


def _size(size: int) -> str:
    """For people and models: in the unit it is usually given in."""
    return f"{size / (1 << 30):.3g} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.3g} MiB"
