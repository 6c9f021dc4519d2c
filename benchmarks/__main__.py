"""All benchmarks, one after the other: `make bench`. With `--record`, README.md's table becomes what was found."""

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import LOCK_SECONDS, RESULTS, figure, most_seconds

BENCHMARKS: Final = (
    "agent",
    "console",
    "events",
    "engine",
    "files",
    "http",
    "memory",
    "replay",
    "sandbox",
    "sdk",
    "slow_reader",
    "soak",
    "sse",
    "start",
    "tasks",
)
README: Final = Path(__file__).parent / "README.md"
MARKED: Final = re.compile(r"(<!-- results -->\n).*?(<!-- end -->)", re.DOTALL)
END_SECONDS: Final = 30  # a benchmark that ran out of time ends its servers within this


def main() -> int:
    """Run them; the exit status is 1 if one could not be measured."""
    failed = [name for name in BENCHMARKS if not _run(name)]
    if failed:
        print(f"not measured: {', '.join(failed)}", file=sys.stderr)
    if "--record" in sys.argv[1:] and not failed:
        text = README.read_text(encoding="utf-8")
        README.write_text(MARKED.sub(lambda mark: f"{mark[1]}\n{table()}\n{mark[2]}", text), encoding="utf-8")
    return 1 if failed else 0


def _run(name: str) -> bool:
    print(f"== {name}", flush=True)
    with subprocess.Popen([sys.executable, "-m", f"benchmarks.{name}"], start_new_session=True) as process:
        try:
            return process.wait(LOCK_SECONDS + most_seconds(name) + END_SECONDS) == 0
        finally:
            if process.poll() is None:  # out of time, or Ctrl-C: nothing it started may stay
                os.killpg(process.pid, signal.SIGKILL)


def table() -> str:
    """What was found, as Markdown."""
    results = [json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in BENCHMARKS]
    head = "| what | BeRay's | the other's | ratio | goal | command |\n| --- | --- | --- | --- | --- | --- |\n"
    rows = [_row(result["name"], found) for result in results for found in result["found"]]
    return head + "".join(rows) + "\n" + _conditions(results)


def _row(name: str, found: dict[str, Any]) -> str:
    unit, goal = found["unit"], "–"
    if found["goal"] is not None:
        goal = f"{found['goal']}: {'met' if found['is_met'] else '**falls short**'}"
    ratio = "–" if found["ratio"] is None else f"{found['ratio']:.2f}"
    cells = (found["what"], _side(found["ours"], unit), _side(found["other"], unit), ratio, goal, f"`{name}`")
    return f"| {' | '.join(cells)} |\n"


def _side(side: dict[str, Any] | None, unit: str) -> str:
    return "–" if side is None else f"{figure(side['figure'])} {unit} ({side['name']})"


def _conditions(results: list[dict[str, Any]]) -> str:
    loads = ", ".join(f"{result['name']} {result['machine']['load_1m']:g}" for result in results)
    packages = dict.fromkeys(name for result in results for name in result["versions"])
    shown = ", ".join(f"{name} {_agreed(_versions_of(name, results))}" for name in packages)
    return (
        f"Measured {_agreed({result['name']: _place(result) for result in results})}.\n"
        f"Load of the machine over the last minute when each ended (what ran beside it shows here): {loads}.\n"
        f"Versions: {shown}.\n"
        f"{_skipped(results)}"
    )


def _place(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return (
        f"{result['at'][:10]} on {machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, "
        f"Linux {machine['kernel']}, {machine['filesystem']}"
    )


def _versions_of(package: str, results: list[dict[str, Any]]) -> dict[str, str]:
    return {result["name"]: result["versions"][package] for result in results if package in result["versions"]}


def _agreed(values: dict[str, str]) -> str:
    """What most benchmarks have; those that have another value are named with it."""
    (most, _), *others = Counter(values.values()).most_common()
    told = [f"{', '.join(name for name in values if values[name] == value)}: {value}" for value, _ in others]
    return f"{most} ({'; '.join(told)})" if told else most


def _skipped(results: list[dict[str, Any]]) -> str:
    """Sides that were not there."""
    lines = [f"{side}: {reason}" for result in results for side, reason in result["skipped"].items()]
    return f"Not measured: {'; '.join(dict.fromkeys(lines))}.\n" if lines else ""


if __name__ == "__main__":
    sys.exit(main())
