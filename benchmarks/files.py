"""Files up and down, against nginx (PUT by its dav module; sendfile), and as a ZIP, against Info-ZIP's `zip -1`.

What counts is the servers' processor time for each GB; they have core 0, who asks has core 1. Rounds move 256 MiB; the
memory that moving takes is looked at while 1 GiB goes each way. Ours hashes each upload (SHA-256 is in the answer) and
flushes it to the disk before it says so; nginx does neither. So there are a row for each: what hashing alone costs
here, and the upload without it.
"""

import hashlib
import io
import itertools
import os
import random
import shutil
import subprocess
import sysconfig
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote

from benchmarks.bulk import ask, unchunked
from benchmarks.measure import LOAD_CORE, SERVER_CORE, Benchmark, Goal, Side, cpu_seconds, on_core, resident_mib
from benchmarks.publishing_server import PublishingServer, running_server
from tests.support.nginx import nginx_lacks, nginx_version, running_nginx

ROUNDS: Final = 7
BLOCK: Final = random.Random(7).randbytes(1 << 20)
BLOCKS: Final = 256
GIB_BLOCKS: Final = 1024
GB: Final = 1e9
ZIP_LATEST: Final = 0.8  # of the benchmark's time: the ZIPs' least rounds must fit into the rest
ZIP_PIECES: Final = 24  # of a block's size each; a round of 48 takes more time than there is on a slow machine

_NGINX: Final = """
    server {{
        listen 80;
        root {folder};
        client_max_body_size 0;
        {tuned}
        location / {{ dav_methods PUT; }}
    }}
"""
_TUNED: Final = "client_body_buffer_size 1m;"  # its default is 16 KB, each written by a call of its own


@dataclass(frozen=True)
class Shop:
    """Where a file can be put and had again.

    Attributes:
        url: Of the file, as a request line has it.
        lines: Further lines of a head.
    """

    name: str
    address: tuple[str, int]
    url: str
    pids: tuple[int, ...]
    lines: str = ""

    def put(self, blocks: int) -> None:
        """Upload so many blocks."""
        head = f"PUT {self.url} HTTP/1.1\r\nHost: a\r\nContent-Length: {blocks * len(BLOCK)}{self.lines}"
        ask(self.address, head, body=itertools.repeat(memoryview(BLOCK), blocks))

    def get(self, blocks: int) -> None:
        """Download them."""
        size = ask(self.address, f"GET {self.url} HTTP/1.1\r\nHost: a{self.lines}")
        assert size == blocks * len(BLOCK)

    def cost(self, work: Callable[[], None]) -> "Cost":
        """What one round costs."""
        used, started = self._used(), time.perf_counter()
        with on_core(LOAD_CORE):
            work()
        return Cost(self._used() - used, time.perf_counter() - started)

    def _used(self) -> float:
        return sum(cpu_seconds(pid) for pid in self.pids)


@dataclass(frozen=True)
class Cost:
    """What a round of `BLOCKS` took: seconds of the servers' processor time, and seconds."""

    used: float
    elapsed: float

    @property
    def per_gb(self) -> float:
        """Processor seconds for each GB."""
        return self.used / (BLOCKS * len(BLOCK)) * GB

    @property
    def rate(self) -> float:
        """MB in each second."""
        return BLOCKS * len(BLOCK) / self.elapsed / 1e6


def main() -> None:
    """Measure."""
    with Benchmark("files") as bench, ExitStack() as servers:
        server = servers.enter_context(running_server(bench.folder))
        token = server.register("bench@example.com")
        big, sources, packed = server.make_tasks(token, 3)
        ours = _shop(server, token, big)
        shops = [ours]
        if (lack := nginx_lacks()) is None:
            shops.append(_open_nginx(servers, bench.folder / "nginx", name=f"nginx {nginx_version()}"))
            tuned = _open_nginx(servers, bench.folder / "tuned", name="nginx, 1 MB of buffer", tuned=_TUNED)
            shops.append(tuned)
        else:
            bench.skip("nginx", lack)
        _note_memory(bench, ours)
        _measure(bench, shops)
        if shutil.which("zip") is None:
            bench.skip("zip", "it is not installed (apt install zip)")
        elif bench.is_late(ZIP_LATEST):
            bench.skip("zip", "what came before took too long on this machine")
        else:
            _measure_zip(bench, _Zipped(server, token, sources, bench.folder / "sources"), level=1)
            _measure_zip(bench, _Zipped(server, token, packed, bench.folder / "packed"), level=0)


# ---- one file


def _shop(server: PublishingServer, token: str, task: str) -> Shop:
    assert server.process is not None
    url = f"/api/v1/tasks/{task}/files/content?path=big.bin"
    return Shop("BeRay", server.address, url, (server.process.pid,), f"\r\nAuthorization: Bearer {token}")


def _open_nginx(servers: ExitStack, folder: Path, *, name: str, tuned: str = "") -> Shop:
    root = folder.with_name(f"{folder.name}-files")
    root.mkdir()
    with on_core(SERVER_CORE):
        nginx = servers.enter_context(running_nginx(folder, _NGINX.format(folder=root, tuned=tuned)))
    return Shop(name, nginx.address, "/big.bin", nginx.pids)


def _note_memory(bench: Benchmark, shop: Shop) -> None:
    pid = shop.pids[0]
    shop.put(1)  # loads what an upload needs
    for way, work in (("up", shop.put), ("down", shop.get)):
        before = resident_mib(pid)
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the highest resident size begins anew
        work(GIB_BLOCKS)
        grown = _highest_mib(pid) - before
        what = f"memory of the server for a file of 1 GiB on its way {way}"
        bench.note(what, unit="MiB", ours=Side("BeRay", [grown]), goal=Goal("≤", 16, of="figure"))


def _highest_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel does not tell the highest resident size")


def _measure(bench: Benchmark, shops: Sequence[Shop]) -> None:
    ups = [partial(_once, shop, shop.put) for shop in shops]
    downs = [partial(_once, shop, shop.get) for shop in shops[:2]]
    rounds = bench.samples(ROUNDS, *ups, *downs, _hash, share=0.5)
    hashing = Side("hashlib", [cost.per_gb for cost in rounds.pop()])
    bench.note("SHA-256 alone, processor time for each GB", unit="s", ours=hashing)
    ours, *others = zip(shops, rounds[: len(shops)], strict=True)
    for number, other in enumerate(others):
        costs, other_costs = _sides(ours, _per_gb), _sides(other, _per_gb)
        what = "upload, processor time of the server for each GB"
        bench.compare(what, unit="s", ours=costs, other=other_costs, goal=None if number else Goal("≤", 1))
        less = Side("BeRay, less the hashing", [cost - hashing.figure for cost in costs.rounds])
        bench.compare(f"{what}, without SHA-256", unit="s", ours=less, other=other_costs)
        bench.compare("upload, rate", unit="MB/s", ours=_sides(ours, _rate), other=_sides(other, _rate))
    ours, *others = zip(shops[:2], rounds[len(shops) :], strict=True)
    for other in others:
        what = "download, processor time of the server for each GB"
        bench.compare(what, unit="s", ours=_sides(ours, _per_gb), other=_sides(other, _per_gb), goal=Goal("≤", 1.5))
        bench.compare("download, rate", unit="MB/s", ours=_sides(ours, _rate), other=_sides(other, _rate))


def _sides(of: tuple[Shop, list[Cost]], figure: Callable[[Cost], float]) -> Side:
    shop, costs = of
    return Side(shop.name, [figure(cost) for cost in costs])


def _per_gb(cost: Cost) -> float:
    return cost.per_gb


def _rate(cost: Cost) -> float:
    return cost.rate


def _once(shop: Shop, work: Callable[[int], None]) -> list[Cost]:
    return [shop.cost(partial(work, BLOCKS))]


def _hash() -> list[Cost]:
    """What the answer to an upload tells: the library the server uses, on the core it has."""
    with on_core(SERVER_CORE):
        used, started, total = time.process_time(), time.perf_counter(), hashlib.sha256()
        for _ in range(BLOCKS):
            total.update(BLOCK)
        return [Cost(time.process_time() - used, time.perf_counter() - started)]


# ---- ZIP


class _Zipped:
    """The same files in a task and in a folder."""

    def __init__(self, server: PublishingServer, token: str, task: str, folder: Path) -> None:
        assert server.process is not None
        self._pid = server.process.pid
        self._address = server.address
        self._api = f"/api/v1/tasks/{task}/files"
        self._lines = f"\r\nAuthorization: Bearer {token}"
        self._folder = folder
        self.size = 0
        folder.mkdir()

    def add(self, name: str, content: bytes) -> None:
        """Put a file into both."""
        (self._folder / name).write_bytes(content)
        head = f"PUT {self._api}/content?path={quote(name)} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(content)}"
        ask(self._address, head + self._lines, body=[memoryview(content)])
        self.size += len(content)

    def check(self) -> None:
        """The archive must be whole, and hold every file."""
        wire = bytearray()
        ask(self._address, f"GET {self._api}/download HTTP/1.1\r\nHost: a{self._lines}", take=wire.extend)
        with zipfile.ZipFile(io.BytesIO(unchunked(bytes(wire)))) as archive:
            assert archive.testzip() is None
            assert sorted(archive.namelist()) == sorted(path.name for path in self._folder.iterdir())

    def ours(self) -> list[float]:
        """Processor seconds for each GB of the server that makes and sends it."""
        used = cpu_seconds(self._pid)
        with on_core(LOAD_CORE):
            ask(self._address, f"GET {self._api}/download HTTP/1.1\r\nHost: a{self._lines}")
        return [(cpu_seconds(self._pid) - used) / self.size * GB]

    def zip_program(self, level: int) -> list[float]:
        """The same of the program, which writes it to a pipe."""
        before = sum(os.times()[2:4])
        command = ["zip", f"-{level}", "-q", "-r", "-", "."]
        with on_core(SERVER_CORE):
            process = subprocess.Popen(command, cwd=self._folder, stdout=subprocess.PIPE)
        with on_core(LOAD_CORE):
            assert process.stdout is not None
            while process.stdout.read(len(BLOCK)):
                pass
            assert process.wait() == 0
            process.stdout.close()
        return [(sum(os.times()[2:4]) - before) / self.size * GB]


def _measure_zip(bench: Benchmark, zipped: _Zipped, *, level: int) -> None:
    name = "{}.py" if level else "{}.png"
    for number, content in enumerate(_sources() if level else itertools.repeat(BLOCK, ZIP_PIECES)):
        zipped.add(name.format(number), content)
    zipped.check()
    ours, other = bench.samples(ROUNDS, zipped.ours, partial(zipped.zip_program, level), share=1.0)
    what = "a ZIP of Python sources" if level else "a ZIP of packed files, stored"
    bench.compare(
        f"{what}, {zipped.size / 1e6:.0f} MB, processor time for each GB",
        unit="s",
        ours=Side("BeRay, sent over HTTP", ours),
        other=Side(f"zip -{level}, to a pipe", other),
    )


def _sources() -> Iterator[bytes]:
    """The standard library's own, joined to pieces of a block's size: an upload of each small one is not the point."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))
    gathered = bytearray()
    count = 0
    for path in itertools.cycle(files):
        gathered += path.read_bytes()
        if len(gathered) >= len(BLOCK):
            yield bytes(gathered)
            gathered.clear()
            count += 1
            if count == ZIP_PIECES:
                return


if __name__ == "__main__":
    main()
