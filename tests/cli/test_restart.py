"""A real server that is killed while it is watched."""

import json
import socket
from collections.abc import Callable
from pathlib import Path

from tests.support.command_line import CommandLine
from tests.support.server import ServerProcess
from tests.support.waiting import wait_until

GOAL = "```bash\necho begun\nsleep 300\n```"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_watching_goes_on_through_a_killed_server_and_each_event_comes_once(
    service_dir: Path, home: Path, make_server: Callable[..., ServerProcess]
) -> None:
    server = make_server()
    server.port = free_port()
    server.start()
    token = server.register("watcher@example.com")
    beray = CommandLine(home, {"BERAY_BASE_URL": server.base_url, "BERAY_TOKEN": token})
    process = beray.popen("run", "--events", GOAL)
    wait_until(lambda: "tool.output" in beray("show", "1", "--json").out, what="the running command")

    server.kill()
    server.start()
    out, err = process.communicate(timeout=90)

    events = [json.loads(line) for line in out.splitlines()]
    assert "reconnecting" in err.decode()
    assert "reconnected" in err.decode()
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "task.finished"
    assert sum(event["type"] == "task.started" for event in events) == 2
    assert process.returncode == {"completed": 0, "failed": 3}[events[-1]["status"]]
