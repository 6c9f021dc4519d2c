"""Open a sandbox, set bombs off in it, and print what was seen as JSON: to be run in a unit of systemd."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from beray.server.sandbox.base import Limits
from tests.support.sandbox_cases import Box, open_box
from tests.support.waiting import until

LIMITS = Limits(memory_bytes=256 << 20, processes=40)

BOMB = """
import os, signal
for _ in range(10):
    if os.fork() == 0:
        taken = bytearray(100 << 20)
        taken[::4096] = b"1" * len(taken[::4096])
        signal.pause()
signal.pause()
"""
FORKS = """
import os, signal
forked = 0
try:
    while forked < 400:
        if os.fork() == 0:
            signal.pause()
        forked += 1
except OSError:
    pass
print(forked)
"""


def group_of(pid: int | str) -> str:
    """Its group of version 2."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next(line.removeprefix("0::") for line in lines if line.startswith("0::"))


def fork_server_of(box: Box) -> int:
    pid = box.sandbox.fork_server_pid
    assert pid is not None
    return pid


async def look(box: Box) -> dict[str, Any]:
    """Ends the fork server once, to see where the next one is."""
    first = fork_server_of(box)
    seen: dict[str, Any] = {
        "rows": {row.name: [row.is_confined, row.note] for row in box.capabilities.confinements},
        "fork_server": group_of(first),
        "environment": Path(f"/proc/{first}/environ").read_text().replace("\0", " ").strip(),
        "memory_bomb": (await box.py(BOMB, limits=LIMITS)).exit.reason,
        "forked": int((await box.py(FORKS, limits=LIMITS)).stdout),
        "processes": LIMITS.processes,
    }
    os.kill(first, signal.SIGKILL)
    await until(lambda: Path(f"/proc/{first}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z", what="its end")
    assert (await box.run("true")).code == 0
    return seen | {"second_fork_server": group_of(fork_server_of(box)), "server": group_of("self")}


async def main(data_dir: str) -> None:
    unit = group_of("self")
    backend = "landlock" if os.geteuid() == 0 else "bubblewrap"
    async with open_box(backend, Path(data_dir)) as box:
        print(json.dumps(await look(box) | {"unit": unit}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
