"""How bubblewrap is called."""

import tempfile
from pathlib import Path

import pytest

from beray.server.sandbox.backend import Place
from beray.server.sandbox.base import Limits, SandboxError
from beray.server.sandbox.bubblewrap import BubblewrapConfine, check_targets
from beray.server.sandbox.environment import Layout
from tests.support.sandbox_cases import open_box

PLACE = Place("/srv/tasks/1/work", "/srv/tasks/1/work.home", 4711, Layout(Path("/srv/sandbox"), ("/opt/python",)))

CONFINE = BubblewrapConfine("/usr/bin/bwrap", scopes_signals=True)


def targets(options: tuple[str, ...]) -> list[str]:
    """Where something is mounted or made."""
    at = {"--bind": 2, "--ro-bind": 2, "--ro-bind-try": 2, "--symlink": 2}
    at |= {"--dir": 1, "--tmpfs": 1, "--proc": 1, "--dev": 1}
    return [options[index + at[option]] for index, option in enumerate(options) if option in at]


def test_attack_04_nothing_is_mounted_below_a_folder_that_commands_write() -> None:
    job = CONFINE.confine(PLACE, Limits())

    found = targets(job.options)

    assert {PLACE.work_dir, PLACE.home, "/opt/python", "/proc", "/tmp"} <= set(found)
    assert not [target for target in found if target.startswith((f"{PLACE.work_dir}/", f"{PLACE.home}/"))]


def test_only_the_tasks_own_folders_are_writable_on_disk() -> None:
    job = CONFINE.confine(PLACE, Limits())
    options = job.options

    written = [options[index + 2] for index, option in enumerate(options) if option == "--bind"]

    assert written == [PLACE.home, PLACE.work_dir]
    assert job.last_options == ("--remount-ro", "/")


def test_every_memory_folder_has_a_size() -> None:
    options = CONFINE.confine(PLACE, Limits()).options

    sizes = [options[index - 2] for index, option in enumerate(options) if option == "--tmpfs"]

    assert sizes == ["--size", "--size"]


def test_a_mount_point_below_a_writable_folder_is_refused() -> None:
    options = ("--ro-bind", "/usr", f"{PLACE.work_dir}/usr")

    with pytest.raises(SandboxError, match="can't be mounted"):
        check_targets(options, writable=(PLACE.work_dir, PLACE.home))


@pytest.mark.needs("bubblewrap")
async def test_work_dir_below_var_tmp_has_the_same_name_inside() -> None:
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o711)
        async with open_box("bubblewrap", Path(folder) / "data") as box:
            ended = await box.sh("pwd; echo x > /var/tmp/mine && cat /var/tmp/mine")

    assert ended.stdout.split() == [str(box.work_dir), "x"], ended.stderr
