"""How much of the network one task, and all together, may use at a time."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EgressLimits:
    """Bounds of the proxy; each connection costs the server two descriptors and 64 KiB at most.

    Attributes:
        task_connections: At the same time; further ones wait. Package managers and browsers open 6 to 50.
        all_connections: Of all tasks.
        task_lookups: Names one task can have looked up at the same time, so that slow ones don't stop the others'.
        head_seconds: To send a request.
        lookup_seconds: Resolvers try for 10 s by default; `lookup_seconds` includes the wait for a turn.
        connect_seconds: To be connected to one of the host's addresses.
        idle_seconds: Without a byte in either direction.
        most_seconds: A connection's whole life; a task's run has an hour by default.
        refusal_pause_seconds: A refused connection counts as one for so long, which bounds how often one can ask.
        log_lines: Connections of one command that are logged one by one; of the others only how many there were.
    """

    task_connections: int = 32
    all_connections: int = 256
    task_lookups: int = 2
    head_seconds: float = 10
    lookup_seconds: float = 15
    connect_seconds: float = 15
    idle_seconds: float = 300
    most_seconds: float = 3600
    refusal_pause_seconds: float = 0.1
    log_lines: int = 200
