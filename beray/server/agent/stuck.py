"""Notices a model that goes round in circles: the same call with the same result, again and again.

A call is known by its tool, its arguments and its result. What changes on its own is left out of the result: how long
a command took or, in the background, has run, and in an error every span of time. So polling counts as progress as long
as what it prints changes.

A circle is one call again and again, or two or three that follow each other in turn. The model is warned once for each;
if it goes on in it, the run ends as `stuck`. Only what it calls after a request that held the warning counts for that:
one answer may hold any number of equal calls, made before the model could learn anything from the first.
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
        cycles: Times that the same two or three calls follow each other before the warning.
        grace: Further rounds after the warning was told before the end.
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


LONGEST_CIRCLE: Final = 3  # calls; longer ones are left to the limits, for honest work looks like them


@dataclass
class Repeats:
    """The latest calls, as far as circles are seen in them; part of a run's memory.

    Attributes:
        recent: Fingerprints of the latest calls, oldest first.
        is_warned: The circle that goes on has its warning.
        is_told: That warning has been in a request.
        since_told: Calls by which the circle has gone on since then.
        warning: What the model is to be told with the next request.
        monologues: Answers in a row without a tool call that did not end the task.
    """

    recent: list[str] = field(default_factory=list)
    is_warned: bool = False
    is_told: bool = False
    since_told: int = 0
    warning: str | None = None
    monologues: int = 0

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Repeats":
        """As it was stored."""
        return cls(**{name: stored[name] for name in cls.__dataclass_fields__ if name in stored})

    def note_call(self, fingerprint: str, *, ok: bool, rules: StuckRules) -> tuple[Verdict, int]:
        """A call has ended; whether that is a circle, and how often it went round."""
        self.recent = [*self.recent, fingerprint][-LONGEST_CIRCLE * (rules.cycles + rules.grace) :]
        allowed = {1: rules.results if ok else rules.errors, 2: rules.cycles, 3: rules.cycles}
        rounds = {length: _rounds_at_end(self.recent, length) for length in allowed}
        length = max(allowed, key=lambda length: rounds[length] - allowed[length])
        times = rounds[length]
        if times < allowed[length]:
            self.is_warned, self.is_told, self.since_told = False, False, 0
            return "fine", 0
        if not self.is_warned:
            self.is_warned = True
            return "warn", times
        self.since_told += self.is_told
        return ("stuck" if self.since_told >= rules.grace * length else "fine"), times

    def note_monologue(self, rules: StuckRules) -> bool:
        """An answer neither called a tool nor ended the task; whether that happened too often."""
        self.monologues += 1
        return self.monologues >= rules.monologues

    def warn(self, name: str, args: Mapping[str, Any], times: int) -> None:
        """Have the model told that it repeats itself."""
        shown = json.dumps(args, ensure_ascii=False)
        self.warning = WARNING.format(times=times, what=f"{name} {shown[:200]}")

    def take_warning(self) -> str | None:
        """The warning, once, for the request that tells it."""
        warning, self.warning = self.warning, None
        self.is_told = self.is_told or (warning is not None and self.is_warned)
        return warning


_SPANS = re.compile(r"\b\d+(\.\d+)?\s?(ms|s|sec|secs|second|seconds|min|minutes)\b")
_HEADLINE = re.compile(r"\(\d+\.\d s\)|after \d+\.\d s")
_RUNNING = re.compile(r"^(bg-\d+: running), \d+ s", re.MULTILINE)


def fingerprint_of(name: str, args: Mapping[str, Any], result: str, *, ok: bool) -> str:
    """By what a call is known again."""
    headline, line_break, rest = result.partition("\n")
    told = _HEADLINE.sub("", headline) + line_break + rest
    if name == "background":
        told = _without_running_time(told, is_list=args.get("action") == "list")
    if not ok:
        told = _SPANS.sub("", told)
    content = json.dumps([name, args, told, ok], sort_keys=True, default=str)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _without_running_time(result: str, *, is_list: bool) -> str:
    """What the tool `background` tells; of a list each line is ours, else the first, and the command's own follow."""
    if is_list:
        return _RUNNING.sub(r"\1", result)
    headline, line_break, rest = result.partition("\n")
    return _RUNNING.sub(r"\1", headline) + line_break + rest


def _rounds_at_end(recent: list[str], length: int) -> int:
    """How often the latest `length` calls have been made in this order, one time after the other."""
    count = min(length, len(recent))
    while count < len(recent) and recent[-1 - count] == recent[-1 - count + length]:
        count += 1
    return count // length


def describe_stuck(stuck: Stuck, language: Language) -> TaskError:
    """What the task's `error` says."""
    if stuck.tool is None:
        message = text("stuck_monologue", language, times=stuck.times)
    else:
        message = text("stuck", language, tool=stuck.tool, times=stuck.times)
    return {"code": "stuck", "message": message, "hint": text("stuck_hint", language), "retryable": True}
