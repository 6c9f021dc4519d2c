"""Which uids tasks get."""

import os
import subprocess
import sys

import pytest

from beray.server.sandbox.base import SandboxUnavailable
from beray.server.sandbox.uids import TaskUids, choose_uids, common_ranges, missing_capabilities, parse_id_map

EVERYTHING = [range(2**32 - 1)]
DOCKER_LIKE = [range(65_536)]


@pytest.mark.needs("root")
def test_tasks_of_a_root_server_have_uids_of_their_own() -> None:
    uids = TaskUids()

    assert uids(1) != uids(2)
    assert uids(1) == TaskUids()(1)
    assert 0 not in {uids(number) for number in range(1000)}
    assert uids.of_probe not in {uids(number) for number in range(1000)}


@pytest.mark.needs("root")
def test_the_operator_chooses_the_first_uid() -> None:
    assert TaskUids(500_000)(0) == 500_000


@pytest.mark.needs("user")
def test_tasks_of_an_ordinary_server_have_its_uid() -> None:
    assert TaskUids()(1) is None
    assert TaskUids(500_000).of_probe is None


def test_uids_come_from_an_unused_range() -> None:
    assert choose_uids(EVERYTHING, 0).start == 1_900_000_000
    assert choose_uids(DOCKER_LIKE, 0) == range(30_000, 60_000)
    assert choose_uids(DOCKER_LIKE, 65_000) == range(65_000, 65_536)


@pytest.mark.parametrize(("mapped", "first"), [([range(1)], 0), ([range(1000)], 0), (DOCKER_LIKE, 65_530), ([], 0)])
def test_too_few_uids_are_refused_with_the_remedy(mapped: list[range], first: int) -> None:
    with pytest.raises(SandboxUnavailable, match="BERAY_SANDBOX_UID_BASE"):
        choose_uids(mapped, first)


def test_an_id_map_tells_what_exists() -> None:
    content = "         0     100000      65536\n   100000          0          1\n"

    assert parse_id_map(content) == [range(65_536), range(100_000, 100_001)]
    assert common_ranges([range(10), range(20, 30)], [range(5, 25)]) == [range(5, 10), range(20, 25)]


def test_missing_capabilities_are_named() -> None:
    assert missing_capabilities("Name:\tx\nCapEff:\t000001ffffffffff\n") == []
    assert missing_capabilities("CapEff:\t0000000000000000\n") == ["CHOWN", "DAC_OVERRIDE", "KILL", "SETGID", "SETUID"]
    assert missing_capabilities("CapEff:\t000001ffffffff7f\n") == ["SETUID"]


@pytest.mark.needs("root")
def test_attack_23_a_root_server_that_may_not_change_uids_is_told_what_to_do() -> None:
    """Root that has lost CAP_SETUID, as in a container with dropped capabilities."""
    script = """
import os, sys
from beray.server.sandbox.guard.libc import PR_CAPBSET_DROP, prctl
prctl(PR_CAPBSET_DROP, 7)
os.execv(sys.executable, [sys.executable, "-c", '''
from beray.server.sandbox.base import SandboxUnavailable
from beray.server.sandbox.uids import TaskUids
try: print(TaskUids()(1))
except SandboxUnavailable as error: print(error)
'''])
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    assert "lacks the capabilities SETUID" in ended.stdout
    assert "as an ordinary user" in ended.stdout
    assert os.geteuid() == 0
