"""Processor time of a server with all that it starts."""

import os
from collections import defaultdict
from pathlib import Path
from typing import Final

TICKS: Final = os.sysconf("SC_CLK_TCK")


def tree_cpu_seconds(pid: int) -> float:
    """Processor time that a process and its descendants have used so far, those that have ended too; steps of 10 ms."""
    spent, children = _look()
    below, total = [pid], 0.0
    while below:
        process = below.pop()
        total += spent.get(process, 0.0)
        below += children[process]
    return total


def _look() -> tuple[dict[int, float], dict[int, list[int]]]:
    """Of every process its time, with that of the children it has waited for, and the children it has."""
    spent: dict[int, float] = {}
    children: dict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if not folder.name.isdecimal():
            continue
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            continue
        spent[int(folder.name)] = sum(map(int, fields[11:15])) / TICKS
        children[int(fields[1])].append(int(folder.name))
    return spent, children
