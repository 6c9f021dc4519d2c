"""Quotas of a real file system: the kernel itself refuses what is more than a task may hold."""

from pathlib import Path
from typing import Any

import pytest

from beray.server.sandbox.base import Limits
from beray.server.sandbox.quota import find_quotas
from beray.server.sandbox.uids import TaskUids
from tests.support.quota_disk import QuotaDisk
from tests.support.sandbox_cases import open_box

LIMITS = Limits(disk_bytes=20 << 20)


def quota_disk(file_system: str, need: str) -> Any:
    return pytest.param(file_system, marks=pytest.mark.needs(need, "landlock"))


@pytest.mark.parametrize("file_system", [quota_disk("ext4", "quota"), quota_disk("xfs", "quota_xfs")])
async def test_writing_more_than_the_quota_fails_and_the_task_goes_on(file_system: str, service_dir: Path) -> None:
    with QuotaDisk(service_dir / f"quota-{file_system}", file_system) as disk:
        async with open_box("landlock", disk.path / "data") as box:
            rows = {row.name: (row.is_confined, row.note) for row in box.capabilities.confinements}
            over = await box.run("dd", "if=/dev/zero", "of=big", "bs=1M", "count=40", limits=LIMITS)
            again = await box.sh("rm big; head -c 5000000 /dev/zero > small && echo written", limits=LIMITS)

    assert rows["disk"] == (True, "")
    assert "Disk quota exceeded" in over.stderr
    assert over.exit.reason == "exit"
    assert again.stdout == "written\n"


@pytest.mark.needs("root")
def test_a_disk_without_quotas_has_none(service_dir: Path) -> None:
    """In memory: a tmpfs is never mounted with quotas unless it is asked for."""
    assert find_quotas(Path("/dev/shm"), TaskUids().of_probe) is None


def test_a_server_that_is_not_root_sets_none(service_dir: Path) -> None:
    assert find_quotas(service_dir, None) is None
