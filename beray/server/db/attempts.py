"""Who may write to a task: its current attempt at its current run, and nobody else who works on it."""

from typing import NamedTuple


class Attempt(NamedTuple):
    """One attempt at one run of a task. The numbers of attempts begin anew with each run, so neither tells alone."""

    run: int
    number: int
