"""`beray` with no server named: the embedded one, real and in the background."""

import contextlib
import json
import os
import signal
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beray.cli.serve import local_user
from tests.support.command_line import CommandLine
from tests.support.server import CODE, ServerProcess
from tests.support.waiting import wait_until

HELLO = "写一个打印 hello world 的 Python 脚本"
SLEEP = "```bash\necho begun\nsleep 300\n```"


@pytest.fixture
def home(service_dir: Path) -> Iterator[Path]:
    """A home that a sandbox uid can pass, and the end of the servers started from it."""
    folder = Path(tempfile.mkdtemp(dir=service_dir))
    folder.chmod(0o711)
    yield folder
    for server_file in folder.glob("*/server.json"):
        end_server(server_file.parent)


@pytest.fixture
def beray(home: Path) -> CommandLine:
    """`beray` of somebody who is logged in nowhere and has no model."""
    return CommandLine(home, {"BERAY_MODEL_PROBE": "0", "BERAY_RATE_LIMITS": "0"})


def server_file(data_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((data_dir / "server.json").read_text())
    return content


def end_server(data_dir: Path) -> None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        pid = server_file(data_dir)["pid"]
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not is_running(pid), what=f"the end of the server {pid}")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] != b"Z"
    except OSError:
        return False


def test_one_command_runs_a_task_and_others_find_it_later(beray: CommandLine, home: Path) -> None:
    first = beray("run", HELLO)
    pid = server_file(home / "data")["pid"]
    again = beray("run", HELLO)

    assert (first.status, again.status) == (0, 0), first.err + again.err
    assert "hello world" in first.out
    assert "  │ hello world\n" in first.err
    assert "not an AI model" in first.err
    assert "OPENAI_API_KEY" in first.err
    assert "embedded server started" in first.err
    assert "embedded server started" not in again.err
    assert server_file(home / "data")["pid"] == pid
    assert stat.S_IMODE((home / "data" / "server.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((home / "data" / "server.log").stat().st_mode) == 0o600
    refused = beray("run", "写一首关于宇宙的诗。")
    assert (refused.status, refused.out) == (3, "")
    assert "rules_unsupported" in refused.err
    assert beray("ps", "-q").out == "3\n2\n1\n"
    assert beray("files", "cat", "1", "hello.py").out.strip() == 'print("hello world")'
    assert beray("whoami").status == 0
    doctor = beray("doctor")
    assert doctor.status == 0, doctor.out


def test_two_commands_at_once_make_one_server(beray: CommandLine, home: Path) -> None:
    processes = [beray.popen("run", HELLO) for _ in range(3)]
    ends = [process.communicate(timeout=100) for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0], ends
    assert sum(b"embedded server started" in err for _, err in ends) == 1
    assert beray("ps", "-q").out == "3\n2\n1\n"


def test_asking_where_nothing_ever_ran_starts_nothing(beray: CommandLine, home: Path) -> None:
    assert beray("ps").status == 0
    assert beray("show", "1").status == 5
    assert beray("files", "ls", "1").status == 5

    assert not (home / "data").exists()


def test_ctrl_c_leaves_the_task_running_and_a_stop_ends_it(beray: CommandLine, home: Path) -> None:
    terminal = beray.on_terminal("run", SLEEP)
    try:
        terminal.read_until("│ begun")
        terminal.type("\x03")
        status = terminal.end()
    finally:
        terminal.close()

    running = json.loads(beray("show", "1", "--json").out)["status"]
    stopped = beray("stop", "1")
    watched = beray("watch", "1")

    assert status == 130
    assert "still running" in terminal.shown
    assert running == "running"
    assert stopped.status == 0
    assert watched.status == 8


def test_new_settings_replace_an_idle_server_and_wait_for_a_busy_one(beray: CommandLine, home: Path) -> None:
    assert beray("run", HELLO).status == 0
    first = server_file(home / "data")["pid"]

    with_setting = beray("run", "-d", SLEEP, BERAY_MAX_REQUESTS="7")
    second = server_file(home / "data")["pid"]
    while_busy = beray("run", HELLO, BERAY_MAX_REQUESTS="8")
    only_looking = beray("ps", BERAY_MAX_REQUESTS="9")

    assert "the settings have changed" in with_setting.err
    assert second != first
    assert not is_running(first)
    assert "at work and keeps the settings" in while_busy.err
    assert while_busy.status == 0
    assert "settings" not in only_looking.err
    assert server_file(home / "data")["pid"] == second


def test_server_that_ended_or_was_killed_is_started_again(beray: CommandLine, home: Path) -> None:
    """After a kill `server.json` is stale: its pid is dead, and another program may have the port."""
    assert beray("run", HELLO).status == 0
    end_server(home / "data")

    listed = beray("ps", "-q")
    pid = server_file(home / "data")["pid"]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid))
    again = beray("run", HELLO)

    assert (listed.out, again.status) == ("1\n", 0)
    assert "embedded server started" in listed.err
    assert "embedded server started" in again.err
    assert server_file(home / "data")["pid"] != pid


def test_server_ends_itself_when_nobody_needs_it(beray: CommandLine, home: Path) -> None:
    assert beray("run", HELLO, BERAY_IDLE_EXIT_SECONDS="1").status == 0
    pid = server_file(home / "data")["pid"]

    wait_until(lambda: not is_running(pid), seconds=30, what="the idle server's end")
    assert not (home / "data" / "server.json").exists()


def test_server_that_can_not_start_shows_why(beray: CommandLine, home: Path) -> None:
    ended = beray("run", HELLO, BERAY_MODEL="no-such-provider:x")

    assert ended.status == 7
    assert "✗ The embedded server ended while it was starting" in ended.err
    assert "no-such-provider" in ended.err
    assert str(home / "data" / "server.log") in ended.err
    assert "Traceback" not in ended.err


def test_data_folder_that_can_not_be_had_is_named(beray: CommandLine, home: Path) -> None:
    (home / "file").write_text("")

    ended = beray("run", HELLO, BERAY_DATA_DIR=str(home / "file" / "data"))

    assert ended.status == 1
    assert str(home / "file" / "data") in ended.err
    assert "BERAY_DATA_DIR" in ended.err


def test_registering_with_the_embedded_server_says_where_the_code_is(beray: CommandLine, home: Path) -> None:
    assert beray("run", HELLO).status == 0

    terminal = beray.on_terminal("register", "--email", "ada@example.com")
    try:
        terminal.read_until("outbox")
        terminal.read_until("Code: ")
        mail = max((home / "data" / "outbox").glob("*.eml"), key=lambda path: path.stat().st_mtime_ns)
        code = CODE.search(mail.read_text().rpartition("\n\n")[2]) or CODE.search(mail.read_text())
        assert code is not None
        terminal.type(f"{code[1]}\n")
        for question in ("New password", "Once more"):
            terminal.read_until(question)
            terminal.type("correct horse\n")
        status = terminal.end()
    finally:
        terminal.close()

    assert status == 0, terminal.shown
    assert beray("whoami").out == "ada@example.com\n"
    assert beray("ps", "-q").out == ""  # the local user's tasks are not hers
    end_server(home / "data")
    assert beray("whoami").out == "ada@example.com\n"  # the next start has another port
    assert beray("logout").status == 0
    assert beray("ps", "-q").out == "1\n"


def test_operators_own_server_is_used_by_run(beray: CommandLine, home: Path) -> None:
    server = ServerProcess(home / "data", local_user=1).start()
    try:
        ended = beray("run", HELLO)
    finally:
        status = server.stop()

    assert (ended.status, status) == (0, 0), ended.err + server.log_text()
    assert "started" not in ended.err


def test_operators_server_without_a_local_user_asks_for_a_login(beray: CommandLine, server: ServerProcess) -> None:
    ended = beray("run", HELLO, BERAY_DATA_DIR=str(server.data_dir))

    assert ended.status == 4
    assert f"beray login --server {server.base_url}" in ended.err


def test_serve_on_loopback_makes_a_local_user_unless_told_otherwise() -> None:
    assert local_user({}, None) is True
    assert local_user({}, "localhost") is True
    assert local_user({}, "0.0.0.0") is None
    assert local_user({"BERAY_HOST": "0.0.0.0"}, None) is None
    assert local_user({"BERAY_LOCAL_USER": "0"}, None) is None


def test_idle_background_server_makes_way_for_the_operators(beray: CommandLine, home: Path) -> None:
    assert beray("run", HELLO).status == 0
    pid = server_file(home / "data")["pid"]

    process = beray.popen("serve", "--port", "0", "--data", str(home / "data"))
    wait_until(lambda: (home / "data" / "server.json").exists() and server_file(home / "data")["pid"] == process.pid)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    assert f"(process {pid}) has been ended to make way" in err.decode()
    assert not is_running(pid)


@pytest.mark.parametrize(
    ("variables", "what"),
    [
        ({"BERAY_MAX_REQUESTS": "none"}, "BERAY_MAX_REQUESTS='none' cannot be used"),
        ({"BERAY_MODEL": "nonsense"}, "nonsense"),
    ],
)
def test_wrong_setting_stops_serve_with_its_name(beray: CommandLine, variables: dict[str, str], what: str) -> None:
    ended = beray("serve", "--port", "0", **variables)

    assert ended.status == 2
    assert what in ended.err.splitlines()[0]
    assert "Traceback" not in ended.err


def test_port_in_use_and_folder_in_use_are_two_lines(beray: CommandLine, home: Path, server: ServerProcess) -> None:
    port = beray("serve", "--port", server.base_url.rpartition(":")[2], "--data", str(home / "other"))
    folder = beray("serve", "--port", "0", "--data", str(server.data_dir))

    for ended, what, remedy in [(port, "Cannot listen", "--port"), (folder, "already uses", "--data")]:
        first, second = ended.err.splitlines()
        assert ended.status == 1
        assert what in first
        assert remedy in second
