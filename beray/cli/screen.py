"""The screen of `run` and `watch`: a task's events, one after the other, as lines.

Where stdout and stderr end in the same place (`Terminal.is_joined`) everything is shown once, as it happens: the
agent's text on stdout, all else on stderr. Where they don't (`beray run … | cat`, `> file`), stderr tells the whole
story as progress, and stdout gets the result when the task has ended: what the last command printed, unless the final
text says it too, and the final text.
"""

import shlex
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from beray.cli import formats
from beray.cli.language import say
from beray.cli.program import program_name
from beray.cli.terminal import Terminal, cell_width, fit, one_line, plain

JsonObject = Mapping[str, Any]

TAIL_LINES: Final = 5  # of a tool call's output without --verbose
OUTPUT_MOST: Final = (
    1 << 20
)  # characters of one call's output kept for the result; the server sends 1 MB a call at most
FILES_SHOWN: Final = 10
RULE_COLUMNS: Final = 46
TOOLS_WITH_RESULT: Final = frozenset({"shell", "python"})
"""Their output is what a script printed; that of the others is for the agent."""

MARKS: Final[Mapping[str, tuple[str, str]]] = {
    "completed": ("good", "✓"),
    "failed": ("bad", "✗"),
    "stopped": ("warn", "■"),
}
PLAN_MARKS: Final[Mapping[str, str]] = {"completed": "☑", "done": "☑", "in_progress": "◐", "running": "◐"}


@dataclass
class ToolCall:
    """A tool call under way: what its lines need."""

    name: str
    title: str
    is_verbose: bool
    started_at: float = field(default_factory=time.monotonic)
    partial: dict[str, str] = field(default_factory=dict)
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=TAIL_LINES))
    kept: list[str] = field(default_factory=list)
    kept_characters: int = 0
    lines: int = 0

    def lines_of(self, stream: str, delta: str) -> list[str]:
        """The lines that `delta` completes, clean; the rest waits for its end."""
        *complete, self.partial[stream] = (self.partial.get(stream, "") + delta).split("\n")
        return [self._take(line) for line in complete]

    def last_lines(self) -> list[str]:
        """What was left without a newline at the end."""
        rest = [line for line in self.partial.values() if line]
        self.partial.clear()
        return [self._take(line) for line in rest]

    def last_line(self) -> str:
        """The newest line, finished or not."""
        unfinished = [line for line in self.partial.values() if line.strip()]
        return one_line(_overwritten(unfinished[-1])) if unfinished else (self.tail[-1] if self.tail else "")

    def _take(self, raw: str) -> str:
        line = plain(_overwritten(raw)).expandtabs(4)
        self.lines += 1
        self.tail.append(line)
        if self.kept_characters + len(line) <= OUTPUT_MOST:
            self.kept.append(line)
            self.kept_characters += len(line) + 1
        return line


class Screen:
    """Shows one task's events.

    Attributes:
        finished: The `task.finished` event, once it has come.
        can_ask: A question is answered at this terminal, right after it is shown.
    """

    def __init__(self, terminal: Terminal, *, is_verbose: bool = False) -> None:
        self.finished: JsonObject | None = None
        self.can_ask = False
        self._terminal = terminal
        self._is_verbose = is_verbose
        self._calls: dict[str, ToolCall] = {}
        self._streamed: dict[str, str] = {}
        self._held: str | None = None
        self._last_text = ""
        self._last_output = ""
        self._last_error: tuple[str, str] | None = None
        self._started_at: str | None = None
        self._thinking_since = time.monotonic()
        self._steps = 0
        self._usage: JsonObject = {}
        self._show: Mapping[str, Callable[[JsonObject], None]] = {
            "task.started": self._task_started,
            "step.started": self._step_started,
            "step.finished": self._note_usage,
            "usage.updated": self._note_usage,
            "text.delta": self._text_delta,
            "text.done": self._text_done,
            "text.reset": self._text_reset,
            "tool.started": self._tool_started,
            "tool.output": self._tool_output,
            "tool.finished": self._tool_finished,
            "plan.updated": self._plan_updated,
            "input.requested": self._input_requested,
            "input.received": self._input_received,
            "model.retry": self._model_retry,
            "model.fallback": self._model_fallback,
            "context.compacted": self._context_compacted,
            "error": self._error,
            "task.finished": self._task_finished,
        }

    def header(self, task: JsonObject, *, base_url: str, hint: str) -> None:
        """The first lines: id, goal, address, what Ctrl-C does."""
        terminal = self._terminal
        number = str(task["id"])
        goal = fit(one_line(task["goal"]), terminal.columns - len(number) - 5)
        terminal.progress(f"{terminal.style('accent', '●')} {terminal.style('strong', number)}  {goal}")
        terminal.progress(f"  {terminal.style('dim', f'{base_url}/api/v1/tasks/{number} · {hint}')}")

    def model_line(self, task: JsonObject, notice: str | None) -> None:
        """Which model works; in rules mode that it is none, and how to set a real one."""
        terminal = self._terminal
        label = say("label.model")
        if task.get("model_kind") == "rules":
            terminal.progress(f"  {terminal.style('warn', label)}  {one_line(notice or say('model.rules'))}")
        elif task.get("model"):
            terminal.progress(f"  {terminal.style('dim', label)}  {one_line(str(task['model']))}")

    def show(self, event: JsonObject) -> None:
        """Show one event; an unknown type shows nothing."""
        handler = self._show.get(event.get("type", ""))
        if handler is not None:
            handler(event)

    def think(self) -> None:
        """Show the transient line that says how long the model has been at it."""
        self._terminal.status(self._thinking)

    def _thinking(self) -> str:
        parts = [f"{say('status.thinking')} {formats.whole_seconds(time.monotonic() - self._thinking_since)}"]
        tokens = [self._usage.get(name) for name in ("input_tokens", "output_tokens")]
        known = [count for count in tokens if isinstance(count, int)]
        if known:
            parts.append(f"{formats.short_count(sum(known))} tok")
        return " · ".join(parts)

    def _task_started(self, event: JsonObject) -> None:
        if self._started_at is None or self.finished is not None:  # a takeover goes on; a further run begins anew
            self._started_at = event.get("at")
            self._steps = 0
        self.finished = None
        self._step_started(event)

    def _step_started(self, event: JsonObject) -> None:
        step = event.get("step")
        self._steps = step if isinstance(step, int) else self._steps
        self._thinking_since = time.monotonic()
        self.think()

    def _note_usage(self, event: JsonObject) -> None:
        self._usage = event.get("usage") or self._usage

    # text

    def _text_delta(self, event: JsonObject) -> None:
        message_id, delta = str(event.get("message_id")), _text_of(event, "delta")
        self._release_held()
        self._streamed[message_id] = self._streamed.get(message_id, "") + delta
        if self._terminal.is_joined:
            self._terminal.stream(delta)

    def _text_done(self, event: JsonObject) -> None:
        streamed = self._streamed.pop(str(event.get("message_id")), "")
        text = _text_of(event, "text") or streamed
        self._release_held()
        if not text.strip():
            return
        self._last_text = text
        if not self._terminal.is_joined:
            self._held = text
        elif streamed:
            self._terminal.end_stream()
        else:
            self._terminal.result(text)

    def _text_reset(self, event: JsonObject) -> None:
        self._streamed.pop(str(event.get("message_id")), None)
        self._terminal.end_stream()
        self._note(say("note.text_reset"))

    def _release_held(self) -> None:
        """A text that was not the last one is progress."""
        if self._held is not None:
            for line in self._held.rstrip("\n").split("\n"):
                self._terminal.progress(line)
            self._held = None

    # tools

    def _tool_started(self, event: JsonObject) -> None:
        self._release_held()
        self._terminal.end_stream()
        call = ToolCall(one_line(_text_of(event, "name")), _title(event), self._is_verbose)
        self._calls[str(event.get("call_id"))] = call
        if self._is_verbose:
            self._terminal.progress(f"{self._terminal.style('accent', '▸')} {self._call_line(call)}")
        self._terminal.status(lambda: self._running(call))

    def _running(self, call: ToolCall) -> str:
        elapsed = formats.whole_seconds(time.monotonic() - call.started_at)
        last = call.last_line()
        return f"{call.name} {call.title} · {elapsed}" + (f" │ {last}" if last else "")

    def _tool_output(self, event: JsonObject) -> None:
        call = self._calls.get(str(event.get("call_id")))
        if call is not None:
            self._show_output(call.lines_of(_text_of(event, "stream"), str(event.get("delta") or "")))

    def _show_output(self, lines: list[str]) -> None:
        if self._is_verbose:
            for line in lines:
                self._output_line(line)

    def _output_line(self, line: str) -> None:
        self._terminal.progress(f"  {self._terminal.style('dim', '│')} {line}")

    def _tool_finished(self, event: JsonObject) -> None:
        self._release_held()
        call = self._calls.pop(str(event.get("call_id")), None)
        if call is None:  # refused before it began: an unknown tool, wrong arguments
            call = ToolCall(one_line(_text_of(event, "name")), _title(event), self._is_verbose)
        self._terminal.status(None)
        self._show_output(call.last_lines())
        self._terminal.progress(self._finished_line(call, event))
        if not self._is_verbose:
            self._show_tail(call)
        if call.name in TOOLS_WITH_RESULT and event.get("ok") and call.kept:
            self._last_output = "\n".join(call.kept)
        self._thinking_since = time.monotonic()
        self.think()

    def _finished_line(self, call: ToolCall, event: JsonObject) -> str:
        style, mark = MARKS["completed" if event.get("ok") else "failed"]
        figures = []
        if isinstance(event.get("exit_code"), int):
            figures.append(say("tool.exit", code=event["exit_code"]))
        elif summary := one_line(_text_of(event, "summary")):
            figures.append(fit(summary, 60))
        if isinstance(event.get("duration_ms"), int | float):
            figures.append(formats.milliseconds(event["duration_ms"]))
        shown = self._terminal.style("dim", " · ".join(figures))
        return f"{self._terminal.style(style, mark)} {self._call_line(call)}   {shown}".rstrip()

    def _call_line(self, call: ToolCall) -> str:
        room = max(20, self._terminal.columns - len(call.name) - 26)
        return f"{self._terminal.style('strong', call.name)} {fit(call.title, room)}".rstrip()

    def _show_tail(self, call: ToolCall) -> None:
        if call.lines > len(call.tail):
            self._output_line(self._terminal.style("dim", say("tool.more_lines", count=call.lines - len(call.tail))))
        for line in call.tail:
            self._output_line(line)

    # notes

    def _note(self, text: str, style: str = "dim") -> None:
        self._release_held()
        self._terminal.end_stream()
        self._terminal.progress(self._terminal.style(style, f"  {text}"))

    def _plan_updated(self, event: JsonObject) -> None:
        for item in event.get("items") or []:
            entry = item if isinstance(item, Mapping) else {"text": item}
            words = entry.get("text") or entry.get("title") or entry.get("content") or ""
            self._note(f"{PLAN_MARKS.get(str(entry.get('status')), '☐')} {one_line(str(words))}")

    def _input_requested(self, event: JsonObject) -> None:
        self._note(say("note.question", question=one_line(_text_of(event, "question"))), "warn")
        for number, choice in enumerate(event.get("choices") or [], start=1):
            self._note(f"  {number}. {one_line(str(choice))}")
        how = say("note.answer_here") if self.can_ask else say("note.answer_by", **self._named(event))
        self._note(how)
        self._terminal.status(None)

    def _named(self, event: JsonObject) -> dict[str, object]:
        return {"program": program_name(), "id": event.get("task_id")}

    def _input_received(self, event: JsonObject) -> None:
        self._note(f"› {one_line(_text_of(event, 'content'))}")

    def _model_retry(self, event: JsonObject) -> None:
        wait = event.get("wait_s")
        duration = formats.seconds(wait) if isinstance(wait, int | float) else "?"
        self._note(say("note.model_retry", code=_text_of(event, "code"), duration=duration), "warn")

    def _model_fallback(self, event: JsonObject) -> None:
        before, after, code = (one_line(_text_of(event, name)) for name in ("from", "to", "code"))
        self._note(say("note.model_fallback", before=before, after=after, code=code), "warn")

    def _context_compacted(self, event: JsonObject) -> None:
        self._note(say("note.compacted"))

    def _error(self, event: JsonObject) -> None:
        self._terminal.end_stream()
        self._release_held()
        self._show_error(event)

    def _show_error(self, error: JsonObject) -> None:
        message = one_line(_text_of(error, "message"))
        key = (_text_of(error, "code"), message)
        if key == self._last_error:
            return
        self._last_error = key
        mark = self._terminal.style("bad", "✗")
        self._terminal.progress(f"{mark} {message}  {self._terminal.style('dim', one_line(key[0]))}")
        for line in _text_of(error, "hint").splitlines():
            self._terminal.progress(f"  {line}")

    # the end

    def _task_finished(self, event: JsonObject) -> None:
        self.finished = event
        self._usage = event.get("usage") or self._usage
        self._terminal.status(None)
        self._terminal.end_stream()
        self._show_result(_text_of(event, "result"))
        if event.get("error"):
            self._show_error(event["error"])
        self._terminal.progress(self._terminal.style("dim", "─" * RULE_COLUMNS))
        self._terminal.progress(self._end_line(event))
        self._show_files(event)

    def _show_result(self, result: str) -> None:
        if self._terminal.is_joined:
            if result.strip() and result.strip() != self._last_text.strip():
                self._terminal.result(result)
            return
        if self._held is not None and self._held.strip() == result.strip():
            self._held = None
        self._release_held()
        if self._last_output.strip() and self._last_output.strip() not in result:
            self._terminal.result(self._last_output)
        if result.strip():
            self._terminal.result(result)

    def _end_line(self, event: JsonObject) -> str:
        status = _text_of(event, "status")
        style, mark = MARKS.get(status, ("dim", "•"))
        elapsed = formats.seconds_between(self._started_at, event.get("at"))
        ending = say(f"end.{status}") if status in MARKS else status
        timed = ending if elapsed is None else say("end.in", ending=ending, duration=formats.seconds(elapsed))
        parts = [self._terminal.style(style, f"{mark} {timed}")]
        if self._steps:
            parts.append(say("end.step" if self._steps == 1 else "end.steps", count=self._steps))
        return " · ".join([*parts, *_usage_parts(self._usage)])

    def _show_files(self, event: JsonObject) -> None:
        files = event.get("files") or []
        total = event.get("files_total", len(files))
        task_id = event.get("task_id")
        label, zip_command = say("label.files"), f"{program_name()} files zip {task_id}"
        for number, file in enumerate(files[:FILES_SHOWN]):
            path = one_line(_text_of(file, "path"))
            how = f"{program_name()} files get {task_id} {shlex.quote(path)}"
            if len(files) == 1:
                how += f" · {zip_command}"
            entry = f"{path} {formats.size(int(file.get('size') or 0))}"
            self._terminal.progress(f"  {label if number == 0 else ' ' * cell_width(label)}  {entry}     {how}")
        if total > FILES_SHOWN:
            self._terminal.progress(f"  {say('files.more', count=total - FILES_SHOWN)}")
        if len(files) > 1:
            self._terminal.progress(f"  {say('files.all')}  {zip_command}")


def _usage_parts(usage: JsonObject) -> list[str]:
    read, written, cost = (usage.get(name) for name in ("input_tokens", "output_tokens", "cost_usd"))
    if read is None and written is None:
        tokens = say("usage.tokens_unknown")
    else:
        shown = [say("usage.unknown") if count is None else f"{count:,}" for count in (read, written)]
        tokens = say("usage.tokens", read=shown[0], written=shown[1])
    return [tokens, say("usage.cost_unknown") if cost is None else f"${cost:.4f}"]


def _text_of(event: JsonObject, name: str) -> str:
    """A text of the event, safe to print."""
    value = event.get(name)
    return "" if value is None else plain(str(value))


def _title(event: JsonObject) -> str:
    """The call's one line, without the tool's name in front, which is shown anyway."""
    name, title = _text_of(event, "name"), one_line(_text_of(event, "title"))
    return title.removeprefix(name).strip()


def _overwritten(line: str) -> str:
    """What a terminal would show of a line in which carriage returns overwrite (progress bars)."""
    return next((part for part in reversed(line.split("\r")) if part), "")
