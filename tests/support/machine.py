"""What this machine can do, and what a test run insists on."""

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from beray.server.sandbox.base import SandboxUnavailable
from tests.support.aimock import NoAimock, aimock_here
from tests.support.browser import chromium_lacks
from tests.support.container_image import NoImage, engine_here, image_here
from tests.support.nginx import nginx_lacks
from tests.support.ordinary_user import python_for_all
from tests.support.postgres import find_binaries
from tests.support.quota_disk import QuotaDisk

LANDLOCK_CREATE_RULESET = 444
LANDLOCK_VERSION_FLAG = 1


def machine_lacks(name: str) -> str | None:
    """Why `name` can't be had here; None when it can."""
    return CHECKS[name]()


def required() -> frozenset[str]:
    """Names whose absence is a failure, not a skip: `BERAY_TEST_REQUIRE=landlock,bubblewrap`."""
    return frozenset(name.strip() for name in os.environ.get("BERAY_TEST_REQUIRE", "").split(",") if name.strip())


@functools.cache
def _lacks_landlock() -> str | None:
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(LANDLOCK_CREATE_RULESET, None, 0, LANDLOCK_VERSION_FLAG)
    if version < 1:
        return f"the kernel has no Landlock ({os.strerror(ctypes.get_errno())})"
    if os.geteuid() != 0 and version < 6:
        return f"Landlock ABI {version} is too old for a server that is not root (6 is needed)"
    return None


@functools.cache
def _lacks_bubblewrap() -> str | None:
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed (apt install bubblewrap)"
    probe = subprocess.run(
        ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "true"],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return None if probe.returncode == 0 else f"bubblewrap does not work here: {probe.stderr.strip()[:200]}"


@functools.cache
def _lacks_container() -> str | None:
    try:
        engine = engine_here()
        image = image_here(engine.program)
    except (SandboxUnavailable, NoImage) as error:
        return str(error)
    command = [engine.program, "run", "--rm", "--network", "none", "--ulimit", "nofile=1024:1024"]
    if engine.kind == "podman":
        command += ["--ulimit", "nproc=1024:1024"]  # the default may be more than this user can have
    probe = subprocess.run([*command, image, "/bin/true"], capture_output=True, text=True, timeout=60, check=False)
    return None if probe.returncode == 0 else f"{engine.kind} does not work here: {probe.stderr.strip()[-200:]}"


def _lacks_openssl() -> str | None:
    return (
        None if shutil.which("openssl") else "openssl is not installed: no certificate for a test's server can be made"
    )


def _lacks_root() -> str | None:
    return None if os.geteuid() == 0 else "needs root"


def _lacks_user() -> str | None:
    return None if os.geteuid() != 0 else "needs an ordinary user"


@functools.cache
def _lacks_tmpfs() -> str | None:
    if os.geteuid() != 0:
        return "needs root, to mount a small disk"
    probe = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/mnt"],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return None if probe.returncode == 0 else f"no disk can be mounted here: {probe.stderr.strip()[:200]}"


@functools.cache
def _lacks_python_for_all() -> str | None:
    if os.geteuid() != 0:
        return "needs root, to become another user"
    found = python_for_all()
    return None if found is not None else "no python >= 3.11 can be executed by every user"


@functools.cache
def _lacks_postgres() -> str | None:
    found = find_binaries()
    return (
        None if found is not None else "PostgreSQL is not installed (apt install postgresql; `uv sync` brings a wheel)"
    )


def _lacks_aimock() -> str | None:
    try:
        aimock_here()
    except NoAimock as error:
        return str(error)
    return None


def _lacks_cgroup1() -> str | None:
    folders = [Path("/sys/fs/cgroup") / name for name in ("memory", "pids")]
    writable = all(os.access(folder / "cgroup.procs", os.W_OK) for folder in folders)
    return None if writable else "no control groups of version 1 for memory and pids can be made"


@functools.cache
def _lacks_cgroup2() -> str | None:
    if os.geteuid() != 0:
        return "needs root, to start a service of systemd"
    return _lacks_unit()


@functools.cache
def _lacks_systemd_user() -> str | None:
    if os.geteuid() == 0:
        return "needs an ordinary user with a manager of systemd (loginctl enable-linger)"
    return _lacks_unit("--user")


def _lacks_unit(*options: str) -> str | None:
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    if not controllers.exists() or not {"memory", "pids"} <= set(controllers.read_text().split()):
        return "there are no control groups of version 2 for memory and pids"
    try:
        probe = subprocess.run(
            ["systemd-run", *options, "--quiet", "--wait", "--collect", "true"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"systemd does not answer: {error}"
    return None if probe.returncode == 0 else f"systemd starts nothing: {probe.stderr.strip()[:200]}"


@functools.cache
def _lacks_quota(file_system: str) -> str | None:
    if os.geteuid() != 0:
        return "needs root, to mount a disk with quotas"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with QuotaDisk(Path(folder) / "disk", file_system):
                return None
        except (OSError, subprocess.SubprocessError) as error:
            return f"no {file_system} with quotas can be mounted here: {error}"


CHECKS = {
    "landlock": _lacks_landlock,
    "bubblewrap": _lacks_bubblewrap,
    "container": _lacks_container,
    "nginx": nginx_lacks,
    "chromium": chromium_lacks,
    "openssl": _lacks_openssl,
    "root": _lacks_root,
    "user": _lacks_user,
    "tmpfs": _lacks_tmpfs,
    "python_for_all": _lacks_python_for_all,
    "postgres": _lacks_postgres,
    "aimock": _lacks_aimock,
    "cgroup1": _lacks_cgroup1,
    "cgroup2": _lacks_cgroup2,
    "systemd_user": _lacks_systemd_user,
    "quota": functools.partial(_lacks_quota, "ext4"),
    "quota_xfs": functools.partial(_lacks_quota, "xfs"),
}


if __name__ == "__main__":  # what this machine has, in the form BERAY_TEST_REQUIRE takes
    print(",".join(name for name in CHECKS if machine_lacks(name) is None))
