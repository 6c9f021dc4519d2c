"""Runs one command in the sandbox and brings its output to everybody who wants it."""

import asyncio
from dataclasses import dataclass

from beray.server.agent.coalesce import Coalescer
from beray.server.agent.tools.base import Answer, Toolbox, ToolError
from beray.server.agent.tools.output import EVENT_CHARACTERS, HeadAndTail, LiveOutput, OutputLog
from beray.server.messages import text
from beray.server.sandbox.base import Exit, Process, SandboxError, Spec, StreamName

PYTHON_ENV = {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8"}
"""Output is live, in one encoding, and no __pycache__ clutters the work_dir."""


@dataclass(frozen=True)
class Finished:
    """A command that has ended: how, and what it printed."""

    exit: Exit
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
    process = await start_process(box, spec)
    has_ended = False
    try:
        output, truncated = await _read_all(box, process)
        ended = await process.wait()
        has_ended = True
    finally:
        if not has_ended:
            await asyncio.shield(process.kill())
    return Finished(ended, output, truncated, box.run.clock() - started_at)


async def start_process(box: Toolbox, spec: Spec) -> Process:
    """Start `spec`; whoever gets it must see to its end.

    Raises:
        ToolError: It could not be started.
    """
    try:
        return await box.run.sandbox.start(spec)
    except SandboxError as error:
        raise ToolError(f"The command could not be started: {error}") from error


async def _read_all(box: Toolbox, process: Process) -> tuple[HeadAndTail, bool]:
    kept = HeadAndTail()
    live = LiveOutput(box.call_id)
    log = OutputLog(box.run.output_dir, box.call_id)
    unlogged: list[bytes] = []

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
                await shown.put(stream, live.decode(stream, content))
                if sum(map(len, unlogged)) >= 64 * 1024:
                    await write_log()
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
    language = box.run.language
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
    elif code < 0:
        headline = f"was ended by signal {-code} after {seconds} s"
        summary = text("agent_command_signal", language, signal=-code)
    else:
        headline = f"exit code {code} ({seconds} s)"
        summary = text("agent_command_exit", language, code=code)
    body = finished.output.text()
    parts = [headline, note, body if body.strip() else "(no output)"]
    return Answer(
        text="\n".join(part for part in parts if part),
        summary=summary,
        ok=reason == "exit" and code == 0,
        exit_code=code,
        truncated=finished.truncated,
    )
