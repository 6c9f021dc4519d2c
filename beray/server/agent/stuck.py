"""Notices a model that goes round in circles: the same call with the same result, again and again.

A call is known by its tool, its arguments and its result. What changes on its own is left out of the result: how long
a command took and, in an error, every span of time. So polling counts as progress as long as what it prints changes.

The model is warned once for each circle; if it goes on in it, the run ends as `stuck`.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from beray.protocol.types import TaskError
from beray.server.messages import Language, text

Verdict = Literal["fine", "warn", "stuck"]


@dataclass(frozen=True)
class StuckRules:
    """When a run counts as stuck (defaults: what peers use, and twice a warning's room).

    Attributes:
        errors: Identical failures in a row before the warning.
        results: Identical results in a row before the warning.
        cycles: Times that two calls alternate before the warning.
        grace: Further repetitions after the warning before the end.
        monologues: Answers in a row that neither call a tool nor end the task.
    """

    errors: int = 3
    results: int = 4
    cycles: int = 6
    grace: int = 2
    monologues: int = 3


class Stuck(Exception):
    """The run goes round in circles; `tool` is what it keeps calling, None if it calls none."""

    def __init__(self, tool: str | None, times: int) -> None:
        super().__init__(f"{tool}: {times} times")
        self.tool = tool
        self.times = times


WARNING: Final = (
    "You have made the same call {times} times ({what}), and nothing changed. Stop repeating it: look at what it told"
    " you, and try a different way, or end the task by saying what is done, what is not, and what stands in the way. If"
    " you go on like this, the task is ended as stuck."
)


@dataclass
class Repeats:
    """The latest calls, as far as circles are seen in them; part of a run's memory.

    Attributes:
        recent: Fingerprints of the latest calls, oldest first.
        is_warned: The model has been warned of the circle that goes on.
        warning: What the model is to be told with the next request.
        monologues: Answers in a row without a tool call that did not end the task.
    """

    recent: list[str] = field(default_factory=list)
    is_warned: bool = False
    warning: str | None = None
    monologues: int = 0

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Repeats":
        """As it was stored."""
        return cls(**{name: stored[name] for name in cls.__dataclass_fields__ if name in stored})

    def note_call(self, fingerprint: str, *, ok: bool, rules: StuckRules) -> tuple[Verdict, int]:
        """A call has ended; whether that is a circle, and how often it went round."""
        self.monologues = 0
        self.recent = [*self.recent, fingerprint][-2 * (rules.cycles + rules.grace) :]
        same = _same_at_end(self.recent)
        cycles = _cycles_at_end(self.recent)
        over = max(same - (rules.results if ok else rules.errors), cycles - rules.cycles)
        if over < 0:
            self.is_warned = False
            return "fine", 0
        times = max(same, cycles)
        if self.is_warned and over >= rules.grace:
            return "stuck", times
        if self.is_warned:
            return "fine", times
        self.is_warned = True
        return "warn", times

    def note_monologue(self, rules: StuckRules) -> bool:
        """An answer neither called a tool nor ended the task; whether that happened too often."""
        self.monologues += 1
        return self.monologues >= rules.monologues

    def warn(self, name: str, args: Mapping[str, Any], times: int) -> None:
        """Have the model told that it repeats itself."""
        shown = json.dumps(args, ensure_ascii=False)
        self.warning = WARNING.format(times=times, what=f"{name} {shown[:200]}")

    def take_warning(self) -> str | None:
        """The warning, once."""
        warning, self.warning = self.warning, None
        return warning


_SPANS = re.compile(r"\b\d+(\.\d+)?\s?(ms|s|sec|secs|second|seconds|min|minutes)\b")
_HEADLINE = re.compile(r"\(\d+\.\d s\)|after \d+\.\d s")


def fingerprint_of(name: str, args: Mapping[str, Any], result: str, *, ok: bool) -> str:
    """By what a call is known again."""
    headline, line_break, rest = result.partition("\n")
    told = _HEADLINE.sub("", headline) + line_break + rest
    if not ok:
        told = _SPANS.sub("", told)
    content = json.dumps([name, args, told, ok], sort_keys=True, default=str)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _same_at_end(recent: list[str]) -> int:
    """How many of the latest are the same."""
    count = 0
    for fingerprint in reversed(recent):
        if fingerprint != recent[-1]:
            break
        count += 1
    return count


def _cycles_at_end(recent: list[str]) -> int:
    """How often the latest two, different ones, have followed each other."""
    if len(recent) < 2 or recent[-1] == recent[-2]:
        return 0
    count = 0
    for index in range(len(recent) - 1, -1, -1):
        if recent[index] != recent[-1 - (len(recent) - 1 - index) % 2]:
            break
        count += 1
    return count // 2


def describe_stuck(stuck: Stuck, language: Language) -> TaskError:
    """What the task's `error` says."""
    if stuck.tool is None:
        message = text("stuck_monologue", language, times=stuck.times)
    else:
        message = text("stuck", language, tool=stuck.tool, times=stuck.times)
    return {"code": "stuck", "message": message, "hint": text("stuck_hint", language), "retryable": True}
