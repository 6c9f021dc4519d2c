"""What every sandbox must do, as plain cases: run in the test's process, and in one of another user.

A case is a coroutine that takes a `Box` and asserts. It uses the standard library and `beray.server.sandbox` only, so
that any interpreter can run it: `python -m tests.support.sandbox_cases <backend> <data folder> free` prints outcomes
as JSON lines.
"""

import asyncio
import contextlib
import errno
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from beray.server.sandbox.base import (
    Capabilities,
    Exit,
    InputClosed,
    Limits,
    Process,
    Sandbox,
    SandboxError,
    SandboxUnavailable,
    Spec,
)
from beray.server.sandbox.choose import open_sandbox, prepare_layout
from beray.server.sandbox.container.sandbox import ContainerSandbox
from beray.server.sandbox.guard.libc import PR_SET_NO_NEW_PRIVS, install_seccomp, prctl
from beray.server.sandbox.guard.seccomp import FilterRules, build_filter
from beray.server.sandbox.guarded import GuardedSandbox
from beray.server.sandbox.landlock import LandlockConfine
from beray.server.sandbox.process import GuardedProcess
from beray.server.sandbox.uids import TaskUids
from beray.server.settings import Settings
from tests.support.container_image import engine_here, image_here
from tests.support.waiting import begun, until

CANARY = "canary-of-the-server-8f3a"
LIMITS = Limits(wall_seconds=60)
QUIET_FOLDER = "/dev/shm"  # a file system in memory, on which no other test keeps files

Case = Callable[["Box"], Awaitable[None]]
CASES: dict[str, Case] = {}
CONFINED = ("bubblewrap", "landlock", "container")
GUARDED = ("bubblewrap", "landlock", "none")  # commands have a supervisor, and all supervisors one fork server
_ONLY: dict[str, tuple[str, ...]] = {}
ATTACKS: dict[str, int] = {}
"""Cases that are attacks, and their number in `tests/attacks`."""


class NotHere(Exception):
    """The case can't be tried on this machine; the text says why."""


def case(function: Case) -> Case:
    """Every backend must pass it."""
    CASES[function.__name__] = function
    return function


def case_for(*backends: str) -> Callable[[Case], Case]:
    """These backends must pass it."""

    def register(function: Case) -> Case:
        _ONLY[function.__name__] = backends
        return case(function)

    return register


def attack(number: int) -> Callable[[Case], Case]:
    """The case is this attack, or a part of it."""

    def register(function: Case) -> Case:
        ATTACKS[function.__name__] = number
        return function

    return register


def cases_of(backend: str) -> list[str]:
    """Names of the cases a backend must pass."""
    kind = backend.partition(":")[0]
    return [name for name in CASES if kind in _ONLY.get(name, (kind,))]


@dataclass(frozen=True)
class Ended:
    """A command that has ended, and what it printed."""

    exit: Exit
    stdout: str
    stderr: str

    @property
    def code(self) -> int:
        return self.exit.code


class Box:
    """An open sandbox, with tasks to try it on."""

    def __init__(self, sandbox: Sandbox, capabilities: Capabilities, data_dir: Path) -> None:
        self.sandbox = sandbox
        self.capabilities = capabilities
        self.data_dir = data_dir
        self._uids = TaskUids()
        self._task_id = os.getpid() * 100  # test processes side by side must not share the uids of their tasks
        self.uid: int | None = None
        self.work_dir = Path()
        self.new_task()

    def new_task(self) -> Path:
        """The work_dir of a further task, which following commands use."""
        self._task_id += 1
        self.uid = self._uids(self._task_id)
        self.work_dir = self.data_dir / "tasks" / str(self._task_id) / "work"
        self.work_dir.mkdir(parents=True)
        for folder in (self.work_dir.parent, self.work_dir.parent.parent):
            folder.chmod(0o711)
        self.work_dir.chmod(0o700)
        self.give(self.work_dir)
        return self.work_dir

    def give(self, path: Path) -> None:
        """Make the task the owner of a file."""
        if self.uid is not None:
            os.chown(path, self.uid, self.uid, follow_symlinks=False)

    @property
    def fork_server_pid(self) -> int | None:
        assert isinstance(self.sandbox, GuardedSandbox)
        return self.sandbox.fork_server_pid

    @property
    def keeper_pid(self) -> int | None:
        """The process of ours without which no command goes on: the fork server, or the engine's client."""
        if isinstance(self.sandbox, ContainerSandbox):
            return next(iter(self.sandbox.client_pids), None)
        return self.fork_server_pid

    async def require(self, program: str) -> None:
        """Raise `NotHere` unless commands find this program."""
        if (await self.sh(f"command -v {program}")).code != 0:
            raise NotHere(f"commands find no {program}")

    def require_confined(self, row: str) -> None:
        """Raise `NotHere` if the probe says that this is open."""
        found = next(each for each in self.capabilities.confinements if each.name == row)
        if not found.is_confined:
            raise NotHere(f"{row} is open here: {found.note}")

    @property
    def python(self) -> str:
        assert self.capabilities.python is not None
        return self.capabilities.python

    async def start(self, *argv: str, **options: Any) -> Process:
        options = {"limits": LIMITS, **options}
        return await self.sandbox.start(Spec(argv, self.work_dir, uid=self.uid, **options))

    async def refusal(self, *argv: str) -> str:
        """Why a command can't be started."""
        try:
            process = await self.start(*argv)
        except SandboxError as error:
            return str(error)
        raise AssertionError(f"{argv} was started: {await finish(process)}")

    async def run(self, *argv: str, **options: Any) -> Ended:
        process = await self.start(*argv, **options)
        try:
            return await finish(process)
        finally:
            await process.kill()

    async def sh(self, script: str, **options: Any) -> Ended:
        return await self.run("bash", "-c", script, **options)

    async def py(self, script: str, *arguments: str, **options: Any) -> Ended:
        return await self.run(self.python, "-I", "-c", script, *arguments, **options)


async def finish(process: Process) -> Ended:
    """Read a command to its end."""
    output = {"stdout": b"", "stderr": b""}
    while (piece := await process.read()) is not None:
        output[piece[0]] += piece[1]
    exit = await process.wait()
    return Ended(exit, output["stdout"].decode(), output["stderr"].decode())


@contextlib.contextmanager
def expected(kind: type[Exception], words: str) -> Iterator[None]:
    """The body raises this, and the text holds these words (an interpreter without pytest runs this too)."""
    caught: list[Exception] = []
    try:
        yield
    except kind as error:
        caught.append(error)
    assert [words in str(error) for error in caught] == [True], f"{kind.__name__} was expected; came: {caught}"


async def read_line(process: Process) -> str:
    """The first line of a command's output."""
    line = b""
    while not line.endswith(b"\n"):
        piece = await process.read()
        assert piece is not None, f"ended before its first line; so far {line!r}"
        line += piece[1]
    return line.decode().strip()


def processes_with(marker: str) -> list[int]:
    """Processes on this machine whose command line holds the marker."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                if marker.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    found.append(int(name))
    return found


def new_marker() -> str:
    return f"marker-{secrets.token_hex(8)}"


@contextlib.contextmanager
def decoy() -> Iterator["subprocess.Popen[bytes]"]:
    """A process of the server's user that does nothing, with the canary in its environment."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, env={"PATH": "/usr/bin:/bin", "CANARY": CANARY}) as process:
        try:
            yield process
        finally:
            process.kill()


STUBBORN = """
import os, signal, sys, time
for number in range(int(sys.argv[2])):
    if os.fork() == 0:
        if number % 3 == 0:
            os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.write(1, b".")
        while True:
            time.sleep(1000)
time.sleep(1000)
"""


# What the port promises


@case
async def output_comes_by_its_stream(box: Box) -> None:
    ended = await box.sh("echo out; echo err >&2; echo more")

    assert (ended.stdout, ended.stderr) == ("out\nmore\n", "err\n")
    assert ended.exit == Exit(0, "exit")


@case
async def output_is_seen_while_the_command_runs(box: Box) -> None:
    process = await box.start("bash", "-c", "echo first; sleep 1000")

    assert await read_line(process) == "first"
    await process.kill()


@case
async def loud_output_comes_whole_in_bounded_pieces(box: Box) -> None:
    process = await box.start("head", "-c", "30000000", "/dev/zero")
    sizes = []
    while (piece := await process.read()) is not None:
        sizes.append(len(piece[1]))

    assert sum(sizes) == 30_000_000
    assert max(sizes) <= 64 * 1024
    assert (await process.wait()).code == 0


@case
async def output_nobody_reads_stops_the_command(box: Box) -> None:
    """Backpressure: it is not buffered, so the writer waits, and its wall time goes on."""
    script = "head -c 5000000 /dev/zero; echo through > done"
    process = await box.start("bash", "-c", script, limits=Limits(wall_seconds=1))

    exit = await process.wait()

    assert exit.reason == "timeout"
    assert not (box.work_dir / "done").exists()


@case
async def exit_statuses_are_told(box: Box) -> None:
    assert (await box.sh("exit 7")).code == 7
    assert (await box.sh("false")).code == 1
    assert (await box.sh("kill -TERM $$")).code == -signal.SIGTERM
    assert (await box.sh("kill -KILL $$")).code == -signal.SIGKILL


@case
async def stdin_is_what_was_given(box: Box) -> None:
    big = os.urandom(1 << 20).hex().encode()

    assert (await box.run("cat", stdin=b"hello")).stdout == "hello"
    assert (await box.run("cat")).stdout == ""
    assert (await box.run("wc", "-c", stdin=big)).stdout.strip() == str(len(big))


@case
async def input_can_be_written_while_the_command_runs(box: Box) -> None:
    """Each line is answered before the next is written, as in a conversation."""
    process = await box.start("bash", "-c", "while read -r line; do echo got $line; done; echo end", has_input=True)

    for word in ("one", "two", "three"):
        await process.write(f"{word}\n".encode())
        assert await read_line(process) == f"got {word}"
    await process.close_input()

    assert await finish(process) == Ended(Exit(0, "exit"), "end\n", "")


@case
async def large_input_arrives_whole(box: Box) -> None:
    """Many times what a pipe holds, in pieces of odd sizes."""
    process = await box.start("bash", "-c", "wc -c; cat", has_input=True)

    for size in (1, 65_537, 3_000_000, 999):
        await process.write(b"x" * size)
    await process.close_input()

    assert (await finish(process)).stdout.strip() == str(1 + 65_537 + 3_000_000 + 999)


@case
async def input_that_is_not_read_makes_the_writer_wait(box: Box) -> None:
    """Nothing is buffered without bound; ended while it waits, the writer is told."""
    process = await box.start("sleep", "1000", has_input=True)
    writing = asyncio.create_task(process.write(bytes(2 << 20)))

    await asyncio.wait({writing}, timeout=0.5)

    assert not writing.done()
    await process.kill()
    with expected(InputClosed, ""):
        await writing


@case
async def input_of_a_command_that_has_ended_is_closed(box: Box) -> None:
    process = await box.start("true", has_input=True)
    await finish(process)

    with expected(InputClosed, "ended"):
        await process.write(b"too late\n")
    await process.close_input()


@case
async def input_after_its_end_is_refused(box: Box) -> None:
    process = await box.start("cat", has_input=True)
    await process.write(b"all\n")
    await process.close_input()
    await process.close_input()

    with expected(InputClosed, "closed"):
        await process.write(b"more\n")

    assert (await finish(process)).stdout == "all\n"


@case
async def a_command_without_input_can_not_be_written_to(box: Box) -> None:
    process = await box.start("cat", stdin=b"given")

    with expected(InputClosed, ""):
        await process.write(b"more")
    await process.close_input()

    assert (await finish(process)).stdout == "given"
    with expected(SandboxError, "not both"):
        await box.start("cat", stdin=b"given", has_input=True)


@case
async def open_input_keeps_no_command_alive(box: Box) -> None:
    """It ends by a kill, and by its wall time, though somebody could still write."""
    process = await box.start("bash", "-c", "echo up; cat", has_input=True)
    assert await read_line(process) == "up"
    await process.kill()
    assert (await process.wait()).reason == "stopped"

    late = await box.start("cat", has_input=True, limits=Limits(wall_seconds=1))
    assert (await late.wait()).reason == "timeout"


@case
async def a_report_comes_back(box: Box) -> None:
    ended = await box.sh("printf 'cwd\\0value' >&3; echo shown", has_report=True)

    assert ended.exit.report == b"cwd\0value"
    assert ended.stdout == "shown\n"


@case
async def a_long_report_is_cut_and_does_not_block(box: Box) -> None:
    ended = await box.sh("head -c 3000000 /dev/zero >&3 && echo written", has_report=True)

    assert ended.stdout == "written\n"
    assert ended.exit.report == bytes(64 * 1024)


@case
async def a_command_has_no_other_descriptors(box: Box) -> None:
    script = """
import os
for number in range(200):
    try: os.fstat(number)
    except OSError: continue
    print(number)
"""
    assert (await box.py(script)).stdout.split() == ["0", "1", "2"]
    assert (await box.py(script, has_report=True)).stdout.split() == ["0", "1", "2", "3"]


@case
async def a_command_starts_in_its_cwd(box: Box) -> None:
    inner = box.work_dir / "a" / "ä b"
    inner.mkdir(parents=True)
    for path in (inner, inner.parent):
        box.give(path)

    assert (await box.run("pwd")).stdout.strip() == str(box.work_dir)
    assert (await box.run("pwd", cwd="a/ä b")).stdout.strip() == str(inner)


@attack(25)
@case
async def a_cwd_that_is_outside_or_gone_falls_back_to_the_work_dir(box: Box) -> None:
    (box.work_dir / "link").symlink_to("/usr")
    (box.work_dir / "file").write_text("")

    for cwd in ("..", "/usr", "link", "gone", "a\nb", "a\0b", "file", "../work.home"):
        assert (await box.run("pwd", cwd=cwd)).stdout.strip() == str(box.work_dir), cwd


@case
async def variables_are_given_and_none_is_inherited(box: Box) -> None:
    ended = await box.run("env", env={"GIVEN": "ü=1", "LANG": "C"})

    variables = dict(line.split("=", 1) for line in ended.stdout.splitlines())
    assert variables["GIVEN"] == "ü=1"
    assert variables["LANG"] == "C"
    assert variables["USER"] == variables["LOGNAME"] == "beray"
    assert CANARY not in ended.stdout
    inherited = {"SERVER_CANARY", "VIRTUAL_ENV", "PYTHONPATH", "SSH_AUTH_SOCK", "LD_LIBRARY_PATH"}
    assert not inherited & variables.keys()


@case
async def home_and_tmp_last_as_long_as_the_task_and_are_in_no_listing(box: Box) -> None:
    await box.sh("echo kept > ~/note; echo kept > $TMPDIR/note; echo x > $(mktemp)")

    assert (await box.sh("cat ~/note $TMPDIR/note")).stdout == "kept\nkept\n"
    assert list(box.work_dir.iterdir()) == []


@case
async def a_task_that_spoils_its_tmp_can_still_run_commands(box: Box) -> None:
    await box.sh("rm -rf $TMPDIR && ln -s /oldroot/etc $TMPDIR")

    assert (await box.run("echo", "works")).stdout == "works\n"


@case
async def a_tmp_that_the_task_has_named_is_not_made_for_it(box: Box) -> None:
    """The variable is the task's, carried from command to command; making it happens before confinement."""
    outside = box.data_dir / "tasks" / f"planted-{new_marker()}"
    if box.uid is not None:
        outside = Path("/tmp") / outside.name

    await box.run("true", env={"TMPDIR": str(outside)})

    assert not outside.exists()


@case
async def a_program_that_is_not_there_is_refused(box: Box) -> None:
    for argv in (["no-such-program"], ["./missing"], ["/etc"], ["a\0b"], [], [""], ["echo", "a\0b"]):
        assert await box.refusal(*argv)


@case
async def a_work_dir_that_is_gone_is_refused(box: Box) -> None:
    box.work_dir.rmdir()

    assert str(box.work_dir) in await box.refusal("true")


@case
async def a_long_command_line_is_passed_on(box: Box) -> None:
    argument = "x" * 100_000

    assert (await box.run("printf", "%s", argument)).stdout == argument


@case
async def names_that_are_no_text_survive(box: Box) -> None:
    ended = await box.run("touch", os.fsdecode(b"a\xff"))

    assert ended.code == 0, ended.stderr
    assert os.listdir(os.fsencode(box.work_dir)) == [b"a\xff"]


# How commands end


@case
async def the_wall_time_ends_everything(box: Box) -> None:
    marker = new_marker()
    ended = await box.sh(f"setsid sh -c 'sleep 1000; : {marker}' & sleep 1000", limits=Limits(wall_seconds=0.5))

    assert ended.exit.reason == "timeout"
    assert processes_with(marker) == []


@attack(12)
@case
async def kill_ends_150_processes_that_ignore_sigterm(box: Box) -> None:
    marker = new_marker()
    process = await box.start(box.python, "-I", "-S", "-c", STUBBORN, marker, "150")
    dots = 0
    while dots < 150:
        piece = await process.read()
        assert piece is not None
        dots += len(piece[1])
    assert len(processes_with(marker)) >= 151

    await asyncio.wait_for(process.kill(), 10)

    assert processes_with(marker) == []
    assert (await process.wait()).reason == "stopped"
    assert await process.read() is None


FORK_BOMB = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("lit", flush=True)
end = time.monotonic() + 60
while time.monotonic() < end:
    try:
        if os.fork() == 0: os.setsid()
    except OSError: time.sleep(0.01)  # full: to spin here would only keep other tests from the processor
"""


@attack(7)
@case
async def kill_ends_a_fork_bomb(box: Box) -> None:
    """It forks as fast as it may, up to its limit, while it is being ended."""
    marker = new_marker()
    process = await box.start(
        box.python, "-I", "-S", "-c", FORK_BOMB, marker, limits=Limits(wall_seconds=60, processes=50)
    )
    await read_line(process)
    await until(lambda: len(processes_with(marker)) > 25)

    await asyncio.wait_for(process.kill(), 10)

    assert processes_with(marker) == []
    assert (await process.wait()).reason == "stopped"


@case
async def kill_may_be_called_at_any_time_and_twice(box: Box) -> None:
    """And is not kept waiting until the task's files are counted."""
    running = await box.start("sleep", "1000")
    await asyncio.gather(running.kill(), running.kill(), running.wait())
    await running.kill()
    ended = await box.start("true")
    await ended.wait()
    await ended.kill()

    killed, ended_by_itself = await running.wait(), await ended.wait()
    assert (killed.reason, killed.disk_bytes) == ("stopped", None)
    assert ended_by_itself == Exit(0, "exit")
    assert ended_by_itself.disk_bytes is not None


@case
async def kill_works_in_the_finally_of_a_cancelled_task(box: Box) -> None:
    marker = new_marker()
    process = await box.start("sh", "-c", f"echo up; sleep 1000; : {marker}")
    await read_line(process)

    async def use() -> None:
        try:
            await process.wait()
        finally:
            await process.kill()

    [task] = await begun(use())
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

    assert processes_with(marker) == []
    assert len(asyncio.all_tasks()) == 1


@case
async def a_cancelled_start_leaves_nothing(box: Box) -> None:
    marker = new_marker()
    for _ in range(3):
        task = asyncio.create_task(box.start("sh", "-c", f"sleep 1000; : {marker}"))
        async with asyncio.timeout(20):
            while not task.done() and not processes_with(marker):
                await asyncio.sleep(0)  # a look at every turn of the loop: the moment is too short for `until`
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await (await task).kill()
        await until(lambda: not processes_with(marker))


@attack(11)
@case
async def what_a_command_leaves_behind_is_gone_when_it_ends(box: Box) -> None:
    marker = new_marker()
    script = """
import os, signal, sys, time
ready, tell = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.write(tell, b"1")
        for number in (0, 1, 2): os.close(number)
        while True: time.sleep(1000)
    os._exit(0)
os.read(ready, 1)
print("left")
"""
    ended = await box.py(script, marker)

    assert ended.stdout == "left\n"
    assert ended.exit == Exit(0, "exit")
    assert processes_with(marker) == []


@case
async def the_end_of_one_command_is_not_that_of_another(box: Box) -> None:
    first = await box.start("bash", "-c", "echo up; sleep 1000")
    await read_line(first)
    second = await box.start("bash", "-c", "sleep 1000")

    await second.kill()
    await box.sh("sleep 1000 & echo ends")

    await first.kill()
    assert (await first.wait()).reason == "stopped"


@case
async def many_commands_run_at_the_same_time(box: Box) -> None:
    ended = await asyncio.gather(*(box.run("echo", str(number)) for number in range(12)))

    assert [int(item.stdout) for item in ended] == list(range(12))


@case_for(*GUARDED)
async def a_killed_supervisor_is_told_and_its_command_ended(box: Box) -> None:
    marker = new_marker()
    script = f"setsid sh -c 'sleep 1000; : {marker}' & setsid sh -c 'sleep 1000; : {marker}' & echo up; sleep 1000"
    other = await box.start("bash", "-c", "echo up; sleep 1000")
    await read_line(other)
    process = await box.start("bash", "-c", script)
    await read_line(process)
    supervisor = supervisor_of(process)

    os.kill(supervisor, signal.SIGKILL)

    assert (await process.wait()).reason == "lost"
    assert processes_with(marker) == []
    await other.kill()
    assert (await other.wait()).reason == "stopped"


@case_for(*GUARDED)
async def a_supervisor_killed_for_want_of_memory_is_told_as_that(box: Box) -> None:
    """The kernel kills it beside a command that takes its time to die; a control group holds them both."""
    script = 'exec 2>/dev/null; echo up; read line; "$@"; echo $?; sleep 1000'
    bomb = (box.python, "-I", "-S", "-c", MEMORY_BOMB, "32", "shared")
    limits = Limits(wall_seconds=30, memory_bytes=64 << 20)
    process = await box.start("bash", "-c", script, "bash", *bomb, limits=limits, has_input=True)
    await read_line(process)
    supervisor = supervisor_of(process)
    if process.lacks_group:
        await process.kill()
        raise NotHere(f"there is no control group: {process.lacks_group}")

    os.kill(supervisor, signal.SIGSTOP)
    await process.write(b"go\n")
    assert await read_line(process) == str(128 + signal.SIGKILL)
    os.kill(supervisor, signal.SIGKILL)

    assert (await process.wait()).reason == "memory"


@case_for(*GUARDED)
async def a_stuck_supervisor_does_not_keep_a_command_alive(box: Box) -> None:
    marker = new_marker()
    process = await box.start("bash", "-c", f"setsid sh -c 'sleep 1000; : {marker}' & echo up; sleep 1000")
    await read_line(process)
    supervisor = supervisor_of(process)

    os.kill(supervisor, signal.SIGSTOP)
    await asyncio.wait_for(process.kill(), 20)

    assert processes_with(marker) == []
    assert (await process.wait()).reason == "lost"


@case_for(*GUARDED)
async def a_killed_fork_server_is_replaced_and_its_commands_ended(box: Box) -> None:
    marker = new_marker()
    process = await box.start("bash", "-c", f"setsid sh -c 'sleep 1000; : {marker}' & echo up; sleep 1000")
    await read_line(process)
    killed = box.fork_server_pid
    assert killed is not None

    os.kill(killed, signal.SIGKILL)

    assert (await process.wait()).reason == "lost"
    assert processes_with(marker) == []
    assert (await box.run("echo", "again")).stdout == "again\n"
    assert box.fork_server_pid != killed


@case_for(*GUARDED)
async def a_fork_server_killed_while_idle_is_replaced(box: Box) -> None:
    await box.run("true")
    killed = box.fork_server_pid
    assert killed is not None

    os.kill(killed, signal.SIGKILL)

    assert (await box.run("echo", "again")).stdout == "again\n"


@case_for("container")
async def a_killed_client_of_the_engine_is_told_and_its_command_ended(box: Box) -> None:
    marker = new_marker()
    other = await box.start("bash", "-c", "echo up; sleep 1000")
    await read_line(other)
    process, client = await _start_with_client(box, marker)

    os.kill(client, signal.SIGKILL)

    assert (await process.wait()).reason == "lost"
    assert processes_with(marker) == []
    await other.kill()
    assert (await other.wait()).reason == "stopped"


@case_for("container")
async def a_stuck_client_of_the_engine_does_not_keep_a_command_alive(box: Box) -> None:
    marker = new_marker()
    process, client = await _start_with_client(box, marker)

    os.kill(client, signal.SIGSTOP)
    await asyncio.wait_for(process.kill(), 20)

    assert processes_with(marker) == []
    # An ordinary user's podman runs itself once more; it is the first, which only waits, that we have stopped.
    assert (await process.wait()).reason in ("lost", "stopped")


async def _start_with_client(box: Box, marker: str) -> tuple[Process, int]:
    """A command that leaves processes behind, and the engine's client that runs it."""
    assert isinstance(box.sandbox, ContainerSandbox)
    before = set(box.sandbox.client_pids)
    process = await box.start("bash", "-c", f"setsid sh -c 'sleep 1000; : {marker}' & echo up; sleep 1000")
    await read_line(process)
    (client,) = set(box.sandbox.client_pids) - before
    return process, client


def supervisor_of(process: Process) -> int:
    assert isinstance(process, GuardedProcess)
    assert process.supervisor_pid is not None
    return process.supervisor_pid


# What a command can use


@case
async def limits_hold(box: Box) -> None:
    limits = Limits(wall_seconds=60, memory_bytes=200 << 20, file_bytes=1 << 20)

    memory = await box.py("bytearray(400 << 20)", limits=limits)
    file = await box.sh("head -c 3000000 /dev/zero > big; wc -c < big; ulimit -c", limits=limits)

    assert "MemoryError" in memory.stderr
    assert file.stdout.split() == [str(1 << 20), "0"]


END_FIRST_THREAD = """
import ctypes, platform, threading, time
def end_first_thread(then):
    threading.Thread(target=then).start()
    ctypes.CDLL(None).syscall(60 if platform.machine() == "x86_64" else 93, 0)
"""

MEMORY_BOMB = f"""
import mmap, os, signal, sys
{END_FIRST_THREAD}
def fill(taken, size):
    for at in range(0, size, 4096): taken[at] = 1
def fill_shared():
    taken = mmap.mmap(-1, size * 8)
    fill(taken, size * 8)
    time.sleep(1000)
size = int(sys.argv[1]) << 20
if sys.argv[2] == "shared": fill_shared()
elif sys.argv[2] == "thread": end_first_thread(fill_shared)
else:
    for _ in range(8):
        if os.fork() == 0:
            taken = bytearray(size)  # kept: a process that gives back at once may never meet the others
            fill(taken, size)
            signal.pause()
signal.pause()
"""


@attack(8)
@case
async def too_much_memory_ends_the_command(box: Box) -> None:
    """Of several processes, none of which has too much; of one, in memory that its own limit does not count; and of one
    whose first thread, for which /proc answers, has ended.
    """
    limits = Limits(wall_seconds=30, memory_bytes=256 << 20)

    for kind in ("many", "shared", "thread"):
        process = await box.start(box.python, "-I", "-S", "-c", MEMORY_BOMB, "48", kind, limits=limits)
        ended = await finish(process)
        assert ended.exit.reason == "memory", (kind, ended, getattr(process, "lacks_group", None))
    enough = await box.run(box.python, "-I", "-S", "-c", "bytearray(200 << 20)", limits=limits)

    assert enough.code == 0


AMONG_ORPHANS = """
import os, signal
if os.fork() == 0:
    while True:
        if os.fork() == 0:
            os.fork()
            os._exit(0)
        os.wait()
for _ in range(4):
    if os.fork() == 0:
        taken = bytearray(100 << 20)
        taken[::4096] = b"1" * len(taken[::4096])
        signal.pause()
signal.pause()
"""


@attack(8)
@case
async def orphans_that_end_all_the_time_do_not_keep_it_from_looking(box: Box) -> None:
    """Each end wakes the supervisor up, more often than it looks at memory and disk by itself."""
    limits = Limits(wall_seconds=30, memory_bytes=256 << 20)

    ended = await box.run(box.python, "-I", "-S", "-c", AMONG_ORPHANS, limits=limits)

    assert ended.exit.reason == "memory"


DISK_BOMBS = {
    "many files": "for i in $(seq 1000); do head -c 4000000 /dev/zero > file-$i; done; sleep 60",
    "the home": "for i in $(seq 1000); do head -c 4000000 /dev/zero > ~/file-$i; done; sleep 60",
    # More than there may be, then more slowly: at full speed it is found no sooner, and makes 100,000 files until then.
    "small files": """
i=0; while :; do i=$((i+1)); : > file-$i; [ $i -le 12000 ] || [ $((i % 100)) -ne 0 ] || sleep 0.2; done
""",
    "mapped files": """
python3 -I -S - <<'END'
import mmap, os, signal
kept = []
for number in range(60):
    with open("gone", "w+b") as file:
        file.write(bytes(4_000_000)); file.flush()
        kept.append(mmap.mmap(file.fileno(), 4_000_000))
    os.unlink("gone")
signal.pause()
END
""",
    "deleted files": """
for fd in $(seq 20 80); do eval "exec $fd>gone"; rm gone; head -c 4000000 /dev/zero >&$fd; done; sleep 60
""",
    "deleted files of a thread": f"""
python3 -I -S -c '{END_FIRST_THREAD}
import os
def hold():
    for _ in range(60):
        fd = os.open("gone", os.O_RDWR | os.O_CREAT)
        os.unlink("gone")
        os.write(fd, bytes(4_000_000))
    time.sleep(1000)
end_first_thread(hold)'
""",
    "deleted files of programs that can not be read": """
cp "$(command -v sleep)" sleep; chmod 111 sleep
for i in 1 2 3; do exec 20>gone; rm gone; head -c 20000000 /dev/zero >&20; ./sleep 1000 & exec 20>&-; done; wait
""",
}


@attack(10)
@case
async def too_much_disk_ends_the_command(box: Box) -> None:
    """In every form, but not a command that frees some of it, nor one whose folder is only looked at."""
    limits = Limits(wall_seconds=30, disk_bytes=40 << 20)

    for kind, script in DISK_BOMBS.items():
        box.new_task()
        ended = await box.sh(script, limits=limits)
        assert ended.exit.reason == "disk", (kind, ended)
    box.new_task()
    filled = await box.sh("truncate -s 1G sparse; head -c 60000000 /dev/zero > big; sleep 60", limits=limits)
    freed = await box.sh("sleep 0.3; rm big; exit 7", limits=limits, disk_before=filled.exit.disk_bytes)

    assert filled.exit.reason == "disk"
    assert filled.exit.disk_bytes is not None
    assert filled.exit.disk_bytes > limits.disk_bytes
    assert freed.exit == Exit(7, "exit")
    assert freed.exit.disk_bytes is not None
    assert freed.exit.disk_bytes < 1_000_000


@case
async def closed_folder_counts_with_what_it_holds(box: Box) -> None:
    """A slip of `chmod -R` closes folders to whom they belong; it must not count as an attempt to hide files.

    What a command takes is told by the file system's free space too (`DiskWatch.measure`): hence one of its own.
    """
    script = """
mkdir -p closed/inner unsearched && echo hello > closed/inner/file && echo hello > unsearched/file
chmod 644 unsearched && chmod 0 closed/inner && chmod 311 closed
head -c 20000000 /dev/zero > big
"""
    with tempfile.TemporaryDirectory(dir=QUIET_FOLDER, prefix="beray-") as folder:
        os.chmod(folder, 0o711)
        async with open_box(box.sandbox.name, Path(folder)) as alone:
            ended = await alone.sh(script, limits=Limits(wall_seconds=30, disk_bytes=100 << 20))

    assert ended.exit.reason == "exit", ended
    assert ended.exit.disk_bytes is not None
    assert 20_000_000 < ended.exit.disk_bytes < 21_000_000


RESERVE = """
import ctypes, errno, fcntl, os, struct
libc = ctypes.CDLL(None, use_errno=True)
fd = os.open("reserved", os.O_RDWR | os.O_CREAT)
def call(name, result): print(name, "OK" if result == 0 else errno.errorcode[ctypes.get_errno()])
long = ctypes.c_long
call("fallocate", libc.fallocate(fd, 0, long(0), long(1 << 30)))
call("kept", libc.fallocate(fd, 1, long(0), long(1 << 30)))
for request in (0x40305828, 0x4030582A, 0x40305839):
    call(hex(request), libc.ioctl(fd, ctypes.c_ulong(request), struct.pack("hhqqiI16s", 0, 0, 0, 1 << 30, 0, 0, b"")))
print("taken", os.fstat(fd).st_blocks)
os.posix_fallocate(fd, 0, 1 << 20)
print("written", os.fstat(fd).st_blocks >= 2048)
call("punched", libc.fallocate(fd, 3, long(0), long(1 << 20)))
"""


@attack(10)
@case_for(*CONFINED)
async def disk_can_not_be_reserved_faster_than_it_is_looked_at(box: Box) -> None:
    """By `fallocate` or its ioctls. Programs fall back to writing, and holes can still be made."""
    not_supported = errno.errorcode[errno.EOPNOTSUPP]

    ended = await box.py(RESERVE)

    answers = dict(line.split() for line in ended.stdout.splitlines())
    assert answers.pop("punched") in ("OK", not_supported), ended.stderr  # not every file system can
    assert (answers.pop("taken"), answers.pop("written")) == ("0", "True")
    assert list(answers.values()) == [not_supported] * 5


@case
async def too_much_processor_time_ends_the_command(box: Box) -> None:
    ended = await box.sh("while :; do :; done", limits=Limits(wall_seconds=60, cpu_seconds=1))

    assert ended.code == -signal.SIGXCPU


@case
async def processes_are_limited_where_the_probe_says_so(box: Box) -> None:
    box.require_confined("process_count")
    script = """
import os, time
count = 0
try:
    while count < 200:
        if os.fork() == 0: time.sleep(1000)
        count += 1
except OSError: pass
print(count)
"""
    ended = await box.py(script, limits=Limits(wall_seconds=60, processes=40))

    assert 10 < int(ended.stdout) < 40


@attack(15)
@case_for(*CONFINED)
async def two_commands_do_not_share_the_limit_on_processes(box: Box) -> None:
    """Of one user. Without control groups only bubblewrap can count a task's apart, if all have the server's uid."""
    box.require_confined("process_count")
    limits = Limits(wall_seconds=60, processes=30)
    first = await box.start("bash", "-c", "for i in $(seq 25); do sleep 1000 & done; echo full; wait", limits=limits)
    await read_line(first)

    assert (await box.sh("sleep 0 & wait; echo ok", limits=limits)).stdout == "ok\n"
    await first.kill()


@case
async def python_is_found_and_is_not_the_servers_environment(box: Box) -> None:
    show = "import sys; print(sys.version_info[0], sys.prefix)"

    by_name = await box.run("python3", "-c", show)
    short = await box.run("python", "-c", show)
    told = await box.py(show)

    assert by_name.stdout == short.stdout == told.stdout
    assert by_name.stdout.startswith("3 ")
    assert sys.prefix == sys.base_prefix or sys.prefix not in by_name.stdout


@case
async def usual_tools_work(box: Box) -> None:
    script = """set -e
cat <(echo one) <(echo two) | sort -r | tr a-z A-Z
mkdir -p a b && echo x > a/file && mv a/file b/file && ls b
echo 'print(6 * 7)' > script.py && chmod +x script.py && python script.py
perl -e 'print "perl\\n"'
"""
    ended = await box.sh(script)

    assert ended.stdout.split() == ["TWO", "ONE", "file", "42", "perl"], ended.stderr


@case
async def git_works(box: Box) -> None:
    await box.require("git")
    ended = await box.sh(
        "set -e; git init -q .; mkdir a b; echo x > a/f; git add .; git commit -qm one; git mv a/f b/f;"
        " git commit -qm two; git log --format=%an:%s"
    )

    assert ended.stdout.splitlines() == ["BeRay:two", "BeRay:one"], ended.stderr


@case
async def a_compiler_works(box: Box) -> None:
    await box.require("gcc")
    (box.work_dir / "hello.c").write_text('#include <stdio.h>\nint main(void) { puts("compiled"); return 3; }\n')
    ended = await box.sh("gcc -o hello hello.c && ./hello")

    assert (ended.stdout, ended.code) == ("compiled\n", 3), ended.stderr


@case
async def python_can_make_processes_and_environments(box: Box) -> None:
    script = """
import multiprocessing, subprocess, sys, asyncio
def work(n): print("child", n, flush=True)
if __name__ == "__main__":
    process = multiprocessing.get_context("fork").Process(target=work, args=(3,))
    process.start(); process.join()
    print(subprocess.run([sys.executable, "-c", "print('sub')"], capture_output=True, text=True).stdout.strip())
    async def main(): await asyncio.sleep(0); print("loop")
    asyncio.run(main())
    import venv; venv.create("env"); print(subprocess.run(["env/bin/python", "-c", "import sys; print(sys.prefix)"],
        capture_output=True, text=True).stdout.strip())
"""
    ended = await box.py(script)

    assert ended.stdout.splitlines() == ["child 3", "sub", "loop", str(box.work_dir / "env")], ended.stderr


# What it can't


@case_for(*CONFINED)
async def the_probe_saw_what_must_be_closed(box: Box) -> None:
    rows = {row.name: row for row in box.capabilities.confinements}

    assert set(rows) == {
        "files", "processes", "signals", "network", "metadata", "memory", "process_count", "disk",
    }  # fmt: skip
    assert all(rows[name].is_confined for name in ("files", "processes", "signals", "network"))
    assert all(row.is_confined or row.note for row in rows.values())
    assert all(rows[name].is_confined for name in ("memory", "disk")), rows
    assert rows["process_count"].is_confined or box.uid is None  # a uid or group of its own: counted apart


@attack(6)
@case_for(*CONFINED)
async def files_of_others_are_out_of_reach(box: Box) -> None:
    secret = box.work_dir / "secret"
    secret.write_text("of another task")
    secret.chmod(0o666)
    other = box.work_dir
    mine = box.new_task()
    database = box.data_dir / "beray.db"
    database.write_text("rows")
    (mine / "link").symlink_to(secret)
    (mine / "folder").symlink_to(other)
    script = f"""
cat {secret} link folder/secret /etc/shadow ~root/.bashrc {database} ~root/.profile && echo READ
ls {other} {box.data_dir} {box.data_dir}/tasks /root && echo LISTED
ls {box.data_dir} | grep beray.db
echo planted > {other}/planted
echo planted >> {secret}
: > {secret} && echo EMPTIED
rm {secret} && echo REMOVED
ln {secret} hard && echo LINKED
mv {secret} moved && echo MOVED
mkdir {box.data_dir}/made
echo x > /etc/planted || echo x > /usr/planted || echo x > /usr/local/bin/planted && echo SYSTEM
echo done
"""
    ended = await box.sh(script)

    lines = ended.stdout.splitlines()
    assert lines[-1] == "done"
    assert not {"READ", "LISTED", "beray.db", "EMPTIED", "REMOVED", "LINKED", "MOVED", "SYSTEM"} & set(lines)
    assert secret.read_text() == "of another task"
    assert sorted(path.name for path in other.iterdir()) == ["secret"]
    assert not (box.data_dir / "made").exists()


@attack(1)
@case_for(*CONFINED)
async def no_process_can_be_looked_into(box: Box) -> None:
    with decoy() as victim:
        script = f"""
for file in /proc/*/environ /proc/{victim.pid}/environ /proc/{os.getpid()}/environ; do
    tr '\\0' '\\n' < $file; done 2>/dev/null | grep -c {CANARY}
cat /proc/{os.getpid()}/maps /proc/{os.getpid()}/cmdline 2>/dev/null | tr '\\0' ' ' | grep -c python
"""
        ended = await box.sh(script)

    assert ended.stdout.split() == ["0", "0"]


@attack(2)
@case_for(*CONFINED)
async def command_lines_show_no_mounts(box: Box) -> None:
    ended = await box.sh("cat /proc/*/cmdline 2>/dev/null | tr '\\0' '\\n'")

    assert "--ro-bind" not in ended.stdout
    assert "work.home" not in ended.stdout


@attack(5)
@case_for(*CONFINED)
async def no_process_outside_can_be_signalled(box: Box) -> None:
    with decoy() as victim:
        ended = await box.sh(f"kill -9 {victim.pid}; kill -9 {os.getpid()}; kill -9 {os.getppid()}; echo after")
        assert ended.stdout == "after\n"
        await box.sh("kill -9 $PPID; kill -9 -1; echo all")
        python = "import os\nfor n in range(1, 100000):\n try: os.kill(n, 9)\n except OSError: pass"
        await box.py(python)

        assert victim.poll() is None
        assert (await box.run("echo", "alive")).stdout == "alive\n"


@case_for("landlock")
async def the_supervisor_can_not_be_signalled(box: Box) -> None:
    ended = await box.sh("kill -9 $PPID || echo refused")

    assert (ended.stdout, ended.exit.reason) == ("refused\n", "exit")


@attack(16)
@case_for(*CONFINED)
async def no_socket_of_this_machine_can_be_reached(box: Box) -> None:
    with contextlib.ExitStack() as stack:
        tcp = listen(stack, socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
        udp = listen(stack, socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
        abstract = listen(stack, socket.AF_UNIX, socket.SOCK_STREAM, f"\0{new_marker()}")
        by_path = listen(stack, socket.AF_UNIX, socket.SOCK_STREAM, str(box.data_dir / "socket"))
        (box.data_dir / "socket").chmod(0o777)
        script = """
import socket, sys
def reach(family, kind, address):
    try:
        with socket.socket(family, kind) as s:
            s.settimeout(3); s.connect(address); s.send(b"x")
    except OSError: pass
reach(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", int(sys.argv[1])))
reach(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", int(sys.argv[2])))
reach(socket.AF_UNIX, socket.SOCK_STREAM, "\\0" + sys.argv[3])
reach(socket.AF_UNIX, socket.SOCK_STREAM, sys.argv[4])
for host in ("169.254.169.254", "10.0.0.1"):
    try: socket.create_connection((host, 80), 1)
    except OSError: continue
    print("REACHED", host)
for family, kind in ((17, 3), (38, 5), (40, 1)):
    try: socket.socket(family, kind)
    except OSError: continue
    print("MADE", family)
print("done")
"""
        name = abstract.getsockname()[1:].decode()
        ports = [str(item.getsockname()[1]) for item in (tcp, udp)]
        ended = await box.py(script, *ports, name, str(box.data_dir / "socket"))

        assert ended.stdout == "done\n", ended.stderr
        for listener in (tcp, udp, abstract, by_path):
            try:
                listener.recv(1) if listener is udp else listener.accept()
            except BlockingIOError:
                continue
            raise AssertionError(f"{listener} was reached")


def listen(stack: contextlib.ExitStack, family: int, kind: int, address: Any) -> socket.socket:
    listener = stack.enter_context(socket.socket(family, kind))
    with contextlib.suppress(FileNotFoundError, TypeError):
        Path(address).unlink() if isinstance(address, str) and address[0] != "\0" else None
    listener.bind(address)
    listener.setblocking(False)
    if kind == socket.SOCK_STREAM:
        listener.listen()
    return listener


SYSTEM_CALLS = """
import ctypes, errno, os, platform, sys
libc = ctypes.CDLL(None, use_errno=True)
x86 = platform.machine() == "x86_64"
def call(name, number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    print(name, "OK" if result >= 0 else errno.errorcode[ctypes.get_errno()])
parent = os.getppid()
call("unshare", 272 if x86 else 97, 0x10000000)
call("setns", 308 if x86 else 268, 0, 0)
call("mount", 165 if x86 else 40, b"none", b"/tmp", b"tmpfs", 0, 0)
call("ptrace", 101 if x86 else 117, 16, parent, 0, 0)
call("bpf", 321 if x86 else 280, 0, 0, 0)
call("io_uring", 425, 1, 0)
call("keyctl", 250 if x86 else 219, 0, -3, 0)
call("perf", 298 if x86 else 241, 0, 0, -1, -1, 0)
call("userfaultfd", 323 if x86 else 282, 0)
call("handle", 304 if x86 else 265, 0, 0, 0)
call("clone", 56 if x86 else 220, 0x10000000 | 17, 0, 0, 0, 0)
call("clone3", 435, 0, 0)
call("shmget", 29 if x86 else 194, 1, 4096, 0o1600)
call("process_vm_readv", 310 if x86 else 270, parent, 0, 0, 0, 0, 0)
if x86: call("x32", 0x40000000 | 39)
try: os.setuid(0); print("setuid OK")
except OSError as e: print("setuid", errno.errorcode[e.errno])
for line in open("/proc/self/status") if os.access("/proc/self/status", os.R_OK) and sys.argv[1:] else ():
    if line.startswith(("CapEff", "NoNewPrivs", "Seccomp:")): print(line.split()[0], line.split()[1])
"""


@attack(18)
@case_for(*CONFINED)
async def dangerous_system_calls_are_refused(box: Box) -> None:
    ended = await box.py(SYSTEM_CALLS)

    answers = dict(line.split() for line in ended.stdout.splitlines())
    assert answers.pop("clone3") == "ENOSYS"
    assert answers.pop("x32", "ENOSYS") == "ENOSYS"
    assert answers.pop("setuid") in ("EPERM", "EINVAL")  # EINVAL: there is no uid 0 in the user namespace
    assert set(answers.values()) == {"EPERM"}, answers
    assert len(answers) >= 13, ended.stderr


I386_CALL = """
import ctypes, mmap
code = bytes.fromhex("b814000000cd80c3")  # mov eax, 20 (getpid of i386); int 0x80; ret
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(code)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
print("ANSWERED", ctypes.CFUNCTYPE(ctypes.c_int)(address)())
"""


@attack(20)
@case_for(*CONFINED)
async def calls_of_another_architecture_are_refused(box: Box) -> None:
    """x32's are tried with the dangerous ones. A kernel without i386 answers by SIGSEGV before the filter is asked."""
    if os.uname().machine != "x86_64":
        raise NotHere("only x86_64 has calls of other architectures")
    ended = await box.py(I386_CALL)

    assert ended.stdout == ""
    assert ended.code in (-signal.SIGSYS, -signal.SIGSEGV)


@case_for("bubblewrap", "container")
async def a_command_has_no_capabilities_and_gains_none(box: Box) -> None:
    ended = await box.py(SYSTEM_CALLS, "status")

    assert "CapEff: 0000000000000000" in ended.stdout
    assert "NoNewPrivs: 1" in ended.stdout
    assert "Seccomp: 2" in ended.stdout


@attack(19)
@case
async def a_setuid_program_gives_nothing(box: Box) -> None:
    """A copy of `id` with the setuid bit, and whatever setuid programs the system has."""
    ended = await box.sh("cp $(command -v id) copy && chmod 6755 copy && ./copy -u; id -u; su -c id </dev/null; true")

    lines = [line for line in ended.stdout.split() if line.isdigit()]
    assert len(lines) == 2
    assert "0" not in lines
    assert "uid=0" not in ended.stdout


@attack(18)
@case_for(*CONFINED)
async def terminal_input_can_not_be_pushed(box: Box) -> None:
    script = """
import errno, fcntl
for number in (0x5412, 0x541C):
    try: fcntl.ioctl(0, number, b"x")
    except OSError as e: print(errno.errorcode[e.errno])
"""
    assert (await box.py(script)).stdout.split() == ["EPERM", "EPERM"]


@attack(3)
@case
async def a_planted_link_to_the_old_root_makes_nothing_outside(box: Box) -> None:
    """CVE-2026-87766: bubblewrap followed links while it made mount points below an attacker's folder."""
    victim = box.work_dir
    box.new_task()
    script = f"""
for name in home tmp usr .cache work work.home; do ln -sfn /oldroot{victim}/$name $name; done
rm -rf ~/* ; for name in tmp .cache .config; do ln -sfn /oldroot{victim}/$name ~/$name; done; true
"""
    await box.sh(script)

    await box.sh("mkdir -p home/x tmp/x ~/tmp/x; true", cwd="work")

    assert list(victim.iterdir()) == []


@attack(9)
@case_for("bubblewrap", "container")
async def memory_folders_are_small_and_the_rest_is_read_only(box: Box) -> None:
    script = """
for file in /tmp/fill /dev/shm/fill; do head -c 200000000 /dev/zero > $file 2>/dev/null; wc -c < $file; done
for file in /dev/fill /fill /etc/fill /usr/fill /run/fill /var/fill; do echo x > $file && echo WROTE $file; done
echo done
"""
    ended = await box.sh(script)

    first, second, last = ended.stdout.split()
    assert max(int(first), int(second)) <= 64 << 20
    assert last == "done"


@attack(9)
@case_for("landlock")
async def shared_folders_of_the_machine_can_not_be_filled(box: Box) -> None:
    """Where every command would see the machine's own."""
    ended = await box.sh(
        "for folder in /tmp /dev/shm /dev /run /var/tmp; do echo x > $folder/fill && echo WROTE; done; echo done"
    )

    assert ended.stdout == "done\n"


PLANTED = """
mkdir -p .config/bubblewrap .beray ~/.config bin
for file in .env beray.env BERAY.toml .beray/config.toml .config/bubblewrap/args ~/.bwraprc; do
    printf 'BERAY_SANDBOX=none\\nallow=all\\n--bind / /\\n' > $file; done
for file in .bashrc .bash_profile .profile ~/.bashrc ~/.bash_profile ~/.profile; do echo 'echo PLANTED' > $file; done
echo 'print("PLANTED")' > sitecustomize.py; cp sitecustomize.py usercustomize.py
site=~/.local/lib/python3.11/site-packages; mkdir -p $site && cp sitecustomize.py $site/usercustomize.py
for name in sh bash env prlimit bwrap true; do printf '#!/bin/sh\\necho PLANTED\\n' > $name; chmod +x $name; done
"""


@attack(26)
@case_for(*CONFINED)
async def a_configuration_planted_in_the_work_dir_is_ignored(box: Box) -> None:
    await box.sh(PLANTED)

    shell = await box.sh(f"true; cat /etc/shadow {box.data_dir}/sandbox/../tasks/* || echo still confined")
    python = await box.py("print('python')")

    assert shell.stdout == "still confined\n"
    assert python.stdout == "python\n"


@case_for("landlock")
async def the_servers_own_limits_can_not_be_changed(box: Box) -> None:
    with decoy() as victim:
        before = os.sched_getaffinity(victim.pid), os.getpriority(os.PRIO_PROCESS, victim.pid)
        script = """
import os, resource, sys
pid = int(sys.argv[1])
for attempt in (
    lambda: os.sched_setaffinity(pid, {0}),
    lambda: os.setpriority(os.PRIO_PROCESS, pid, 19),
    lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, 3)),
):
    try: attempt(); print("DONE")
    except OSError: pass
os.sched_setaffinity(0, os.sched_getaffinity(0)); os.nice(1)
print("own ok")
"""
        ended = await box.py(script, str(victim.pid))

        assert ended.stdout == "own ok\n", ended.stderr
        assert (os.sched_getaffinity(victim.pid), os.getpriority(os.PRIO_PROCESS, victim.pid)) == before


@case
async def close_ends_what_still_runs(box: Box) -> None:
    """The last case: it uses a sandbox of its own, closed while commands run."""
    marker = new_marker()
    async with open_box(box.sandbox.name, box.data_dir / "closing") as inner:
        process = await inner.start("bash", "-c", f"setsid sh -c 'sleep 1000; : {marker}' & echo up; sleep 1000")
        await read_line(process)

    assert processes_with(marker) == []
    assert (await process.wait()).reason == "stopped"
    assert await inner.refusal("true")


# Running them


@contextlib.asynccontextmanager
async def open_box(backend: str, data_dir: Path) -> AsyncIterator[Box]:
    """A sandbox of that backend, closed at the end; `landlock:3` is Landlock as a kernel of ABI 3 has it."""
    sandbox: Sandbox
    if backend.startswith("landlock:"):
        sandbox, capabilities = await _open_old_landlock(int(backend.partition(":")[2]), data_dir)
    else:
        sandbox, capabilities = await open_sandbox(settings_for(backend), data_dir=data_dir)
        assert capabilities.backend == backend
    try:
        yield Box(sandbox, capabilities, data_dir)
    finally:
        await sandbox.close()


def settings_for(backend: str) -> Settings:
    """What an operator sets to get this backend here."""
    if backend != "container":
        return Settings(sandbox=backend)
    engine = engine_here()
    return Settings(
        sandbox=backend, sandbox_container_engine=engine.kind, sandbox_container_image=image_here(engine.program)
    )


async def _open_old_landlock(abi: int, data_dir: Path) -> tuple[GuardedSandbox, Capabilities]:
    uid = TaskUids().of_probe
    layout = prepare_layout(data_dir, is_root=uid is not None)
    sandbox = GuardedSandbox(LandlockConfine(abi), layout, probe_uid=uid)
    try:
        return sandbox, await sandbox.probe()
    except SandboxUnavailable:
        await sandbox.close()
        raise


async def run_cases(backend: str, names: Sequence[str], data_dir: Path) -> AsyncIterator[tuple[str, str | None]]:
    """Each case's name and its traceback, None if it passed or can't be tried here."""
    async with open_box(backend, data_dir) as box:
        for name in names:
            box.new_task()
            try:
                async with asyncio.timeout(60):
                    await CASES[name](box)
            except NotHere:
                yield name, None
            except Exception:
                yield name, traceback.format_exc()
            else:
                yield name, None


def enter_container() -> None:
    """Refuse this process, and all it starts, what an ordinary container does: namespaces, ptrace, pidfd_getfd."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    install_seccomp(build_filter(os.uname().machine, FilterRules(has_sockets=True, sees_others=False)))


async def _main(backend: str, data_dir: str, where: str, *names: str) -> None:
    if where == "in-container":
        enter_container()
    async for name, failure in run_cases(backend, names or cases_of(backend), Path(data_dir)):
        print(json.dumps({"case": name, "failure": failure}), flush=True)


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
