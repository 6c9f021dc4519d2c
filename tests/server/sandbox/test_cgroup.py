"""Control groups of a real kernel: made, limited, asked and removed; and why there are none.

Version 1 is tried in this process. Version 2 takes systemd, which gives a command the surroundings of a service.
"""

import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from beray.server.sandbox.guard import cgroup
from beray.server.sandbox.guard.cgroup import Cgroups, Group
from tests.support.ordinary_user import ORDINARY_UID, code_for_all, python_for_all
from tests.support.waiting import wait_until

RUN_SECONDS = 90  # a whole server's sandbox is opened, and two bombs are set off

MEMBER = """
import sys
from beray.server.sandbox.guard.cgroup import Group
Group(*json.loads(sys.argv[1])).join()
"""
TAKE_MEMORY = "import json" + MEMBER + "taken = bytearray(int(sys.argv[2])); taken[::4096] = b'1' * len(taken[::4096])"
TAKE_PROCESSES = (
    "import json, os, signal"
    + MEMBER
    + """
children = []
try:
    for _ in range(int(sys.argv[2])):
        pid = os.fork()
        if pid == 0:
            signal.pause()
        children.append(pid)
except BlockingIOError:
    pass
print(len(children))
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""
)


@pytest.fixture
def group() -> Iterator[Group]:
    """One of version 1, with 32 MiB beside the supervisor's memory and 8 processes."""
    made = Cgroups(os.getppid()).make_group()
    try:
        made.limit(memory_bytes=32 << 20, processes=8)
        yield made
    finally:
        wait_until(made.remove, what="the end of the group")


def run_member(script: str, group: Group, amount: int) -> "subprocess.CompletedProcess[str]":
    """Run a script that joins the group first."""
    arguments = [json.dumps([group.version, group.memory, group.pids]), str(amount)]
    return subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=RUN_SECONDS, check=False
    )


@pytest.mark.needs("cgroup1")
def test_a_group_ends_who_takes_more_memory_and_tells(group: Group) -> None:
    below = run_member(TAKE_MEMORY, group, 16 << 20)
    told_below = group.has_run_out_of_memory()

    above = run_member(TAKE_MEMORY, group, 96 << 20)

    assert (below.returncode, told_below) == (0, False), below.stderr
    assert (above.returncode, group.has_run_out_of_memory()) == (-9, True), above.stderr


@pytest.mark.needs("cgroup1")
def test_a_group_counts_its_processes_only(group: Group) -> None:
    ended = run_member(TAKE_PROCESSES, group, 100)

    assert ended.stdout == "7\n", ended.stderr


@pytest.mark.needs("cgroup1")
def test_a_group_is_removed_when_it_is_empty(group: Group) -> None:
    script = "import json" + MEMBER + "print('in', flush=True); sys.stdin.read()"
    arguments = json.dumps([group.version, group.memory, group.pids])
    with subprocess.Popen(
        [sys.executable, "-c", script, arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as member:
        assert member.stdout is not None
        assert member.stdout.readline() == "in\n"

        removed_too_early = group.remove()

        member.communicate(timeout=RUN_SECONDS)
    assert not removed_too_early
    wait_until(group.remove, what="the end of the group")
    assert not any(Path(folder).exists() for folder in group.folders())


@pytest.mark.needs("cgroup1")
def test_groups_of_a_dead_server_are_removed_and_those_of_a_live_one_kept() -> None:
    ended = subprocess.Popen([sys.executable, "-I", "-S", "-c", ""])
    ended.wait(RUN_SECONDS)
    some = Cgroups(os.getppid()).make_group()
    try:
        stale, live = (
            [Path(folder).with_name(f"beray-command-{pid}-1000000") for folder in some.folders()]
            for pid in (ended.pid, os.getppid())
        )
        for folder in (*stale, *live):
            folder.mkdir()

        Cgroups(os.getppid())

        assert not any(folder.exists() for folder in stale)
        assert all(folder.exists() for folder in live)
    finally:
        for folder in (*some.folders(), *live):
            Path(folder).rmdir()


@pytest.mark.needs("cgroup1", "python_for_all")
def test_whoever_may_not_write_is_told_where(service_dir: Path) -> None:
    code = service_dir / "code-of-cgroups"
    shutil.copytree(Path(cgroup.__file__).parent, code / "guard", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (code, *code.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    script = "import sys; sys.path.append(sys.argv[1]); from guard.cgroup import lacks_place; print(lacks_place())"

    ended = subprocess.run(
        [str(python_for_all()), "-I", "-S", "-B", "-c", script, str(code)],
        user=ORDINARY_UID,
        group=ORDINARY_UID,
        extra_groups=[],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )

    assert ended.stdout.endswith(" can't be written\n"), ended.stderr


# Version 2, in the surroundings that systemd gives


def seen_in(*options: str, code: Path, python: str, data_dir: Path) -> dict[str, Any]:
    """What a sandbox tells that is opened in a unit of systemd with these options."""
    command = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", f"--working-directory={code}", *options, "--"]
    command += [python, "-m", "tests.support.sandbox_in_unit", str(data_dir)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)
    assert ended.returncode == 0, ended.stderr
    seen: dict[str, Any] = json.loads(ended.stdout)
    return seen


def assert_confined(seen: dict[str, Any]) -> None:
    """By groups: what only looks by itself has a note."""
    assert seen["rows"]["memory"] == [True, ""]
    assert seen["rows"]["process_count"] == [True, ""]
    assert seen["memory_bomb"] == "memory"
    assert seen["forked"] < seen["processes"]
    assert seen["environment"] in ("", f"LD_LIBRARY_PATH={sys.base_prefix}/lib")


@pytest.mark.needs("cgroup2", "landlock")
def test_a_service_with_a_subtree_of_its_own_uses_it(service_dir: Path) -> None:
    seen = seen_in(
        "--property=Delegate=yes", code=Path.cwd(), python=sys.executable, data_dir=service_dir / "delegated"
    )

    assert_confined(seen)
    assert seen["fork_server"] == seen["server"]
    assert seen["server"] == f"{seen['unit']}/beray-server"
    assert seen["second_fork_server"] == seen["fork_server"]


@pytest.mark.needs("cgroup2", "python_for_all")
def test_a_service_of_an_ordinary_user_with_a_subtree_uses_it(service_dir: Path) -> None:
    code = code_for_all(service_dir / "unit")
    data_dir = service_dir / "delegated-to-user"
    data_dir.mkdir(mode=0o700)
    nobody = pwd.getpwnam("nobody")  # systemd takes only users it can look up
    os.chown(data_dir, nobody.pw_uid, nobody.pw_gid)

    seen = seen_in(
        "--property=Delegate=yes",
        "--uid=nobody",
        code=code,
        python=str(python_for_all()),
        data_dir=data_dir,
    )

    assert_confined(seen)
    assert seen["fork_server"] == f"{seen['unit']}/beray-server"


@pytest.mark.needs("cgroup2", "landlock")
def test_a_service_without_a_subtree_has_its_commands_in_a_scope(service_dir: Path) -> None:
    seen = seen_in(code=Path.cwd(), python=sys.executable, data_dir=service_dir / "not-delegated")

    assert_confined(seen)
    assert seen["server"] == seen["unit"]
    assert_in_scope(seen)


@pytest.mark.needs("systemd_user")
def test_a_server_in_a_users_session_has_its_commands_in_a_scope(service_dir: Path) -> None:
    seen = seen_in("--user", code=Path.cwd(), python=sys.executable, data_dir=service_dir / "session")

    assert_confined(seen)
    assert seen["server"] == seen["unit"]
    assert_in_scope(seen)


def assert_in_scope(seen: dict[str, Any]) -> None:
    scopes = {Path(seen[name]).parent.name for name in ("fork_server", "second_fork_server")}
    assert len(scopes) == 2
    assert all(scope.startswith("beray-commands-") and scope.endswith(".scope") for scope in scopes)
