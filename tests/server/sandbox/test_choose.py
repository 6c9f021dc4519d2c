"""Which sandbox a server gets, and what it is told when it gets none."""

import os
from pathlib import Path

import pytest

from beray.server.sandbox.base import Capabilities, SandboxUnavailable
from beray.server.sandbox.choose import is_loopback, open_sandbox
from beray.server.sandbox.guard import landlock as kernel
from beray.server.settings import CONFINEMENTS, SettingError, Settings


async def opened(data_dir: Path, **settings: object) -> Capabilities:
    sandbox, capabilities = await open_sandbox(Settings(**settings), data_dir=data_dir)
    await sandbox.close()
    return capabilities


@pytest.fixture
def data_dir(service_dir: Path, request: pytest.FixtureRequest) -> Path:
    """A data folder of the test's own, not made yet."""
    return service_dir / f"choose-{request.node.name}"


@pytest.fixture
def no_bubblewrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No bwrap in PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.mark.needs("bubblewrap")
async def test_the_strongest_is_chosen(data_dir: Path) -> None:
    assert (await opened(data_dir)).backend == "bubblewrap"


@pytest.mark.needs("landlock")
@pytest.mark.usefixtures("no_bubblewrap")
async def test_attack_21_without_bubblewrap_landlock_is_chosen_and_named(data_dir: Path) -> None:
    capabilities = await opened(data_dir)

    assert capabilities.backend == "landlock"
    assert any(note.startswith("Landlock ABI") for note in capabilities.notes)
    assert "not here: bubblewrap: the program bwrap is not installed" in capabilities.notes
    assert capabilities.python is not None


@pytest.mark.usefixtures("no_bubblewrap")
async def test_attack_21_without_any_the_start_fails_with_every_reason_and_remedy(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "abi", lambda: 0)

    with pytest.raises(SandboxUnavailable) as error:
        await opened(data_dir)

    for part in ("bwrap is not installed", "has no Landlock", "apt install bubblewrap", "AppArmor", "5.13", "SETUID"):
        assert part in str(error.value)
    assert "BERAY_SANDBOX=none" in str(error.value)


@pytest.mark.usefixtures("no_bubblewrap")
async def test_a_backend_asked_for_is_never_replaced_by_another(data_dir: Path) -> None:
    with pytest.raises(SandboxUnavailable, match=r"BERAY_SANDBOX=bubblewrap can't .*bwrap is not installed.*=auto"):
        await opened(data_dir, sandbox="bubblewrap")


async def test_none_is_taken_only_when_asked_for_and_says_what_it_is(data_dir: Path) -> None:
    capabilities = await opened(data_dir, sandbox="none")

    assert capabilities.backend == "none"
    assert any("nothing is confined" in note for note in capabilities.notes)
    rows = {row.name: row.is_confined for row in capabilities.confinements}
    assert not rows["network"]
    assert not rows["files"]


async def test_a_confinement_the_operator_insists_on_must_be_there(data_dir: Path) -> None:
    with pytest.raises(SandboxUnavailable, match=r"BERAY_SANDBOX_REQUIRE asks for .*network: a command can"):
        await opened(data_dir, sandbox="none", sandbox_require=("memory", "network"))


@pytest.mark.needs("landlock")
async def test_a_confinement_that_is_there_may_be_insisted_on(data_dir: Path) -> None:
    capabilities = await opened(data_dir, sandbox="landlock", sandbox_require=("memory", "disk", "files"))

    assert {row.name for row in capabilities.confinements} == set(CONFINEMENTS)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
async def test_attack_22_none_is_refused_where_others_can_reach_the_server(data_dir: Path, host: str) -> None:
    with pytest.raises(SandboxUnavailable, match="BERAY_HOST"):
        await opened(data_dir, sandbox="none", host=host)

    assert not data_dir.exists()


@pytest.mark.parametrize(
    ("host", "answer"),
    [("127.0.0.1", True), ("127.8.9.1", True), ("::1", True), ("[::1]", True), ("localhost", True), ("0.0.0.0", False)],
)
def test_loopback_is_recognised(host: str, answer: bool) -> None:
    assert is_loopback(host) is answer


@pytest.mark.needs("root")
async def test_a_data_folder_that_tasks_can_not_reach_is_refused_with_the_remedy(tmp_path: Path) -> None:
    """pytest's own folder is 0700, as /root is."""
    with pytest.raises(SandboxUnavailable, match="BERAY_DATA_DIR=/var/lib/beray"):
        await opened(tmp_path / "data", sandbox="none")


@pytest.mark.needs("user")
@pytest.mark.parametrize("setting", ["data_dir", "work_dirs"])
async def test_a_folder_that_every_command_may_read_is_refused(data_dir: Path, setting: str) -> None:
    """Without uids of their own, tasks would read each other's files there."""
    shown = Path("/usr/local/share/beray")
    settings = Settings(sandbox="auto", work_dirs=shown) if setting == "work_dirs" else Settings(sandbox="auto")

    with pytest.raises(SettingError, match=f"BERAY_{setting.upper()} cannot be {shown}: it lies below /usr"):
        await open_sandbox(settings, data_dir=shown if setting == "data_dir" else data_dir)


async def test_a_data_folder_that_can_not_be_made_is_refused(service_dir: Path) -> None:
    file = service_dir / "a-file"
    file.touch()

    with pytest.raises(SandboxUnavailable, match="can't be used"):
        await opened(file / "data", sandbox="none")


async def test_an_interpreter_that_was_set_but_does_not_run_is_an_error(data_dir: Path) -> None:
    with pytest.raises(SandboxUnavailable, match="BERAY_SANDBOX_PYTHON"):
        await opened(data_dir, sandbox="none", sandbox_python="/bin/true-is-no-python")


async def test_what_a_probe_needs_is_cleared_away(data_dir: Path) -> None:
    await opened(data_dir, sandbox="none")

    left = {path.name for path in (data_dir / "sandbox").iterdir()}
    assert {name for name in left if name.startswith(("probe", "."))} == set()
    assert {"bin", "gitconfig"} <= left
    assert os.access(data_dir / "sandbox" / "bin" / "python3", os.X_OK)
