"""What a run remembers from turn to turn, and over a crash: where it is, what it used, what its tools left behind."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal

from beray.protocol.types import ModelKind, TaskError, Usage
from beray.server.agent.stuck import Repeats
from beray.server.db.agent_runs import CheckpointRow
from beray.server.db.usage import NAMES, UsedSums

Phase = Literal["request", "tools"]
"""What comes next: ask the model, or run the tools it asked for."""


@dataclass(frozen=True)
class Estimate:
    """What a request may use, as far as can be told without its answer; for limits only.

    Attributes:
        cost_usd: 0 if the model has no known price.
        is_free: It costs nothing for certain.
    """

    tokens: int = 0
    cost_usd: float = 0.0
    is_free: bool = False


NOTHING: Final = Estimate()


@dataclass
class Used:
    """What a run has used so far; never reset, by a crash neither.

    A request is counted before it is sent, so that no stop and no crash makes one that cost nothing. What it uses is
    estimated until its answer has come whole. Where that never comes, or tells nothing, limits go on counting the
    estimate, and people are told that it is not known.

    Attributes:
        requests: That were made, answered or not.
        cached_input_tokens: Of the input tokens, those that the provider had cached.
        cost_usd: Of the answers whose cost is known.
        unpriced: Requests whose cost is not known.
        elapsed_ms: Time spent in finished parts of turns; the time between two attempts doesn't count.
        is_measured: The tokens of every request are known.
        estimated_tokens: Of the requests whose tokens are not known.
        estimated_cost_usd: Of the requests whose cost is not known.
        has_untold: An answer came whole, and what it cost can't be known: nor could it of the next.
        under_way: The request that has been counted and not been answered.
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
    estimated_tokens: int = 0
    estimated_cost_usd: float = 0.0
    has_untold: bool = False
    under_way: Estimate | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Used":
        """As it was stored; a newer version may have stored more."""
        known = {each.name for each in fields(cls)}
        used = cls(**{name: value for name, value in stored.items() if name in known})
        under_way = stored.get("under_way")
        used.under_way = None if under_way is None else Estimate(**under_way)
        return used

    def send(self, estimate: Estimate) -> None:
        """Count a request that is about to be made."""
        self.requests += 1
        self.under_way = estimate

    def refuse(self) -> None:
        """The request under way was refused before a model saw it, which costs nothing."""
        self.under_way = None

    def lose(self, seen: Estimate = NOTHING) -> None:
        """The request under way, if there is one, gets no answer; `seen` is what had come of one."""
        if self.under_way is None:
            return
        self.unpriced += not self.under_way.is_free
        self.is_measured = False
        self.estimated_tokens += self.under_way.tokens + seen.tokens
        self.estimated_cost_usd += self.under_way.cost_usd + seen.cost_usd
        self.under_way = None

    def answer(self, told: UsedSums, *, cost_usd: float | None) -> None:
        """The request under way was answered; `told` has its tokens, `cost_usd` is None where that can't be known."""
        self.input_tokens += told.input_tokens
        self.cached_input_tokens += told.cached_input_tokens
        self.output_tokens += told.output_tokens
        self.under_way = None
        if cost_usd is None:
            self.unpriced += 1
            self.has_untold = True
        else:
            self.cost_usd += cost_usd

    def answer_untold(self, seen: Estimate) -> None:
        """The request under way was answered by `seen`, which does not say what it used."""
        assert self.under_way is not None, "a request is counted before it is made"
        self.has_untold = self.has_untold or not self.under_way.is_free
        self.lose(seen)

    @property
    def sums(self) -> UsedSums:
        """What is counted for limits and for the day: with what is under way."""
        sums = UsedSums(**{name: getattr(self, name) for name in NAMES})
        if self.under_way is None:
            return sums
        return replace(
            sums,
            unpriced=sums.unpriced + (not self.under_way.is_free),
            estimated_tokens=sums.estimated_tokens + self.under_way.tokens,
            estimated_cost_usd=sums.estimated_cost_usd + self.under_way.cost_usd,
        )

    def plus(self, other: "Used") -> "Used":
        """Both together."""
        numbers = {name: getattr(self, name) + getattr(other, name) for name in NAMES}
        return Used(**numbers, is_measured=self.is_measured and other.is_measured)

    def shown(self, kind: ModelKind) -> Usage:
        """The wire's `usage`; rules have no tokens and cost, and what a model's server doesn't tell is not known."""
        has_answer = self.input_tokens + self.output_tokens > 0
        is_known = kind == "model" and self.is_measured and has_answer
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
        before.used.lose()
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
        return CheckpointRow(
            self.turn, self.messages, json.dumps(vars(self.used), default=vars), json.dumps(state, default=vars)
        )

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
