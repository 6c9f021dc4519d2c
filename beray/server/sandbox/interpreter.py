"""Find a python that commands can execute. Each candidate is judged by running it in the sandbox, as the task's uid.

Never the server's own environment: its packages are not the task's, and its folder may hold what a task must not
read. As root, an interpreter below /root (0700) can't be executed by a dropped uid, however well it is granted; hence
the copy.
"""

import os
import shlex
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from beray.server.sandbox.environment import Layout

CHECK = "import ssl, sqlite3, ctypes, sys; print(sys.version.split()[0])"
_NOT_COPIED = ("site-packages", "dist-packages", "test", "tests", "idlelib", "turtledemo", "__pycache__", "config-*")


@dataclass(frozen=True)
class Interpreter:
    """A candidate.

    Attributes:
        path: Its program, as called inside.
        paths: What it needs outside the system's folders.
        library_path: Folder of its shared library, if it doesn't find that by itself.
    """

    path: str
    paths: tuple[str, ...] = ()
    library_path: str | None = None


def candidates(layout: Layout, chosen: str | None) -> Iterator[Interpreter]:
    """The interpreters to try, best first; making the last one copies files (blocking, do it in a thread)."""
    if chosen is not None:
        yield from _with_libraries(Path(chosen), _prefixes(Path(chosen)))
        return
    base = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
    yield from _with_libraries(base, [Path(sys.base_prefix)])
    yield Interpreter("/usr/bin/python3")
    copied = copy_interpreter(base, layout.root)
    if copied is not None:
        yield from _with_libraries(copied, [copied.parents[1]])


def _prefixes(program: Path) -> list[Path]:
    """Where the files of a program in `<prefix>/bin` are: for one in a virtual environment, the base's too."""
    return list(dict.fromkeys([program.absolute().parents[1], Path(os.path.realpath(program)).parents[1]]))


def _with_libraries(program: Path, prefixes: list[Path]) -> Iterator[Interpreter]:
    """The interpreter as it is, and once more told where its shared library lies."""
    if any(_is_too_wide(prefix) for prefix in prefixes):
        return
    paths = tuple(str(prefix) for prefix in prefixes if not _is_system(prefix))
    yield Interpreter(str(program), paths)
    for prefix in prefixes:
        if not _is_system(prefix) and any((prefix / "lib").glob("libpython3*.so*")):
            yield Interpreter(str(program), paths, str(prefix / "lib"))


def _is_system(prefix: Path) -> bool:
    return prefix == Path("/") or prefix.is_relative_to("/usr")


def _is_too_wide(prefix: Path) -> bool:
    """Granting it would open somebody's home, or all their programs' data."""
    if _is_system(prefix):
        return False
    home = Path.home()
    return home.is_relative_to(prefix) or prefix == home / ".local"


def copy_interpreter(program: Path, root: Path) -> Path | None:
    """The interpreter with its standard library, linked or copied to `root`; None if that can't be done."""
    stdlib = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix}))
    if _is_system(Path(sys.base_prefix)) or not stdlib.is_dir():
        return None
    name = f"python-{sys.version.split()[0]}"
    target = root / name
    copied = target / "bin" / program.name
    if copied.exists():
        return copied
    unfinished = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=root))
    try:
        _fill(unfinished, program, stdlib)
        unfinished.chmod(0o755)
        unfinished.rename(target)
    except (OSError, shutil.Error):
        shutil.rmtree(unfinished, ignore_errors=True)
        return copied if copied.exists() else None  # another process may have been faster
    return copied


def _fill(target: Path, program: Path, stdlib: Path) -> None:
    (target / "bin").mkdir(mode=0o755)
    _link_or_copy(str(program), str(target / "bin" / program.name))
    libraries = target / stdlib.parent.name
    libraries.mkdir(mode=0o755)
    for library in stdlib.parent.glob("lib*.so*"):
        if library.is_file():
            _link_or_copy(str(library), str(libraries / library.name))
    shutil.copytree(
        stdlib,
        libraries / stdlib.name,
        copy_function=_link_or_copy,
        ignore=shutil.ignore_patterns(*_NOT_COPIED),
    )


def _link_or_copy(source: str, target: str) -> str:
    source = os.path.realpath(source)
    try:
        os.link(source, target)
    except OSError:  # another file system, or hard links are not allowed
        shutil.copy2(source, target)
    return target


def write_commands(layout: Layout, interpreter: Interpreter) -> None:
    """Make `python` and `python3`, first in a command's PATH, run the interpreter.

    Scripts and not links: a linked interpreter would look for its library beside the link, and `venv` would break.
    """
    exec_line = f'exec {shlex.quote(interpreter.path)} "$@"\n'
    if interpreter.library_path is not None:
        exec_line = f"LD_LIBRARY_PATH={shlex.quote(interpreter.library_path)} {exec_line}"
    for name in ("python", "python3"):
        replace_file(layout.bin / name, f"#!/bin/sh\n{exec_line}", mode=0o755)


def replace_file(path: Path, content: str, *, mode: int) -> None:
    """Write a small file whole or not at all."""
    fd, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    with os.fdopen(fd, "w") as file:
        file.write(content)
        os.fchmod(file.fileno(), mode)
    Path(name).replace(path)
