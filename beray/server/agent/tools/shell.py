"""The shell tool: one sandbox a command; folder and exported variables are carried over to the next.

A shell kept alive would hang, or be left in an unknown state, by any command that does; one a command costs a few
milliseconds. A trailer writes where the shell ended and what it had exported to descriptor 3. Whatever comes from there
was in the command's hands, so it is checked before it is used.
"""

import posixpath
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import Field

from beray.server.agent.tools.background import start_background
from beray.server.agent.tools.base import Answer, Toolbox, ToolError
from beray.server.agent.tools.process import PYTHON_ENV, command_answer, run_process
from beray.server.sandbox.base import Spec

DEFAULT_TIMEOUT_SECONDS = 120
MOST_TIMEOUT_SECONDS = 600
MOST_COMMAND_BYTES = 100_000  # the kernel takes 128 KiB in one argument

Timeout = Annotated[int, Field(ge=1, le=MOST_TIMEOUT_SECONDS)]

MOST_ENV_BYTES = 32 * 1024
MOST_ENV_NAMES = 200

_PLAIN = 'eval "$1"'

_FIND_BASH = 'if command -v bash >/dev/null 2>&1; then exec bash -c "$1" bash "$2"; fi; eval "$2"'

# The report: start folder, environment, empty entry, end folder, environment; each entry ends with NUL, a folder's with
# a line break before it. What the shell was given at the start is read from the kernel, which spares a process, where
# that tells it (under Landlock it doesn't). Descriptor 3 is moved out of the way of commands that use it themselves.
# All in one line: the shell numbers the command's lines from there, and the model is to be told which of its own has
# failed.
_WRAPPER = "; ".join(
    r"""
exec 198>&3 3>&-
builtin hash env
__beray_env=${BASH_CMDS[env]}
__beray_folder() { builtin pwd -P; builtin printf '\0'; }
__beray_read() { builtin mapfile -d '' -t __beray_list </proc/$$/environ; }
__beray_given() { if __beray_read; then builtin printf '%s\0' "${__beray_list[@]}"; else "$__beray_env" -0; fi; }
{ __beray_folder; __beray_given; builtin printf '\0'; } >&198 2>/dev/null
builtin unset -f __beray_given __beray_read; builtin unset __beray_list
__beray_end() { set +eu; { __beray_folder; "$__beray_env" -0; } >&198 2>/dev/null; }
trap __beray_end EXIT
__beray_command=$1
set --
eval "$__beray_command"
""".strip().splitlines()
)


def build_shell(box: Toolbox) -> Callable[..., Awaitable[Answer]]:
    """The tool for one run."""

    async def shell(
        command: str,
        timeout: Timeout = DEFAULT_TIMEOUT_SECONDS,  # noqa: ASYNC109 - the sandbox enforces it
        background: bool = False,
    ) -> Answer:
        """Run a command with bash in the work_dir and return its exit code and output (stdout and stderr together).

        The current folder and exported variables are kept for the next call. Standard input is empty, so nothing can
        ask questions: pass flags such as -y. What the command leaves running ends with it. Long output is cut in the
        middle.

        With background=true the command runs beside your other calls until it ends or the task does; the call returns
        after a second and tells its id for the tool background. It shares the work_dir with other commands, but not
        the network: no other command can reach its ports, not even on localhost. To try a server out, start it and its
        client in one command without background, as in: server & sleep 1; curl localhost:8000

        Args:
            command: What to run; may have several lines.
            timeout: Seconds after which it is killed, 1 to 600; without meaning for background.
            background: Keep it running after the call; for watchers and long builds.
        """
        if "\0" in command or not command.strip():
            raise ToolError("The command is empty or holds a NUL character. Send a bash command.")
        if len(command.encode()) > MOST_COMMAND_BYTES:
            raise ToolError(f"The command is over {MOST_COMMAND_BYTES} bytes. Write it to a file and run that.")
        if background:
            return await start_background(box, _background_spec(box, command), command)
        finished = await run_process(box, _spec(box, command, timeout))
        note = _remember(box, finished.exit.report)
        return command_answer(box, finished, timeout_seconds=timeout, note=note)

    return shell


def _spec(box: Toolbox, command: str, timeout_seconds: float) -> Spec:
    run = box.run
    return Spec(
        argv=["sh", "-c", _FIND_BASH, "sh", _WRAPPER, command],
        work_dir=run.work_dir.path,
        cwd=box.progress.cwd,
        env={**PYTHON_ENV, **box.progress.env},
        uid=run.uid,
        has_report=True,
        limits=replace(run.sandbox_limits, wall_seconds=timeout_seconds),
    )


def _background_spec(box: Toolbox, command: str) -> Spec:
    """For the rest of the run; where it ends and what it exports is nobody's business."""
    seconds_left = max(1.0, box.ends_at - time.monotonic())
    spec = _spec(box, command, seconds_left)
    return replace(spec, argv=["sh", "-c", _FIND_BASH, "sh", _PLAIN, command], has_report=False)


def _remember(box: Toolbox, raw: bytes) -> str:
    """Carry folder and variables over to the next command; a sentence for the model if something couldn't be."""
    report = parse_report(raw, cwd=box.progress.cwd, given={**PYTHON_ENV, **box.progress.env})
    if report is None:
        return ""
    box.progress.cwd = report.cwd
    box.progress.env = dict(report.env)
    return report.note


@dataclass(frozen=True)
class Report:
    """Where a shell ended, relative to the work_dir, and which variables go to the next command."""

    cwd: str
    env: Mapping[str, str]
    note: str = ""


# What the shell sets by itself, and what would act on the next command's own start.
_NOT_CARRIED = re.compile(
    r"PWD|OLDPWD|SHLVL|_|BASH.*|ENV|IFS|PS\d|PROMPT_COMMAND|SHELLOPTS|LD_.*|GLIBC_TUNABLES|__beray.*"
    r"|PYTHONUNBUFFERED|PYTHONDONTWRITEBYTECODE|PYTHONIOENCODING"
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")


def parse_report(raw: bytes, *, cwd: str, given: Mapping[str, str]) -> Report | None:
    """Read a report; None if it is not a whole one (the command was killed, or wrote its own).

    Args:
        raw: What came over descriptor 3.
        cwd: Folder the command was started in, relative to the work_dir.
        given: Variables it was started with.
    """
    entries = raw.split(b"\0")
    if entries[-1] != b"" or b"" not in entries[:-1]:
        return None
    middle = entries.index(b"")
    before, after = entries[:middle], entries[middle + 1 : -1]
    if not before or not after:
        return None
    started_in, ended_in = _folder(before[0]), _folder(after[0])
    if started_in is None or ended_in is None:
        return None
    old, new = _variables(before[1:]), _variables(after[1:])
    kept = {name: value for name, value in new.items() if old.get(name) != value or name in given}
    kept = {name: value for name, value in kept.items() if not _NOT_CARRIED.fullmatch(name)}
    new_cwd, is_inside = _relative(started_in, ended_in, cwd)
    note = "" if is_inside else "(the folder is outside the work_dir; the next command starts in the work_dir again)"
    size = sum(len(name) + len(value.encode()) for name, value in kept.items())
    if len(kept) > MOST_ENV_NAMES or size > MOST_ENV_BYTES:
        note = f"{note} (too many exported variables: those of this command are not kept)".strip()
        kept = {name: given[name] for name in given if not _NOT_CARRIED.fullmatch(name)}
    return Report(new_cwd, kept, note)


def _relative(started_in: str, ended_in: str, cwd: str) -> tuple[str, bool]:
    """`ended_in` relative to the work_dir as the sandbox sees it, and whether it is inside."""
    suffix = "" if cwd == "." else "/" + cwd
    # the sandbox falls back to the work_dir itself where the folder is gone
    root = started_in[: -len(suffix)] if suffix and started_in.endswith(suffix) else started_in
    if not ended_in.startswith("/"):
        return ".", False
    relative = posixpath.relpath(ended_in, root or "/")
    is_inside = relative != ".." and not relative.startswith("../")
    return (relative, True) if is_inside else (".", False)


def _variables(entries: list[bytes]) -> dict[str, str]:
    found = {}
    for entry in entries:
        name, equals, value = entry.partition(b"=")
        name_text, value_text = _text(name), _text(value)
        if equals and name_text is not None and value_text is not None and _NAME.fullmatch(name_text):
            found[name_text] = value_text
    return found


def _folder(raw: bytes) -> str | None:
    return _text(raw.removesuffix(b"\n"))


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None
