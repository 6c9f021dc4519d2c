"""The process that is forked for the servers of tests."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from beray import __version__
from tests.support.starter import starter
from tests.support.waiting import wait_until

ORPHANED = """
import os, sys
from pathlib import Path
from tests.support.starter import Starter
folder = Path(sys.argv[1])
environment = {**os.environ, "BERAY_MODEL": "rules"}
server = Starter().start(["serve", "--port", "0", "--data", str(folder)], environment, folder.with_suffix(".log"))
print(server.pid, flush=True)
os._exit(0)
"""


def test_exit_status_and_output_come_back(tmp_path: Path) -> None:
    log = tmp_path / "log"

    assert starter().start(["--version"], os.environ, log).wait(timeout=30) == 0
    assert starter().start(["serve", "--port", "many"], os.environ, log).wait(timeout=30) == 2
    assert f"beray {__version__}" in log.read_text()
    assert "--port" in log.read_text()


def test_signal_ends_only_the_process_it_is_for(tmp_path: Path) -> None:
    environment = {**os.environ, "BERAY_MODEL": "rules"}
    one, other = (
        starter().start(["serve", "--port", "0", "--data", str(tmp_path / name)], environment, tmp_path / f"{name}.log")
        for name in ("one", "other")
    )
    with pytest.raises(subprocess.TimeoutExpired):
        one.wait(timeout=0)

    one.kill()

    assert one.wait(timeout=30) == -signal.SIGKILL
    assert other.poll() is None
    other.kill()
    other.wait(timeout=30)
    one.kill()  # long dead: nobody is hit


def test_servers_end_with_the_process_that_wanted_them(service_dir: Path) -> None:
    program = [sys.executable, "-c", ORPHANED, str(service_dir / "orphaned")]

    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)

    wait_until(lambda: not Path(f"/proc/{int(done.stdout)}").exists(), what="the orphaned server to end")
