"""A real nginx on loopback: one worker, no log of accesses, a configuration and a folder of the caller's own.

It is no dependency: `apt install nginx-light` (for benchmarks libnginx-mod-nchan too), and end the daemon that this may
start. Where it is absent `nginx_lacks` says so, and what needs it is skipped.
"""

import functools
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.waiting import wait_until

MODULES: Final = Path("/usr/lib/nginx/modules")
NCHAN: Final = MODULES / "ngx_nchan_module.so"
START_SECONDS: Final = 10.0

_CONFIGURATION: Final = """
{modules}
{user}
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
worker_rlimit_nofile {files};
events {{ worker_connections {files}; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush off;
    keepalive_requests 100000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {sites}
}}
"""
_LISTEN: Final = "listen 80;"


@dataclass(frozen=True)
class Nginx:
    """A running one: its address, and its processes, the worker last."""

    address: tuple[str, int]
    pids: tuple[int, ...]


def nginx_lacks(*, module: Path | None = None) -> str | None:
    """Why it can't be used here; None when it can."""
    if shutil.which("nginx") is None:
        return "nginx is not installed (apt install nginx-light)"
    if module is not None and not module.exists():
        return f"nginx has no {module.stem} (apt install libnginx-mod-nchan)"
    return None


@functools.cache
def nginx_version() -> str:
    """As it says itself."""
    answer = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True)
    return answer.stderr.strip().rpartition("/")[2]


@contextmanager
def running_nginx(folder: Path, sites: str, *, module: Path | None = None, files: int = 10_000) -> Iterator[Nginx]:
    """One on a free port for as long as the block lasts.

    Args:
        folder: For what it writes; made here.
        sites: Its `server`, with `listen 80;`, which becomes that port, and whatever else stands beside it.
        module: One to load.
        files: How many connections and files it may have open.
    """
    folder.mkdir()
    port = _free_port()
    text = _CONFIGURATION.format(
        folder=folder,
        sites=sites.replace(_LISTEN, f"listen 127.0.0.1:{port} backlog=4096;"),
        files=files,
        modules="" if module is None else f"load_module {module};",
        user="user root;" if os.geteuid() == 0 else "",  # the folders are the caller's
    )
    (folder / "nginx.conf").write_text(text)
    command = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            _wait_listening(process, ("127.0.0.1", port), folder / "error.log")
            yield Nginx(("127.0.0.1", port), (process.pid, *_children(process.pid)))
        finally:
            process.terminate()
            _wait_end(process)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _wait_listening(process: "subprocess.Popen[bytes]", address: tuple[str, int], log: Path) -> None:
    def is_settled() -> bool:
        return process.poll() is not None or (_is_listening(address) and bool(_children(process.pid)))

    wait_until(is_settled, seconds=START_SECONDS, what=f"nginx, which tells why not in {log}")
    if process.poll() is not None:
        raise RuntimeError(f"nginx did not start: {log.read_text() if log.exists() else process.poll()}")


def _is_listening(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
    except OSError:
        return False
    return True


def _wait_end(process: "subprocess.Popen[bytes]") -> None:
    workers = _children(process.pid)
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        for pid in (process.pid, *workers):
            os.kill(pid, 9)


def _children(pid: int) -> tuple[int, ...]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return tuple(int(child) for child in path.read_text().split()) if path.exists() else ()
