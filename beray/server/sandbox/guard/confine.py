"""The last steps of a command's own process before it becomes the command: limits, uid, confinement, execve.

The order matters. Paths are opened as the server's user, before the uid is dropped; a parent-death signal is cleared
by the uid change, so it is set after; the filter comes last, since it would refuse what the steps before it need.
"""

import errno
import os
import resource
import signal
from typing import NoReturn

from . import landlock
from .libc import PR_SET_NO_NEW_PRIVS, PR_SET_PDEATHSIG, drop_capabilities, install_seccomp, prctl
from .seccomp import FilterRules, build_filter
from .wire import BubblewrapJob, Job, JobFiles, LandlockJob

_OOM_SCORE = "900"  # out of memory, the kernel takes a command before the server
_NICENESS = 5  # a busy command must not keep the server or its own supervisor from the processor
_CPU_GRACE_SECONDS = 5  # from SIGXCPU, which can be handled, to SIGKILL


IGNORED_SIGNALS = (
    # A terminal or service manager that sends these means the server, whose end we see by our sockets.
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    # Python ignores these by itself: a write that fails tells the same.
    signal.SIGPIPE,
    signal.SIGXFSZ,
)
"""What fork server and supervisors don't end by; a command gets the default back."""


class CannotRun(Exception):
    """The command can't be executed; the text says why."""


def become_command(job: Job, files: JobFiles) -> NoReturn:
    """Turn this process into the command.

    Raises:
        CannotRun: It could not be; the process is half confined and must end.
    """
    try:
        _reset_signals()
        os.setsid()
        os.umask(0o022)
        os.nice(_NICENESS)
        rules = _landlock_rules(job)
        _limit_resources(job)
        _drop_user(job.uid)
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        drop_capabilities()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        folder = _enter_folder(job)
        program = find_program(job.argv[0], job.env["PATH"])
        _make_tmp(job.home)
        _place_descriptors(files)
        if job.bubblewrap is not None:
            _exec_bubblewrap(job, folder, program)
        if rules is not None:
            rules.restrict_self()
        if job.landlock is not None:
            install_seccomp(_landlock_filter(job.landlock))
        _exec(program, job.argv, job.env)
    except OSError as error:
        place = f": {error.filename}" if error.filename else ""
        raise CannotRun(f"{error.strerror or error}{place}") from error


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, *IGNORED_SIGNALS):
        signal.signal(number, signal.SIG_DFL)


def _landlock_rules(job: Job) -> "landlock.Ruleset | None":
    if job.landlock is None:
        return None
    abi = job.landlock.abi
    rules = landlock.Ruleset(
        files=landlock.all_file_rights(abi),
        network=landlock.NET_TCP if abi >= landlock.ABI_NETWORK else 0,
        scope=landlock.SCOPE_SIGNAL | landlock.SCOPE_ABSTRACT_UNIX if abi >= landlock.ABI_SCOPE else 0,
    )
    rules.allow(job.landlock.read_only, landlock.READ_ONLY)
    rules.allow(job.landlock.read_write, landlock.read_write(abi))
    rules.allow(job.landlock.devices, landlock.DEVICE)
    return rules


def _landlock_filter(job: LandlockJob) -> bytes:
    denies_truncate = not landlock.all_file_rights(job.abi) & landlock.TRUNCATE
    rules = FilterRules(has_sockets=False, sees_others=job.sees_others, denies_truncate=denies_truncate)
    return build_filter(os.uname().machine, rules)


def _limit_resources(job: Job) -> None:
    limits = job.limits
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_DATA, limits.memory_bytes)  # AS would stop node's WebAssembly, which only reserves
    _limit(resource.RLIMIT_FSIZE, limits.file_bytes)
    _limit(resource.RLIMIT_NOFILE, limits.open_files)
    _limit(resource.RLIMIT_CPU, limits.cpu_seconds, grace=_CPU_GRACE_SECONDS)
    if limits.counted_processes is not None:
        others = 0 if limits.counts_only_own else _tasks_on_machine()
        _limit(resource.RLIMIT_NPROC, limits.counted_processes + others)
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write(_OOM_SCORE)
    except OSError:  # no /proc of ours: the score is a help, not a protection
        pass


def _limit(kind: int, wanted: int, *, grace: int = 0) -> None:
    """Lower a limit; where the inherited one is lower it stays, since it could not be raised."""
    hard = resource.getrlimit(kind)[1]
    new_hard = wanted + grace if hard == resource.RLIM_INFINITY else min(hard, wanted + grace)
    resource.setrlimit(kind, (min(wanted, new_hard), new_hard))


def _tasks_on_machine() -> int:
    """How many threads there are here now, a cheap upper bound of this user's (`running/all` in /proc/loadavg)."""
    with open("/proc/loadavg") as file:
        return int(file.read().split()[3].split("/")[1])


def _drop_user(uid: int | None) -> None:
    if uid == 0 or (uid is None and 0 in os.getresuid()):
        raise CannotRun("a command never runs as root; give it a uid")
    if uid is None:
        return
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)


def _enter_folder(job: Job) -> str:
    """Go where the command starts: to `cwd` if it is inside the work_dir and can be entered, else the work_dir."""
    os.chdir(job.work_dir)
    if "\0" in job.cwd:
        return job.work_dir
    folder = os.path.realpath(os.path.join(job.work_dir, job.cwd))
    if folder != job.work_dir and not folder.startswith(job.work_dir.rstrip("/") + "/"):
        return job.work_dir
    try:
        os.chdir(folder)
    except OSError:
        return job.work_dir
    return folder


def find_program(name: str, path: str) -> str:
    """The file to execute for `name`.

    Raises:
        CannotRun: There is none.
    """
    candidates = [name] if "/" in name else [f"{folder}/{name}" for folder in path.split(":") if folder]
    for candidate in candidates:
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    raise CannotRun(f"{name!r} was not found, or can't be executed")


def _make_tmp(home: str) -> None:
    """Make the folder for TMPDIR. Never by the variable, which a task can set: nothing confines us yet."""
    try:
        os.mkdir(f"{home}/tmp", 0o700)  # noqa: S108 - below the home, not /tmp
    except OSError:  # there already, or the task has put something else in its place: its own loss
        pass


def _place_descriptors(files: JobFiles) -> None:
    """Put the command's descriptors at 0 to 3 and mark every other one to be closed by execve.

    All of ours lie above `RESERVED_FDS` (the fork server sees to it), so none is overwritten.
    """
    wanted = [files.stdin, files.stdout, files.stderr]
    if files.report is not None:
        wanted.append(files.report)
    for target, fd in enumerate(wanted):
        os.dup2(fd, target)
    for name in os.listdir("/proc/self/fd"):
        if int(name) >= len(wanted):
            try:
                os.set_inheritable(int(name), False)
            except OSError:  # the listing's own descriptor
                continue


def _exec_bubblewrap(job: Job, folder: str, program: str) -> NoReturn:
    """Become bubblewrap: an empty environment (its own is readable inside), and its options not on its command line."""
    bubblewrap = job.bubblewrap
    assert bubblewrap is not None
    options = [*bubblewrap.options, *_file_options(bubblewrap), *bubblewrap.last_options, "--chdir", folder]
    for name, value in job.env.items():
        options += ["--setenv", name, value]
    rules = FilterRules(has_sockets=True, sees_others=False)
    options += ["--seccomp", str(_hand_over(build_filter(os.uname().machine, rules)))]
    told = _hand_over(b"".join(os.fsencode(option) + b"\0" for option in options))
    argv = [bubblewrap.program, "--args", str(told), "--", *bubblewrap.wrapper, program, *job.argv[1:]]
    os.execve(bubblewrap.program, argv, {})


def _file_options(bubblewrap: BubblewrapJob) -> list[str]:
    """Options that make files: copied into the sandbox's own memory, which costs much less than a mount for each."""
    options: list[str] = []
    for path in bubblewrap.copied_files:
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        os.set_inheritable(fd, True)
        options += ["--perms", "0644", "--file", str(fd), path]
    for path, content in bubblewrap.made_files.items():
        options += ["--perms", "0644", "--file", str(_hand_over(content.encode())), path]
    return options


def _hand_over(content: bytes) -> int:
    """A descriptor for bubblewrap to read; it closes it before the command runs."""
    fd = os.memfd_create("beray", 0)
    os.write(fd, content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _exec(program: str, argv: tuple[str, ...], env: dict[str, str]) -> NoReturn:
    try:
        os.execve(program, argv, env)
    except OSError as error:
        if error.errno != errno.ENOEXEC:
            raise
    os.execve("/bin/sh", ["/bin/sh", program, *argv[1:]], env)  # a script without #!, as every shell does it
