"""Every sandbox keeps the same promises: the cases of `tests/support/sandbox_cases.py`, for each backend, for each
user.

Run by root they run twice: as root, where commands get a uid of their own, and once more by an ordinary user.
"""

import asyncio
from pathlib import Path

import pytest

from tests.support.ordinary_user import ORDINARY_UID, CaseRun, run_cases_apart
from tests.support.run_case import CASE_SECONDS, OpenOnce, run_case
from tests.support.sandbox_cases import ATTACKS, CASES, cases_of, open_box


def _backend(name: str, *needed: str) -> object:
    names = needed if name == "none" else (name, *needed)
    return pytest.param(name, marks=pytest.mark.needs(*names), id=name)


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(
    ("backend", "name"),
    [
        pytest.param(
            backend, name, id=f"{backend}-{name}", marks=[] if backend == "none" else [pytest.mark.needs(backend)]
        )
        for backend in ("bubblewrap", "landlock", "container", "none")
        for name in cases_of(backend)
        if name not in ATTACKS
    ],
)
async def test_sandbox_keeps_its_promise(backend: str, name: str, open_once: OpenOnce) -> None:
    """Attacks are run by `tests/attacks/test_sandbox.py`."""
    await run_case(open_once, backend, name)


@pytest.mark.parametrize(
    "backend", [_backend(name, "root", "python_for_all") for name in ("bubblewrap", "landlock", "none")]
)
def test_sandbox_of_an_ordinary_user_keeps_its_promises(backend: str, service_dir: Path) -> None:
    """Nothing of root's helps, and commands have the server's own uid."""
    failures = run_cases_apart(CaseRun(backend, uid=ORDINARY_UID), service_dir)

    assert failures == dict.fromkeys(cases_of(backend))


@pytest.mark.needs("landlock")
def test_landlock_keeps_its_promises_where_nobody_may_make_a_namespace(service_dir: Path) -> None:
    """As in an ordinary container: unshare, ptrace, pidfd_getfd and the like are refused to the server itself."""
    failures = run_cases_apart(CaseRun("landlock", uid=None, in_container=True), service_dir)

    assert failures == dict.fromkeys(cases_of("landlock"))


@pytest.mark.needs("landlock", "root", "python_for_all")
def test_landlock_of_an_ordinary_user_keeps_its_promises_in_a_container(service_dir: Path) -> None:
    """The same, without root."""
    failures = run_cases_apart(CaseRun("landlock", uid=ORDINARY_UID, in_container=True), service_dir)

    assert failures == dict.fromkeys(cases_of("landlock"))


OLD_KERNEL_CASES = (
    "exit_statuses_are_told",
    "kill_ends_150_processes_that_ignore_sigterm",
    "what_a_command_leaves_behind_is_gone_when_it_ends",
    "a_killed_supervisor_is_told_and_its_command_ended",
    "a_killed_fork_server_is_replaced_and_its_commands_ended",
    "files_of_others_are_out_of_reach",
    "no_process_can_be_looked_into",
    "no_process_outside_can_be_signalled",
    "the_supervisor_can_not_be_signalled",
    "no_socket_of_this_machine_can_be_reached",
    "dangerous_system_calls_are_refused",
    "usual_tools_work",
)


@pytest.mark.needs("landlock", "root")
@pytest.mark.parametrize("abi", range(1, 6))
async def test_landlock_of_an_old_kernel_confines_a_uid_of_its_own(abi: int, service_dir: Path) -> None:
    """As root, what Landlock itself can't close there is closed by the task's uid and the filter."""
    async with open_box(f"landlock:{abi}", service_dir / f"old-{abi}") as box:
        for name in OLD_KERNEL_CASES:
            box.new_task()
            async with asyncio.timeout(CASE_SECONDS):
                await CASES[name](box)


@pytest.mark.needs("landlock", "root", "python_for_all")
@pytest.mark.parametrize("abi", [1, 5])
def test_landlock_of_an_old_kernel_is_refused_to_an_ordinary_user(abi: int, service_dir: Path) -> None:
    """There a command could signal the server, whose uid it has."""
    with pytest.raises(AssertionError, match="signals: a command can"):
        run_cases_apart(CaseRun(f"landlock:{abi}", uid=ORDINARY_UID), service_dir)
