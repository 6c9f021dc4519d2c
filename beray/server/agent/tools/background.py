"""Commands in the background: started by the shell tool, looked after by a tool of its own."""

from collections.abc import Awaitable, Callable
from typing import Final, Literal

from beray.server.agent.background import MOST_ALIVE, BackgroundProcess, in_lines
from beray.server.agent.tools.base import Answer, Toolbox, ToolError, first_line
from beray.server.agent.tools.output import LiveOutput, OutputLog
from beray.server.agent.tools.process import Finished, bounded, command_answer, start_process
from beray.server.messages import text
from beray.server.sandbox.base import Spec

START_SECONDS: Final = 1.0  # a wrong command, a missing file or a port in use shows itself in this time

_REMEDY: Final = "start it with its output in a file of the work_dir to see all"


def build_background(box: Toolbox) -> Callable[..., Awaitable[Answer]]:
    """The tool for one run."""

    async def background(action: Literal["list", "output", "stop"], id: str = "") -> Answer:
        """Look after the commands that shell has started with background=true.

        You are told by itself when one of them ends.

        Args:
            action: list shows them all; output shows what one has printed, beginning and end; stop ends one.
            id: Which one, such as bg-1; not needed for list.
        """
        if action == "list":
            return _listed(box)
        process = _find(box, id)
        if action == "stop":
            return await _stop(box, process)
        return await _shown(box, process)

    return background


async def start_background(box: Toolbox, spec: Spec, command: str) -> Answer:
    """Start `spec`, and tell whether it runs or, if it has ended at once, how.

    Raises:
        ToolError: It may not, or could not, be started.
    """
    if "background" not in box.run.tools:
        raise ToolError("This task may not use the tool background. Run the command in the foreground.")
    if len(box.background.alive) >= MOST_ALIVE:
        raise ToolError(
            f"{MOST_ALIVE} commands run in the background, and no more may. Stop one with the tool background:\n"
            + in_lines(box.background.alive)
        )
    started_at = box.run.clock()
    spec = await bounded(box, spec, most_overfills=0)  # what it writes on would be counted too late
    process = await start_process(box, spec)
    kept = box.background.add(process, title=first_line(command), output_log=OutputLog(box.run.output_dir, box.call_id))
    if not await kept.ended_within(START_SECONDS):
        return await _started(box, kept)
    box.background.settle(kept)
    if kept.exit is None:
        raise ToolError("The command was lost at its start, and what it did is unknown. Inspect before going on.")
    await _show_people(box, kept)
    finished = Finished(kept.exit, spec.limits, kept.output, kept.output.is_cut, box.run.clock() - started_at)
    note = "It has ended, and does not run in the background."
    return command_answer(box, finished, timeout_seconds=round(spec.limits.wall_seconds), note=note)


async def _started(box: Toolbox, process: BackgroundProcess) -> Answer:
    await _show_people(box, process)
    headline = (
        f"running in the background as {process.id}. See its output, or stop it, with the tool background; "
        "it is ended when the task ends."
    )
    return Answer(
        text=f"{headline}\n{_output(process)}",
        summary=text("agent_background_running", box.run.language, id=process.id),
        truncated=process.output.is_cut,
    )


def _listed(box: Toolbox) -> Answer:
    known, alive = box.background.known, box.background.alive
    return Answer(
        text=in_lines(known) or "Nothing runs in the background.",
        summary=text("agent_background_listed", box.run.language, count=len(alive)),
    )


async def _shown(box: Toolbox, process: BackgroundProcess) -> Answer:
    await _show_people(box, process)
    return Answer(
        text=f"{in_lines([process])}\n{_output(process)}",
        summary=text("agent_background_output", box.run.language, id=process.id, count=process.output.size),
        truncated=process.output.is_cut,
    )


async def _stop(box: Toolbox, process: BackgroundProcess) -> Answer:
    await process.stop()
    box.background.settle(process)
    return Answer(
        text=f"{in_lines([process])}\n{_output(process)}",
        summary=text("agent_background_ended", box.run.language, id=process.id),
    )


def _find(box: Toolbox, id: str) -> BackgroundProcess:
    process = box.background.find(id.strip())
    if process is not None:
        return process
    if id.strip() in box.progress.background:
        raise ToolError(f"{id} is gone: it ended with its run, or with the server. Start it again if it is needed.")
    known = in_lines(box.background.known) or "None has been started, or those of before an interruption are gone."
    raise ToolError(f"There is no background process {first_line(id)!r}. Give the id of one of these:\n{known}")


def _output(process: BackgroundProcess) -> str:
    shown = process.output.text(_REMEDY)
    return shown if shown.strip() else "(no output)"


async def _show_people(box: Toolbox, process: BackgroundProcess) -> None:
    """Show what the model is shown; both streams have become one on the way."""
    events = LiveOutput(box.call_id).events([("stdout", process.output.text(_REMEDY))])
    if events:
        await box.run.emit(*events)
