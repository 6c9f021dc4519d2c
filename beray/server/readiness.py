"""What works and what doesn't, and how to mend it: the answer of GET /ready."""

from dataclasses import dataclass, field
from typing import Literal, TypedDict

State = Literal["ok", "starting", "failed"]


class Check(TypedDict):
    """One part of the service; `hint` says how to mend it, None when there is nothing to mend."""

    state: State
    hint: str | None


@dataclass
class Readiness:
    """The state of each part; ready when all are ok. A hint of a part that is ok is worth knowing, not wrong."""

    checks: dict[str, Check] = field(
        default_factory=lambda: {
            name: {"state": "starting", "hint": None} for name in ("database", "engine", "sandbox", "model")
        }
    )

    def set(self, name: str, state: State, hint: str | None = None) -> None:
        """Record the state of one part."""
        self.checks[name] = {"state": state, "hint": hint}

    @property
    def status(self) -> Literal["ready", "starting", "unavailable"]:
        """The service as a whole."""
        states = {check["state"] for check in self.checks.values()}
        if "failed" in states:
            return "unavailable"
        return "starting" if "starting" in states else "ready"
