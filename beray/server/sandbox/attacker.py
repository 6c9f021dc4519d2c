"""The harmless attacker of the probe. Its text is run inside the sandbox by the python found there, without packages.

It tries each thing once and writes what it could do to descriptor 3; the server compares that with what it saw itself.
What is answered by the end of the command (too much memory, too much disk) is tried apart: `python - memory <bytes>`.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any


def attack(target: dict[str, Any]) -> dict[str, Any]:
    """Everything that was done in spite of the sandbox, by kind, and some counts."""
    return {
        "files": _succeeded(
            {
                "read a file of another task": lambda: _read(target["secret"]),
                "list another task's folder": lambda: os.listdir(target["other"]),
                "write to another task's folder": lambda: _write(target["other"] + "/planted"),
                "make a link to another task's file": lambda: os.link(target["secret"], "linked"),
                "read /etc/shadow": lambda: _read("/etc/shadow"),
                "list the server's folders": lambda: os.listdir(target["folder"]).index("mode"),
            }
        ),
        "processes": _succeeded(
            {
                "read the server's environment": lambda: _expect_canary(target),
                "read the server's memory map": lambda: _read_own_kind(target, "maps"),
            }
        ),
        "signals": _succeeded({"signal a process of the server": lambda: os.kill(target["decoy"], signal.SIGTERM)}),
        "network": _succeeded(
            {
                "connect by TCP": lambda: _connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", target["tcp"])),
                "send by UDP": lambda: _connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", target["udp"])),
                "connect to an abstract socket": lambda: _connect(
                    socket.AF_UNIX, socket.SOCK_STREAM, "\0" + target["abstract"]
                ),
                "connect to a socket file": lambda: _connect(socket.AF_UNIX, socket.SOCK_STREAM, target["path"]),
            }
        ),
        "metadata": _succeeded({"change the mode of a file outside": lambda: os.chmod(target["mode"], 0o666)}),
        "forked": _fork_many(target["forks"]),
        "can_rename": _rename_across_folders(),
    }


def _succeeded(attempts: dict[str, Callable[[], object]]) -> list[str]:
    done = []
    for name, attempt in attempts.items():
        with contextlib.suppress(OSError, MemoryError, ValueError):
            attempt()
            done.append(name)
    return done


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(65536)


def _write(path: str) -> None:
    with open(path, "wb") as file:
        file.write(b"planted")


def _expect_canary(target: dict[str, Any]) -> None:
    """Look into every process that can be seen. The decoy's number may be another's in here: only the canary counts."""
    names = [str(target["decoy"])]
    with contextlib.suppress(OSError):
        names += os.listdir("/proc")
    for name in names:
        with contextlib.suppress(OSError):
            if name.isdigit() and target["canary"].encode() in _read(f"/proc/{name}/environ"):
                return
    raise ValueError("not seen")


def _read_own_kind(target: dict[str, Any], name: str) -> None:
    if target["program"].encode() not in _read(f"/proc/{target['decoy']}/{name}"):
        raise ValueError("another process")


def _connect(family: int, kind: int, address: Any) -> None:
    with socket.socket(family, kind) as connection:
        connection.settimeout(2)
        connection.connect(address)
        connection.send(b"attack")


def _fork_many(most: int) -> int:
    """How many children could be had at the same time."""
    read, write = os.pipe()
    children = []
    for _ in range(most):
        try:
            pid = os.fork()
        except OSError:
            break
        if pid == 0:
            os.close(write)
            os.read(read, 1)
            os._exit(0)
        children.append(pid)
    os.close(write)
    for pid in children:
        os.waitpid(pid, 0)
    return len(children)


def _rename_across_folders() -> bool:
    os.makedirs("from", exist_ok=True)
    os.makedirs("to", exist_ok=True)
    _write("from/file")
    try:
        os.rename("from/file", "to/file")
    except OSError:
        return False
    return True


def leave_orphan() -> None:
    """A process in a session of its own, without our pipes, that holds a lock as long as it lives."""
    ready, tell = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() > 0:
            os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        lock = os.open("lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.write(tell, b"1")
        for fd in (0, 1, 2, 3, ready, tell):
            with contextlib.suppress(OSError):
                os.close(fd)
        while True:
            signal.pause()
    os.close(tell)
    if not os.read(ready, 1):
        raise SystemExit("no process could be left behind")


def take_memory(size: int) -> None:
    """Several processes that take no more than each may, but together do."""
    for _ in range(4):
        if os.fork() == 0:
            taken = bytearray(size // 2)
            taken[::4096] = b"1" * len(taken[::4096])
            signal.pause()
    signal.pause()


def take_disk(size: int) -> None:
    """Several files that are no larger than each may be, but together are. Ends with `EDQUOT` if the disk refuses."""
    for number in range(4):
        try:
            with open(f"file-{number}", "wb") as file:
                file.write(bytes(size // 2))
        except OSError as error:
            raise SystemExit(error.errno) from error
    signal.pause()


BOMBS = {"memory": take_memory, "disk": take_disk}

if __name__ == "__main__":
    if sys.argv[1] in BOMBS:
        BOMBS[sys.argv[1]](int(sys.argv[2]))
    found = attack(json.loads(sys.argv[1]))
    leave_orphan()
    os.write(3, json.dumps(found).encode())
    parent = os.getppid()
    if parent != 1:  # the end of a process 1, where that can be brought about, is only the end of all that is in here
        with contextlib.suppress(OSError):
            os.kill(parent, signal.SIGKILL)  # the supervisor, if it can be reached; the server sees the loss
