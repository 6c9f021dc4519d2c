"""A server that can't start says in a line what is wrong and in a line what to do, and leaves no traceback."""

import os
import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from beray.client import BeRayClient
from tests.support.server import BERAY, PASSWORD, ServerProcess
from tests.support.waiting import wait_until


@pytest.fixture
def as_by_an_operator(monkeypatch):
    """Servers import what they need themselves, for tests of what comes while they do."""
    monkeypatch.setattr(ServerProcess, "is_forked", False)


def failed_start(server: ServerProcess, *arguments: str, status: int = 1, through: tuple[str, ...] = ()) -> str:
    """What it says when it doesn't start; `through` is a program to be run by, its last word a shell's `… exec `."""
    environment = {**os.environ, "BERAY_MODEL": "rules", "BERAY_LANGUAGE": "en", **server.settings}
    command = [*BERAY, "serve", "--data", str(server.data_dir), *arguments]
    done = subprocess.run(
        [*through[:-1], through[-1] + shlex.join(command)] if through else command,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
        check=False,
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_port_in_use_is_told(make_server):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        said = failed_start(make_server(), "--port", str(port))

    assert f"127.0.0.1:{port}" in said
    assert "--port" in said


def test_second_server_on_a_data_folder_is_refused(make_server):
    first = make_server().start()
    assert first.process is not None

    said = failed_start(make_server(data_dir=first.data_dir), "--port", "0")

    assert str(first.data_dir) in said
    assert str(first.process.pid) in said
    assert "--data" in said
    assert first.is_ready()


def test_data_folder_that_is_a_file_is_told(make_server, service_dir):
    path = service_dir / "a-file"
    path.write_text("")

    said = failed_start(make_server(data_dir=path), "--port", "0", status=2)

    assert str(path) in said


@pytest.mark.needs("tmpfs")
def test_data_folder_on_a_full_disk_is_told(make_server, service_dir):
    """In a mount namespace of its own, which goes with the process."""
    (service_dir / "small").mkdir()
    small = str(service_dir / "small")
    mount = f"mount -t tmpfs -o size=300k,mode=711 tmpfs {small} && exec "

    said = failed_start(make_server(data_dir=small), "--port", "0", through=("unshare", "--mount", "sh", "-c", mount))

    assert said.splitlines() == [
        f"✗ The data folder {small} cannot be written: No space left on device",
        "  Choose another with --data DIR or BERAY_DATA_DIR, or make room on its disk.",
    ]


@pytest.mark.needs("user")
def test_data_folder_that_cannot_be_written_is_told(make_server, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)

    said = failed_start(make_server(data_dir=tmp_path / "closed" / "data"), "--port", "0")

    assert "cannot be written" in said
    assert "--data" in said


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (
            "BERAY_MAX_REQUESTS",
            "many",
            "BERAY_MAX_REQUESTS='many' cannot be used: a whole number of 1 or more is needed",
        ),
        ("BERAY_SANDBOX", "chroot", "bubblewrap"),
        ("BERAY_MODEL", "nobody:model", "BERAY_MODEL"),
        ("BERAY_MODEL", "openai:gpt-5", "BERAY_MODEL_API_KEY"),
        ("BERAY_SMTP_URL", "nonsense", "BERAY_SMTP_URL"),
    ],
)
def test_broken_setting_is_told_and_never_replaced(make_server, name, value, told):
    server = make_server()
    server.settings[name] = value

    assert told in failed_start(server, "--port", "0", status=2)


def test_unsandboxed_server_on_a_public_address_is_refused(make_server):
    said = failed_start(make_server(sandbox="none"), "--port", "0", "--host", "0.0.0.0")

    assert "BERAY_SANDBOX" in said


def test_accounts_and_tasks_survive_a_restart(make_server):
    from beray.client import BeRayClient

    server = make_server().start()
    token = server.register("stays@example.com")
    with BeRayClient(server.base_url, token=token) as client:
        task_id = client.create_task("Write a Python script that prints 42")["id"]
        events = list(client.stream_task_updates(task_id))
    assert server.stop() == 0
    server.start()

    with BeRayClient(server.base_url, token=token) as client:
        assert client.get_task(task_id)["events"] == events
        client.logout()
    with BeRayClient(server.base_url) as client:
        assert client.login("stays@example.com", PASSWORD)["user"]["email"] == "stays@example.com"


@pytest.mark.usefixtures("as_by_an_operator")
@pytest.mark.parametrize("sign", ["server.lock", "beray.db-wal", "server.json"])
def test_signal_while_it_starts_ends_it(make_server, sign):
    """An exception raised out of a signal handler ends in whatever callback runs: the signal must be remembered."""
    server = make_server(local_user=1)
    server.launch()
    wait_until((server.data_dir / sign).exists, what=sign)

    assert server.stop() == 0
    assert "Exception" not in server.log_text()
    assert not (server.data_dir / "server.json").exists()


def test_data_folder_keeps_secrets_private(make_server):
    server = make_server(local_user=1).start()

    for name in ("secret.key", "server.json", "beray.db"):
        mode = (server.data_dir / name).stat().st_mode & 0o777
        assert mode & 0o077 == 0, f"{name} is {mode:o}"
    assert {path.stat().st_mode & 0o077 for path in server.data_dir.glob("beray.db-*")} == {0}


def test_server_may_open_as_many_files_as_its_operator_allows(make_server):
    """A usual soft limit of 1024 is a thousand clients that only connect."""
    server = make_server(through=("prlimit", "--nofile=300:2000")).start()
    assert server.process is not None

    limits = Path(f"/proc/{server.process.pid}/limits").read_text()

    assert re.search(r"^Max open files +2000 +2000 ", limits, re.MULTILINE)


def test_embedded_server_ends_when_nobody_needs_it(make_server):
    server = make_server(idle_exit_seconds=1).start()
    process = server.process
    assert process is not None

    wait_until(lambda: process.poll() is not None, seconds=30, what="the server to end")

    assert process.returncode == 0
    assert not (server.data_dir / "server.json").exists()


@pytest.mark.usefixtures("as_by_an_operator")
def test_interrupt_ends_the_server_cleanly(make_server):
    server = make_server().start()
    assert server.process is not None
    server.process.send_signal(signal.SIGINT)

    assert server.process.wait(timeout=20) == 0
    assert "Traceback" not in server.log_text()


@pytest.fixture
def server_on(service_dir, request) -> Iterator[Callable[..., ServerProcess]]:
    """A server on a database of the kind asked for, each with the same folder of work_dirs."""
    folder = service_dir / f"restored-{request.node.callspec.id}"
    made: list[ServerProcess] = []

    def make(name: str) -> ServerProcess:
        settings: dict[str, object] = {
            "work_dirs": folder / "work_dirs",
            "secret_key": "one key for all of these servers, 32 bytes",
        }
        if request.param == "postgresql":
            settings["database_url"] = request.getfixturevalue("postgres").create_database()
        made.append(ServerProcess(folder / name, **settings).start())
        return made[-1]

    yield make
    for server in made:
        server.stop()


@pytest.mark.parametrize(
    "server_on", ["sqlite", pytest.param("postgresql", marks=pytest.mark.needs("postgres"))], indirect=True
)
def test_new_task_does_not_get_the_folder_of_one_that_the_database_has_forgotten(server_on):
    """As after a backup was restored whose folders are younger than its database."""
    before = server_on("before")
    with BeRayClient(before.base_url, token=before.register("a@example.com")) as client:
        task_id = client.create_task("A secret", hold=True)["id"]
        client.upload_file(task_id, "secret.txt", "of user A")
    before.stop()

    after = server_on("after")
    with BeRayClient(after.base_url, token=after.register("b@example.com")) as client:
        new_id = client.create_task("Another", hold=True)["id"]
        client.upload_file(new_id, "mine.txt", "of user B")
        assert [node["name"] for node in client.list_files_tree(new_id)] == ["mine.txt"]

    assert new_id > task_id
    assert f"the newest folder is of task {task_id}" in after.log_text()


@pytest.mark.parametrize("library", ["sqlalchemy", "httptools", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_in_the_middle_of_a_start_is_neither_lost_nor_an_error(service_dir, library: str, number: int):
    """It comes while the server is being imported, as far as this library."""
    data = service_dir / f"stopped-{library}-{number:d}"
    command = [*BERAY, "serve", "--port", "0", "--data", str(data)]
    environment = {**os.environ, "BERAY_MODEL": "rules", "BERAY_MODEL_PROBE": "0"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        wait_until(lambda: library in maps.read_text() or process.poll() is not None, what="the import")
        process.send_signal(number)
        _, said = process.communicate(timeout=30)

    assert process.returncode == 0, said
    assert "✗" not in said
