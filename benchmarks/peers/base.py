"""What a project beside BeRay is to a benchmark."""

from dataclasses import dataclass


class NotHere(Exception):
    """A peer can't be measured on this machine; says why."""


@dataclass(frozen=True)
class Peer:
    """A running server of it."""

    base_url: str
    pid: int
