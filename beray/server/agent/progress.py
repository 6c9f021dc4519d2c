"""What a run remembers from turn to turn, and over a crash: where it is, what it used, what its tools left behind."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from beray.protocol.types import ModelKind, TaskError, Usage
from beray.server.agent.stuck import Repeats
from beray.server.db.agent_runs import CheckpointRow
from beray.server.db.usage import NAMES, UsedSums

Phase = Literal["request", "tools"]
"""What comes next: ask the model, or run the tools it asked for."""


@dataclass
class Used:
    """What a run has used so far; never reset, by a crash neither.

    Attributes:
        cached_input_tokens: Of the input tokens, those that the provider had cached.
        cost_usd: Of the answers whose cost is known.
        unpriced: Answers whose cost is not known.
        elapsed_ms: Time spent in finished parts of turns; the time between two attempts doesn't count.
        is_measured: Every answer told its tokens.
    """

    requests: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0
    elapsed_ms: int = 0
    is_measured: bool = True

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Used":
        """As it was stored; a newer version may have stored more."""
        known = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in stored.items() if name in known})

    @property
    def sums(self) -> UsedSums:
        """What is counted for the day."""
        return UsedSums(**{name: getattr(self, name) for name in NAMES})

    def plus(self, other: "Used") -> "Used":
        """Both together."""
        numbers = {name: getattr(self, name) + getattr(other, name) for name in NAMES}
        return Used(**numbers, is_measured=self.is_measured and other.is_measured)

    def shown(self, kind: ModelKind) -> Usage:
        """The wire's `usage`; rules have no tokens and cost, and what a model's server doesn't tell is not known."""
        is_known = kind == "model" and self.is_measured and self.requests > 0  # what a failed request cost nobody says
        return {
            "requests": self.requests,
            "tool_calls": self.tool_calls,
            "input_tokens": self.input_tokens if is_known else None,
            "cached_input_tokens": self.cached_input_tokens if is_known else None,
            "output_tokens": self.output_tokens if is_known else None,
            "cost_usd": round(self.cost_usd, 6) if is_known and self.unpriced == 0 else None,
        }


@dataclass
class Progress:
    """One run's memory.

    Attributes:
        turn: The turn `messages` lead into.
        messages: The conversation, as the model library's JSON; empty: the run's first turn has not begun.
        used: What counts for the run's limits.
        earlier: What the task's earlier runs have used.
        phase: What comes next in this turn.
        cwd: The shell's folder, relative to the work_dir.
        env: Variables the shell's commands have exported.
        plan: Items of `update_plan`.
        background: Commands started in the background whose end the model has not been told of: id and command.
        background_count: How many have been started; numbers them.
        disk_bytes: What the task's folders held when its last command ended, if that is known.
        overfills: How many commands have written on though the task's files were over their limit already.
        message_count: Messages begun; numbers them.
        open_messages: Ids of messages whose text was shown before the model's answer was whole.
        empty_answers: Answers in a row that held nothing.
        repeats: The latest calls, as far as circles are seen in them.
        measured: What the latest request and its answer were, in tokens and in bytes, if the provider has said so.
        summarised_to: Tokens that the conversation was left with by its latest summary.
        failed_models: Names of models that have failed for good in this run.
        final_text: What `finish` was given.
        outcome: How the run ended, once it has.
        refused: How it would have ended, had the user not said something in the last moment, until the model has
            answered that.
    """

    turn: int = 1
    messages: bytes = b"[]"
    used: Used = field(default_factory=Used)
    earlier: Used = field(default_factory=Used)
    phase: Phase = "request"
    cwd: str = "."
    env: dict[str, str] = field(default_factory=dict)
    plan: list[dict[str, str]] = field(default_factory=list)
    background: dict[str, str] = field(default_factory=dict)
    background_count: int = 0
    disk_bytes: int | None = None
    overfills: int = 0
    message_count: int = 0
    open_messages: list[str] = field(default_factory=list)
    empty_answers: int = 0
    repeats: Repeats = field(default_factory=Repeats)
    measured: list[int] | None = None
    summarised_to: int = 0
    failed_models: list[str] = field(default_factory=list)
    final_text: str | None = None
    outcome: dict[str, Any] | None = None
    refused: dict[str, Any] | None = None

    @classmethod
    def from_row(cls, row: CheckpointRow) -> "Progress":
        """What `row` remembers."""
        known = {each.name for each in fields(cls)}  # a newer version may have stored more
        state = {name: value for name, value in json.loads(row.state).items() if name in known}
        state["repeats"] = Repeats.from_json(state.get("repeats", {}))
        state["earlier"] = Used.from_json(state.get("earlier", {}))
        return cls(turn=row.turn, messages=row.messages, used=Used.from_json(json.loads(row.usage)), **state)

    @classmethod
    def after(cls, row: CheckpointRow) -> "Progress":
        """What a further run begins with: what the one before it has left behind."""
        before = cls.from_row(row)
        return cls(
            earlier=before.earlier.plus(before.used),
            cwd=before.cwd,
            env=before.env,
            plan=before.plan,
            background=before.background,
            background_count=before.background_count,
            disk_bytes=before.disk_bytes,
            measured=before.measured,
            summarised_to=before.summarised_to,
        )

    def usage(self, kind: ModelKind) -> Usage:
        """What the task has used in all its runs, as the wire shows it."""
        return self.earlier.plus(self.used).shown(kind)

    def to_row(self) -> CheckpointRow:
        """As it is stored."""
        state = {name: value for name, value in vars(self).items() if name not in {"turn", "messages", "used"}}
        return CheckpointRow(self.turn, self.messages, json.dumps(vars(self.used)), json.dumps(state, default=vars))

    def go_on(self) -> None:
        """Let the next turn follow, though this one was to be the last."""
        self.refused, self.outcome = self.outcome, None
        self.final_text = None
        self.turn += 1
        self.phase = "request"

    def end(self, *, result: str | None = None, error: TaskError | None = None) -> None:
        """Remember how the run ended."""
        self.outcome = {"result": result, "error": error}

    def end_as_refused(self) -> bool:
        """End as was refused, if the model could not answer what came in the last moment: what it did is done.

        The message stays in the conversation, so a further run begins with it.
        """
        if self.refused is None:
            return False
        self.outcome, self.refused = self.refused, None
        return True
