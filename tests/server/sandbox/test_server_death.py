"""A server that is killed leaves no process of its commands."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sandbox_cases import new_marker, processes_with
from tests.support.waiting import wait_until

SERVER = """
import asyncio, sys
from pathlib import Path
from tests.support.sandbox_cases import open_box, read_line

async def main(backend, data_dir, marker):
    async with open_box(backend, Path(data_dir)) as box:
        one = f"setsid sh -c 'trap : TERM HUP; sleep 1000; : {marker}' &"
        process = await box.start("bash", "-c", f"{one * 3} echo up; sleep 1000")
        await read_line(process)
        print("up", box.keeper_pid, flush=True)
        await process.wait()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("bubblewrap", marks=pytest.mark.needs("bubblewrap")),
        pytest.param("landlock", marks=pytest.mark.needs("landlock")),
        pytest.param("container", marks=pytest.mark.needs("container")),
        "none",
    ],
)
def test_attack_13_a_killed_server_leaves_no_process(backend: str, service_dir: Path) -> None:
    marker = new_marker()
    command = [sys.executable, "-c", SERVER, backend, str(service_dir / f"death-{backend}"), marker]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        word, keeper = server.stdout.readline().split()
        assert word == "up"
        assert wait_until(lambda: len(processes_with(marker)) > 3, what="the command's processes")

        server.send_signal(signal.SIGKILL)

    wait_until(lambda: not processes_with(marker), seconds=5, what="the end of all processes")
    wait_until(lambda: not Path(f"/proc/{keeper}").exists() or _is_zombie(keeper), what="the end of what kept them")


def _is_zombie(pid: str) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
