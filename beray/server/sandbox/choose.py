"""Choose the sandbox at start: the strongest backend whose probe passes, or the one the operator asked for.

Never silently weaker: what was chosen is returned with what it confines; nothing usable is an error that says why for
each backend, and what to do.
"""

import ipaddress
import logging
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from beray.server.sandbox.backend import Confine
from beray.server.sandbox.base import Capabilities, Sandbox, SandboxUnavailable, reasons_open
from beray.server.sandbox.bubblewrap import BubblewrapConfine, has_prlimit
from beray.server.sandbox.container.sandbox import Choice, ContainerSandbox
from beray.server.sandbox.egress.allowlist import AllowList
from beray.server.sandbox.egress.proxy import Egress
from beray.server.sandbox.environment import ETC_FOLDERS, GITCONFIG, SYSTEM_FOLDERS, Layout
from beray.server.sandbox.guard import landlock as kernel
from beray.server.sandbox.guarded import GuardedSandbox
from beray.server.sandbox.interpreter import replace_file
from beray.server.sandbox.landlock import LandlockConfine, NoConfine
from beray.server.sandbox.uids import TaskUids
from beray.server.settings import SettingError, Settings

logger = logging.getLogger(__name__)

STRONGEST_FIRST = ("bubblewrap", "landlock")
WITH_EGRESS = ("bubblewrap",)
"""Backends that can let a command reach some hosts and no others: it takes a network namespace of its own. Landlock
knows ports but not addresses, so that a command that may make a connection at all could make it to this machine."""

EGRESS_REMEDY = (
    "Only bubblewrap can open the network to some hosts: install it (apt install bubblewrap, or dnf install"
    " bubblewrap) and set BERAY_SANDBOX=bubblewrap or auto, or unset BERAY_SANDBOX_ALLOW_HOSTS, and commands have no"
    " network."
)

REMEDY = (
    "Do one of these: install bubblewrap (Debian, Ubuntu: apt install bubblewrap; Fedora: dnf install bubblewrap), and"
    " on Ubuntu 23.10 or newer allow it user namespaces by its AppArmor profile (apt install apparmor-profiles, then"
    " load bwrap-userns-restrict); use a kernel of 5.13 or newer with Landlock enabled (`landlock` in the boot option"
    " lsm=; for a server that is not root: 6.12 or newer); in a container, run as root with the capabilities CHOWN,"
    " DAC_OVERRIDE, KILL, SETGID and SETUID, which lets Landlock work on kernels from 5.13; or, on your own machine and"
    " for goals you trust only, set BERAY_SANDBOX=none, which confines nothing."
)


async def open_sandbox(settings: Settings, *, data_dir: Path) -> tuple[Sandbox, Capabilities]:
    """The sandbox for this server, probed.

    Args:
        settings: `sandbox` and all that begins with it, and `host`, are used.
        data_dir: Its folder `sandbox` is the sandbox's own; made when missing.

    Raises:
        SandboxUnavailable: None can be had as things are; says why, and what to do.
        SettingError: `sandbox_allow_hosts` can't be used, or a folder is where every command may read.
    """
    allowed = _allowed_hosts(settings)
    if settings.sandbox == "none" and not is_loopback(settings.host):
        raise SandboxUnavailable(
            f"BERAY_SANDBOX=none confines nothing, so the server must not listen on {settings.host}: set BERAY_HOST to"
            " 127.0.0.1, or choose another sandbox (auto, bubblewrap, landlock, container)."
        )
    probe_uid = TaskUids(settings.sandbox_uid_base).of_probe
    if probe_uid is None and settings.sandbox in {"auto", *STRONGEST_FIRST}:
        _check_out_of_sight("BERAY_DATA_DIR", data_dir)
        _check_out_of_sight("BERAY_WORK_DIRS", settings.work_dirs or data_dir)
    layout = prepare_layout(data_dir, is_root=probe_uid is not None)
    names = STRONGEST_FIRST if settings.sandbox == "auto" else (settings.sandbox,)
    if allowed:
        names = WITH_EGRESS
    reasons: list[str] = []
    for name in names:
        try:
            sandbox, found = await _open(name, settings, layout, probe_uid, allowed)
            return sandbox, replace(found, notes=(*found.notes, *(f"not here: {reason}" for reason in reasons)))
        except SandboxUnavailable as error:
            reasons.append(f"{name}: {error}")
            logger.info("sandbox backend unavailable", extra={"backend": name, "reason": str(error)})
    if allowed:
        raise SandboxUnavailable(f"{'; '.join(reasons)}. {EGRESS_REMEDY}")
    if settings.sandbox != "auto":
        raise SandboxUnavailable(
            f"BERAY_SANDBOX={settings.sandbox} can't be had here: {reasons[0].partition(': ')[2]}. Mend that, or set"
            " BERAY_SANDBOX=auto, which takes the strongest that works."
        )
    raise SandboxUnavailable(f"No sandbox can be had here ({'; '.join(reasons)}). {REMEDY}")


def _check_out_of_sight(name: str, folder: Path) -> None:
    """Commands of all tasks have our uid: only that a folder is not shown to them keeps it from them."""
    real = Path(os.path.realpath(folder))
    shown = next(
        (each for each in (*SYSTEM_FOLDERS, *ETC_FOLDERS) if real.is_relative_to(os.path.realpath(each))), None
    )
    if shown is not None:
        raise SettingError(
            f"{name} cannot be {folder}: it lies below {shown}, which every command may read, and a server that is not"
            " root has no uids for its tasks. Choose a folder elsewhere, such as /var/lib/beray or one in your home."
        )


def _allowed_hosts(settings: Settings) -> AllowList:
    try:
        allowed = AllowList(settings.sandbox_allow_hosts)
    except ValueError as error:
        raise SettingError(f"BERAY_SANDBOX_ALLOW_HOSTS cannot be used: {error}.") from error
    if allowed and settings.sandbox not in {"auto", *WITH_EGRESS}:
        raise SettingError(
            f"BERAY_SANDBOX_ALLOW_HOSTS is set, which BERAY_SANDBOX={settings.sandbox} can't enforce. {EGRESS_REMEDY}"
        )
    return allowed


async def _open(
    name: str, settings: Settings, layout: Layout, probe_uid: int | None, allowed: AllowList
) -> tuple[Sandbox, Capabilities]:
    uid_note = "commands run as the server's own user" if probe_uid is None else "each task has a uid of its own"
    sandbox: GuardedSandbox | ContainerSandbox
    if name == "container":
        _check_machine()
        sandbox = ContainerSandbox(_choice(settings), layout.root.parent, probe_uid=probe_uid, note=uid_note)
    else:
        confine, notes = _backend(name)
        sandbox = GuardedSandbox(
            confine,
            layout,
            probe_uid=probe_uid,
            python=settings.sandbox_python,
            notes=(*notes, uid_note, *([allowed.note] if allowed else [])),
            egress=Egress(allowed) if allowed else None,
        )
    try:
        capabilities = await sandbox.probe()
        _check_required(capabilities, settings.sandbox_require)
    except BaseException:
        await sandbox.close()
        raise
    return sandbox, capabilities


def _check_required(capabilities: Capabilities, required: Sequence[str]) -> None:
    """The operator insists on more than every backend must do."""
    if reasons := reasons_open(capabilities.confinements, required):
        raise SandboxUnavailable(f"BERAY_SANDBOX_REQUIRE asks for what is not confined here ({reasons})")


def _choice(settings: Settings) -> Choice:
    return Choice(
        engine=settings.sandbox_container_engine,
        image=settings.sandbox_container_image,
        runtime=settings.sandbox_container_runtime,
        python=settings.sandbox_python,
    )


def _backend(name: str) -> tuple[Confine, tuple[str, ...]]:
    if name == "bubblewrap":
        return _bubblewrap()
    if name == "landlock":
        return _landlock()
    return NoConfine(_has_signal_scope()), ("nothing is confined: commands can do whatever their user can",)


def _bubblewrap() -> tuple[Confine, tuple[str, ...]]:
    program = shutil.which("bwrap")
    if program is None:
        raise SandboxUnavailable("the program bwrap is not installed")
    _check_machine()
    program = os.path.realpath(program)
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False)
    version = re.search(r"\d+(\.\d+)+", answer.stdout)
    notes = [f"bubblewrap {version[0]}" if version else "bubblewrap of unknown version"]
    if not has_prlimit():
        notes.append("the program prlimit is missing, so the number of processes is not limited")
    return BubblewrapConfine(program, _has_signal_scope()), tuple(notes)


def _landlock() -> tuple[Confine, tuple[str, ...]]:
    abi = kernel.abi()
    if abi == 0:
        raise SandboxUnavailable(f"the kernel ({os.uname().release}) has no Landlock, or it is not enabled")
    _check_machine()
    how = "at once by the kernel" if abi >= kernel.ABI_SCOPE else "one by one"
    return LandlockConfine(abi), (f"Landlock ABI {abi}", f"processes are ended {how}")


def _has_signal_scope() -> bool:
    return kernel.abi() >= kernel.ABI_SCOPE


def _check_machine() -> None:
    machine = os.uname().machine
    if machine not in ("x86_64", "aarch64"):
        raise SandboxUnavailable(f"there is no system-call filter for {machine} (x86_64 and aarch64 have one)")


def is_loopback(host: str) -> bool:
    """The address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def prepare_layout(data_dir: Path, *, is_root: bool) -> Layout:
    """Make the sandbox's folder in the data folder.

    Raises:
        SandboxUnavailable: It can't be made, or tasks' uids could not pass to it.
    """
    root = Path(os.path.realpath(data_dir)) / "sandbox"
    try:
        if not data_dir.exists():
            data_dir.mkdir(parents=True)
            data_dir.chmod(0o711 if is_root else 0o700)
        root.mkdir(exist_ok=True)
        if is_root:
            _check_parents(root)
        root.chmod(0o755)
        layout = Layout(root)
        layout.bin.mkdir(exist_ok=True)
        layout.bin.chmod(0o755)
        replace_file(layout.gitconfig, GITCONFIG, mode=0o644)
    except OSError as error:
        raise SandboxUnavailable(
            f"The data folder {data_dir} can't be used: {error.strerror}: {error.filename}."
        ) from error
    return layout


def _check_parents(root: Path) -> None:
    for parent in reversed(root.parents):
        if not parent.stat().st_mode & 0o001:
            raise SandboxUnavailable(
                f"The server is root, and tasks run under uids of their own, which can't pass {parent} to reach the"
                f" data folder {root.parent}. Put the data folder elsewhere (BERAY_DATA_DIR=/var/lib/beray), or let"
                f" them through: chmod o+x {parent}"
            )
