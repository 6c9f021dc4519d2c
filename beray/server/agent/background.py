"""Commands that run beside a run's tool calls: a server that is tried out, a watcher.

They belong to the process that plays the run, and end with its part in it: when the run has ended or is stopped, when
another process has taken it over, and, by the sandbox's supervisors, when this process dies. Their names are in the
run's memory (`Progress.background`), so that whoever plays its next turn can tell the model which of them have ended,
or are gone with the process that had started them.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from typing import Final

from beray.server.agent.progress import Progress
from beray.server.agent.tools.output import MODEL_BYTES, HeadAndTail, OutputLog
from beray.server.sandbox.base import Exit, Process

MOST_ALIVE: Final = 4  # each may use as much memory as a foreground command
MOST_ENDED: Final = 16  # ended ones whose output can still be looked at
OUTPUT_BYTES: Final = MODEL_BYTES // 2  # may be looked at again and again
READ_PAUSE_SECONDS: Final = 0.02  # between two reads: what a command writes meanwhile waits in its pipe, and comes as
# one piece. So it may write some MB a second, however small the pieces, which leaves the server to the other tasks.

log = logging.getLogger(__name__)


class BackgroundProcess:
    """One command. Its output is always read, so that it never waits for a reader.

    Attributes:
        id: What model and people call it, such as `bg-1`.
        title: Its command, in a line.
        output: Beginning and end of what it has printed so far.
        exit: How it ended; None while it runs, and if its end could not be learnt.
    """

    def __init__(self, process: Process, *, id: str, title: str, output_log: OutputLog) -> None:
        self.id = id
        self.title = title
        self.output = HeadAndTail(most_bytes=OUTPUT_BYTES, head_bytes=OUTPUT_BYTES // 4)
        self.exit: Exit | None = None
        self._process = process
        self._log = output_log
        self._started_at = time.monotonic()
        self._ended_at: float | None = None
        self._is_stopped = False
        self._drained = asyncio.create_task(self._drain())

    @property
    def is_alive(self) -> bool:
        """Whether there may be a process of it."""
        return not self._drained.done()

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return (self._ended_at or time.monotonic()) - self._started_at

    @property
    def state(self) -> str:
        """For the model: `running`, or how it ended."""
        if self.is_alive:
            return "running"
        if self._is_stopped:
            return "stopped"
        return "lost: how it ended is unknown" if self.exit is None else describe_exit(self.exit)

    async def ended_within(self, seconds: float) -> bool:
        """Whether it ends by itself in this time."""
        await asyncio.wait({self._drained}, timeout=seconds)
        return not self.is_alive

    def when_ended(self, act: Callable[[], None]) -> None:
        """Call `act` when no process of it is left."""
        self._drained.add_done_callback(lambda _: act())

    async def stop(self) -> None:
        """End every process of it; returns when none is left."""
        if self.is_alive and not self._is_stopped:  # a second cancellation would cut the first one's killing short
            self._is_stopped = True
            self._drained.cancel()
        await asyncio.wait({self._drained})

    async def _drain(self) -> None:
        try:
            while (piece := await self._process.read()) is not None:
                await self._keep(piece[1])
            self.exit = await self._process.wait()
        except Exception:  # the edge of a worker: nobody awaits this task; the command is ended below
            log.exception("a background process could not be followed", extra={"id": self.id})
        finally:
            if self.exit is None:
                await self._kill()
            self._ended_at = time.monotonic()
            await asyncio.to_thread(self._log.close)

    async def _keep(self, content: bytes) -> None:
        self.output.add(content)
        if not self._log.is_full:
            await asyncio.to_thread(self._log.write, content)
        await asyncio.sleep(READ_PAUSE_SECONDS)

    async def _kill(self) -> None:
        try:
            await asyncio.shield(self._process.kill())
        except Exception:  # it was tried for long enough, and the others are to be ended too
            log.exception("a background process could not be ended", extra={"id": self.id})


class BackgroundProcesses:
    """Those of one run in this process.

    Args:
        progress: The run's memory. An id is in it from the process' start until the model was told of its end.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._processes: dict[str, BackgroundProcess] = {}

    @property
    def alive(self) -> list[BackgroundProcess]:
        """Those that run, oldest first."""
        return [process for process in self._processes.values() if process.is_alive]

    @property
    def known(self) -> list[BackgroundProcess]:
        """Those that run, and the latest of those that have ended, oldest first."""
        return list(self._processes.values())

    def find(self, id: str) -> BackgroundProcess | None:
        """The process with this id."""
        return self._processes.get(id)

    def add(self, process: Process, *, title: str, output_log: OutputLog) -> BackgroundProcess:
        """Take charge of a command that has just been started."""
        self._progress.background_count += 1
        id = f"bg-{self._progress.background_count}"
        self._processes[id] = added = BackgroundProcess(process, id=id, title=title, output_log=output_log)
        added.when_ended(lambda: self._note_disk(added))
        self._progress.background[id] = title
        return added

    def settle(self, process: BackgroundProcess) -> None:
        """The model is told of its end by other means than `news`."""
        self._progress.background.pop(process.id, None)

    def news(self) -> list[str]:
        """Sentences about those whose end the model has not been told of; each is given once."""
        told = [id for id in self._progress.background if not self._is_alive(id)]
        sentences = [self._news_of(id) for id in told]
        for id in told:
            del self._progress.background[id]
        self._forget_oldest()
        return sentences

    async def close(self) -> None:
        """End all of them; returns when no process of theirs is left."""
        await asyncio.gather(*(process.stop() for process in self.alive))

    def _note_disk(self, process: BackgroundProcess) -> None:
        if process.exit is not None and process.exit.disk_bytes is not None:
            self._progress.disk_bytes = process.exit.disk_bytes

    def _is_alive(self, id: str) -> bool:
        process = self._processes.get(id)
        return process is not None and process.is_alive

    def _news_of(self, id: str) -> str:
        title = self._progress.background[id]
        process = self._processes.get(id)
        if process is None:
            return (
                f"{id} ({title}) is gone: background processes end with a run, and when the server is interrupted. "
                "Start it again if it is still needed."
            )
        return f"{id} ({title}) has ended: {process.state}. Its output can still be seen with the tool background."

    def _forget_oldest(self) -> None:
        ended = [id for id in self._processes if not self._is_alive(id)]
        for id in ended[: max(0, len(ended) - MOST_ENDED)]:
            del self._processes[id]


def describe_exit(how: Exit) -> str:
    """How a command ended, for the model."""
    if how.reason == "timeout":
        return "the time of the task is up"
    if how.reason == "lost":
        return "lost: its supervisor vanished, and what it did is unknown"
    if how.reason == "memory":
        return "killed: it used more memory than it may"
    if how.reason == "disk":
        return "killed: the task's files took more than they may together, or the disk was nearly full"
    ended = f"signal {-how.code}" if how.code < 0 else f"exit code {how.code}"
    return ended if how.reason == "exit" else f"{ended} ({how.reason})"


def in_lines(processes: Iterable[BackgroundProcess]) -> str:
    """A line for each, for the model."""
    return "\n".join(f"{one.id}: {one.state}, {one.seconds:.0f} s, {one.title}" for one in processes)
