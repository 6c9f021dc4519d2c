"""What only the container sandbox has: an engine that may be missing, containers that may be left, an image."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from beray.server.sandbox.base import Limits, SandboxError, SandboxUnavailable
from beray.server.sandbox.choose import open_sandbox
from beray.server.sandbox.container import process as process_module
from beray.server.sandbox.container.engine import Engine, find_engine, label_of
from beray.server.sandbox.container.frames import OUT, PIECE_BYTES, BadFrame, FrameReader, frame
from beray.server.sandbox.container.place import Holding, check_mountable, is_held, remove_leftovers
from beray.server.sandbox.container.sandbox import ContainerSandbox
from beray.server.settings import Settings
from tests.support.container_image import engine_here, image_here
from tests.support.sandbox_cases import Box, new_marker, processes_with, read_line
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

RECORDER = """#!/bin/sh
env -0 > "{folder}/environment-$$"
printf '%s\\0' "$@" > "{folder}/arguments-$$"
exec {program} "$@"
"""


@pytest.fixture(scope="module")
def engine() -> Engine:
    return engine_here()


@pytest.fixture(scope="module")
def recorder(engine: Engine, module_dir: Path) -> Path:
    """The engine's program, behind a script that notes what each run of it was given."""
    folder = module_dir / "recorder"
    folder.mkdir()
    program = folder / "engine"
    program.write_text(RECORDER.format(folder=folder, program=engine.program))
    program.chmod(0o755)
    return program


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def box(recorder: Path, engine: Engine, module_dir: Path) -> AsyncIterator[Box]:
    """An open sandbox; the server's variables hold what no engine must be given."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BERAY_MODEL_API_KEY", "key-of-the-model")
        settings = Settings(
            sandbox="container",
            sandbox_container_engine=str(recorder),
            sandbox_container_image=image_here(engine.program),
        )
        data_dir = module_dir / "box"
        sandbox, capabilities = await open_sandbox(settings, data_dir=data_dir)
        yield Box(sandbox, capabilities, data_dir)
        await sandbox.close()


@pytest.fixture
def task(box: Box) -> Box:
    box.new_task()
    return box


def told(recorder: Path, kind: str) -> bytes:
    return b"".join(path.read_bytes() for path in recorder.parent.glob(f"{kind}-*"))


@pytest.mark.needs("container")
async def test_the_engine_is_given_neither_the_servers_variables_nor_the_command(task: Box, recorder: Path) -> None:
    marker = new_marker()

    await task.run("echo", marker, env={"GIVEN": marker}, stdin=marker.encode())

    assert b"HOME=" in told(recorder, "environment")
    assert b"key-of-the-model" not in told(recorder, "environment")
    assert b"\0run\0" in b"\0" + told(recorder, "arguments")
    assert marker.encode() not in told(recorder, "arguments")


@pytest.mark.needs("container")
async def test_the_container_is_shut_off_in_the_engines_own_words(task: Box, engine: Engine) -> None:
    process = await task.start("bash", "-c", "echo up; sleep 1000", limits=Limits(memory_bytes=300 << 20, processes=50))
    await read_line(process)
    ((number, _),) = await asyncio.to_thread(engine.containers, label_of(task.data_dir))

    (seen,) = json.loads(await asyncio.to_thread(engine.ask, "inspect", number))

    await process.kill()
    host = seen["HostConfig"]
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["Privileged"]) == ("none", True, False)
    assert host["PidsLimit"] == 51
    assert 300 << 20 <= host["Memory"] == host["MemorySwap"] <= 350 << 20
    assert "no-new-privileges" in host["SecurityOpt"]
    assert (
        seen["Config"]["User"]
        == f"{os.getuid() if task.uid is None else task.uid}:" + seen["Config"]["User"].split(":")[1]
    )
    assert not seen["Config"]["User"].startswith("0")
    sources = [mount["Source"] for mount in seen["Mounts"]]
    assert all(Path(source).is_relative_to(os.path.realpath(task.data_dir)) for source in sources if source), sources
    writable = {mount["Destination"] for mount in seen["Mounts"] if mount["RW"] and mount["Type"] == "bind"}
    assert writable == {str(task.work_dir), f"{task.work_dir}.home"}


@pytest.mark.needs("container")
async def test_the_sum_of_memory_ends_a_command(task: Box) -> None:
    """Each process stays below the limit, which is also its own; together they don't."""
    rows = {row.name: row for row in task.capabilities.confinements}
    if not rows["memory"].is_confined:
        pytest.skip(rows["memory"].note)
    script = """
import os
for _ in range(3):
    if os.fork() == 0:
        kept = bytearray(b"x") * (100 << 20)
        os.read(os.pipe()[0], 1)
os.read(os.pipe()[0], 1)
"""
    ended = await task.py(script, limits=Limits(wall_seconds=60, memory_bytes=200 << 20))

    assert ended.exit.reason == "memory"


@pytest.mark.needs("container")
async def test_a_container_whose_first_process_the_kernel_kills_was_out_of_memory(task: Box, engine: Engine) -> None:
    marker = new_marker()
    process = await task.start("bash", "-c", f"echo up; sleep 1000 & exec -a {marker} sleep 1000")
    await read_line(process)
    ((number, _),) = await asyncio.to_thread(engine.containers, label_of(task.data_dir))
    (seen,) = json.loads(await asyncio.to_thread(engine.ask, "inspect", number))

    os.kill(seen["State"]["Pid"], signal.SIGKILL)

    assert (await process.wait()).reason == "memory"
    assert processes_with(marker) == []


@pytest.mark.needs("container")
async def test_ended_commands_leave_no_container_and_no_file(task: Box, engine: Engine) -> None:
    await task.run("true")
    servers = task.data_dir / "sandbox" / "container" / "servers"

    async def has_gone() -> bool:
        return not await asyncio.to_thread(engine.containers, label_of(task.data_dir))

    await until(has_gone, what="the container's removal")
    await until(lambda: [path.name for path in servers.rglob("*") if path.is_file()] == ["lock"], what="the files' end")


@pytest.fixture
def left(engine: Engine) -> Iterator["list[str]"]:
    """Ids of containers that a test makes; removed at its end."""
    made: list[str] = []
    yield made
    engine.remove(made)


@pytest.mark.needs("container")
async def test_containers_of_a_dead_server_are_removed_and_those_of_others_are_not(
    engine: Engine, left: list[str], service_dir: Path
) -> None:
    data_dir, other_dir = service_dir / "leftovers", service_dir / "leftovers-of-others"
    servers = data_dir / "servers"
    data_dir.mkdir()
    living = Holding(servers)

    def make(folder: Path, token: str) -> str:
        labels = ("--label", label_of(folder), "--label", f"beray.server={token}")
        number = engine.ask("create", "--network", "none", *labels, image_here(engine.program), "/bin/true")[:12]
        left.append(number)
        return number

    dead, alive, foreign = make(data_dir, "0123abcd"), make(data_dir, living.token), make(other_dir, "0123abcd")

    removed = remove_leftovers(engine, data_dir, servers)

    living.release()
    assert removed == 1
    assert [number for number, _ in engine.containers(label_of(data_dir))] == [alive]
    assert [number for number, _ in engine.containers(label_of(other_dir))] == [foreign]
    assert dead not in (alive, foreign)


async def test_a_server_is_alive_as_long_as_it_holds_its_folder(tmp_path: Path) -> None:
    holding = Holding(tmp_path / "servers")
    assert is_held(tmp_path / "servers", holding.token)

    holding.release()
    holding.release()

    assert not is_held(tmp_path / "servers", holding.token)


async def refusal(service_dir: Path, **settings: object) -> str:
    with pytest.raises(SandboxUnavailable) as error:
        await open_sandbox(Settings(sandbox="container", **settings), data_dir=service_dir / "refused")
    return str(error.value)


@pytest.mark.needs("container")
async def test_a_missing_image_is_not_fetched_and_the_remedy_told(engine: Engine, service_dir: Path) -> None:
    reason = await refusal(service_dir, sandbox_container_engine=engine.program, sandbox_container_image="no-such:1")

    for part in ("no image no-such:1", f"{engine.kind} pull no-such:1", "build it", "BERAY_SANDBOX_CONTAINER_IMAGE"):
        assert part in reason


@pytest.mark.needs("container")
async def test_an_unknown_runtime_is_told(engine: Engine, service_dir: Path) -> None:
    reason = await refusal(
        service_dir,
        sandbox_container_engine=engine.program,
        sandbox_container_image=image_here(engine.program),
        sandbox_container_runtime="no-such-runtime",
    )

    assert "the container was not started" in reason.lower()
    assert "no-such-runtime" in reason


@pytest.mark.needs("container")
async def test_an_image_without_the_interpreter_is_told(engine: Engine, service_dir: Path) -> None:
    reason = await refusal(
        service_dir,
        sandbox_container_engine=engine.program,
        sandbox_container_image=image_here(engine.program),
        sandbox_python="/opt/no-such-python",
    )

    assert "/opt/no-such-python" in reason


async def test_a_missing_engine_and_another_program_are_told(service_dir: Path) -> None:
    assert "apt install podman" in await refusal(service_dir, sandbox_container_engine="/no/such/podman")
    assert "neither podman nor docker" in await refusal(service_dir, sandbox_container_engine="/bin/echo")


SILENT = """#!/bin/sh
case $1 in --version) echo "Docker version 27.0";; *) echo "Cannot connect to the daemon" >&2; exit 1;; esac
"""


async def test_an_engine_that_does_not_answer_is_told(tmp_path: Path) -> None:
    program = tmp_path / "docker"
    program.write_text(SILENT)
    program.chmod(0o755)

    with pytest.raises(SandboxUnavailable, match=r"docker does not answer: Cannot connect .*start its service"):
        find_engine(str(program))


@contextlib.asynccontextmanager
async def open_with(program: Path, engine: Engine, data_dir: Path) -> AsyncIterator[Box]:
    """A sandbox whose engine is called by another program; closed at the end."""
    settings = Settings(
        sandbox="container",
        sandbox_container_engine=str(program),
        sandbox_container_image=image_here(engine.program),
    )
    sandbox, capabilities = await open_sandbox(settings, data_dir=data_dir)
    try:
        yield Box(sandbox, capabilities, data_dir)
    finally:
        await sandbox.close()


@pytest.mark.needs("container")
async def test_an_engine_that_goes_away_is_an_error_of_the_command(engine: Engine, service_dir: Path) -> None:
    program = service_dir / "vanishing"
    program.symlink_to(engine.program)
    async with open_with(program, engine, service_dir / "vanished") as box:
        program.unlink()

        with pytest.raises(SandboxError, match="No such file"):
            await box.run("true")
        sandbox = box.sandbox
        assert isinstance(sandbox, ContainerSandbox)
        await until(lambda: not sandbox.client_pids, what="the end of all clients")


STUCK_REMOVAL = """#!/bin/sh
if [ "$1" = rm ] && [ -e "{folder}/stuck" ]; then exec sleep 1000; fi
exec {program} "$@"
"""


@pytest.mark.needs("container")
async def test_a_removal_that_is_never_answered_keeps_nobody(
    engine: Engine, service_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The container ends all the same, for the client that held its standard input is gone."""
    monkeypatch.setattr(process_module, "REMOVE_SECONDS", 0.2)
    folder = service_dir / "stuck-removal"
    folder.mkdir()
    program = folder / "engine"
    program.write_text(STUCK_REMOVAL.format(folder=folder, program=engine.program))
    program.chmod(0o755)
    async with open_with(program, engine, folder / "data") as box:
        marker = new_marker()
        process = await box.start("bash", "-c", f"echo up; exec -a {marker} sleep 1000")
        await read_line(process)
        assert isinstance(box.sandbox, ContainerSandbox)
        (client,) = box.sandbox.client_pids
        (folder / "stuck").touch()

        os.kill(client, signal.SIGKILL)

        assert (await asyncio.wait_for(process.wait(), 20)).reason == "lost"
        await until(lambda: not processes_with(marker), what="the end of the command")
        (folder / "stuck").unlink()


@pytest.mark.parametrize("name", ["a,b", "a:b", 'a"b', "a\nb"])
async def test_a_folder_that_engines_can_not_mount_is_refused(name: str) -> None:
    with pytest.raises(SandboxUnavailable, match="BERAY_DATA_DIR"):
        check_mountable(Path("/srv") / name)


async def test_frames_are_cut_wherever_the_bytes_are_split() -> None:
    sent = [(OUT, b""), (OUT, b"x" * 300), (b"M", b"\0\xff")]
    raw = b"".join(frame(*each) for each in sent)

    for size in (1, 7, len(raw)):
        reader = FrameReader(PIECE_BYTES)
        pieces = [raw[start : start + size] for start in range(0, len(raw), size)]
        assert [each for piece in pieces for each in reader.feed(piece)] == sent


async def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(BadFrame):
        list(FrameReader(PIECE_BYTES).feed(b"Traceback (most recent call last):"))
