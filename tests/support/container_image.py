"""An image for the tests of the container sandbox, made of this machine's own programs: no registry is asked.

It holds a shell, the usual tools, perl, git and python with what they load, about 60 MB, and lives in the engine's
own store under a name that tells its recipe, so that it is made once a machine. `podman rmi` takes it away.
"""

import fcntl
import functools
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from beray.server.sandbox.container.engine import Engine, find_engine

TOOLS = (
    "bash", "cat", "chmod", "chown", "cp", "cut", "date", "dd", "df", "du", "echo", "env", "expr", "false", "find",
    "git", "grep", "gzip", "head", "hostname", "id", "kill", "ln", "ls", "mkdir", "mkfifo", "mktemp", "mv", "nproc",
    "perl", "printf", "ps", "pwd", "readlink", "rm", "rmdir", "sed", "seq", "setsid", "sh", "sleep", "sort", "stat",
    "su", "sync", "tail", "tar", "tee", "timeout", "touch", "tr", "true", "truncate", "uname", "uniq", "wc", "which",
    "xargs", "yes",
)  # fmt: skip
_TELL = "import json, sys, sysconfig; print(json.dumps([sys.executable, sysconfig.get_path('stdlib')]))"
_LEFT_OUT = ("site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "turtledemo", "__pycache__")
_LINKED = ("bin", "sbin", "lib", "lib64")
_FOLDERS = ("dev", "etc", "home", "proc", "root", "run", "sys", "usr/bin", "usr/lib", "usr/lib64", "var")
_IMPORT_SECONDS = 120


class NoImage(Exception):
    """No image can be made here; the text says why."""


@functools.cache
def engine_here() -> Engine:
    """The engine that tests use: the first of podman and docker that answers.

    Raises:
        SandboxUnavailable: None does.
    """
    return find_engine(os.environ.get("BERAY_TEST_CONTAINER_ENGINE", "auto"))


@functools.cache
def image_here(engine: str) -> str:
    """Name of the image in the engine's store, made when it is not there.

    Raises:
        NoImage: Says why there can be none.
    """
    python = _python()
    name = f"localhost/beray-test:{_recipe(python)}"
    lock = Path(tempfile.gettempdir()) / f"beray-test-image-{os.getuid()}.lock"
    with lock.open("w") as file:  # test processes side by side make it once
        fcntl.flock(file, fcntl.LOCK_EX)
        if not _has_image(engine, name):
            _import(engine, name, python)
    return name


def _python() -> tuple[str, str]:
    """The machine's own interpreter and the folder of its standard library."""
    program = shutil.which("python3", path="/usr/local/bin:/usr/bin")
    if program is None:
        raise NoImage("there is no python3 in /usr/bin or /usr/local/bin to put into an image")
    told = subprocess.run([program, "-I", "-c", _TELL], capture_output=True, timeout=20, check=True).stdout
    executable, library = json.loads(told)
    return executable, library


def _recipe(python: tuple[str, str]) -> str:
    """Changes with this file and with the interpreter."""
    made_of = Path(__file__).read_bytes() + os.path.realpath(python[0]).encode()
    return hashlib.sha256(made_of + str(os.stat(python[0]).st_mtime_ns).encode()).hexdigest()[:12]


def _has_image(engine: str, name: str) -> bool:
    asked = subprocess.run([engine, "image", "inspect", name], capture_output=True, timeout=60, check=False)
    return asked.returncode == 0


def _import(engine: str, name: str, python: tuple[str, str]) -> None:
    with tempfile.TemporaryFile() as packed:
        _pack(packed, python)  # type: ignore[arg-type]  # a file of bytes, which typeshed's tarfile calls by another name
        packed.seek(0)
        done = subprocess.run(
            [engine, "import", "-", name], stdin=packed, capture_output=True, timeout=_IMPORT_SECONDS, check=False
        )
    if done.returncode != 0:
        raise NoImage(f"{engine} import: {done.stderr.decode(errors='replace').strip()[-300:]}")


def _pack(target: io.BufferedIOBase, python: tuple[str, str]) -> None:
    executable, library = python
    with tarfile.open(fileobj=target, mode="w") as tar:
        for folder in _FOLDERS:
            _add_entry(tar, folder, tarfile.DIRTYPE)
        _add_entry(tar, "tmp", tarfile.DIRTYPE, mode=0o1777)
        for name in _LINKED:
            _add_entry(tar, name, tarfile.SYMTYPE, link=f"usr/{name}" if name != "sbin" else "usr/bin")
        tar.add(library, _place(library), filter=_without_extras)
        paths = {_place(path): path for path in (*_programs(), executable, *_loaded(Path(library)))}
        for place, path in sorted(paths.items()):
            if place not in tar.getnames():
                tar.add(os.path.realpath(path), place, recursive=False)


def _add_entry(tar: tarfile.TarFile, name: str, kind: bytes, *, link: str = "", mode: int = 0o755) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.mode = kind, link, mode
    tar.addfile(entry)


def _place(path: str) -> str:
    """Where a file lies in the image: /lib and /bin are links into /usr, here as on today's distributions."""
    parts = path.lstrip("/").split("/")
    inside = "/".join(parts if parts[0] not in _LINKED else ["usr", *parts])
    return inside.replace("usr/sbin/", "usr/bin/")


def _without_extras(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    name = entry.name.rsplit("/", 1)[-1]
    return None if name in _LEFT_OUT or name.startswith("config-") else entry


def _programs() -> Iterator[str]:
    for tool in TOOLS:
        found = shutil.which(tool, path="/usr/bin:/bin:/usr/sbin:/sbin")
        if found is not None:
            yield found


def _loaded(library: Path) -> Iterator[str]:
    """The shared libraries that the programs and python's own modules load."""
    modules = [str(path) for path in (library / "lib-dynload").glob("*.so")]
    python = _python()[0]
    command = ["ldd", *_programs(), python, *modules]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    for line in told.stdout.splitlines():
        words = line.split()
        path = next((word for word in words if word.startswith("/") and not word.endswith(":")), None)
        if path is not None:
            yield path
