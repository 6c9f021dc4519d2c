"""What the SDK costs its caller: time of a call, imports, events decoded per second, memory of large files.

Against plain `requests`, bare aiohttp and other parsers of event streams, with a server in another process that does
the least a server can (`bare_server.py`).

- A call: `get_task` against the same GET and its JSON. Wall time, and this process' processor time alone.
- Decoding: bytes of a stream in chunks of 64 KiB to JSON objects, as the SDK does it (`stream_parsers.py`).
- `import beray`: a new process that does it, against one that does nothing.
- Memory: the highest resident size of a new process while it moves 1 GiB, above that before.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import aiohttp
import requests

from benchmarks.bare_server import FILE_BYTES, running_bare_server
from benchmarks.measure import Benchmark, Goal, Side
from benchmarks.stream_parsers import OTHERS, Decode, ours
from beray.async_client import AsyncBeRayClient
from beray.client import BeRayClient
from beray.protocol.responses import parse_json
from beray.protocol.sse import encode_event

ROUNDS: Final = 9
CALLS: Final = 150
AT_ONCE: Final = 32
ASYNC_CALLS: Final = 1600
EVENTS: Final = 20_000
CHUNK_BYTES: Final = 64 * 1024
TOKEN: Final = "t" * 43
MIB: Final = 1 << 20


def main() -> None:
    """Measure."""
    with Benchmark("sdk") as bench:
        with running_bare_server() as base_url:
            _measure_memory(bench, base_url)
            _compare_calls(bench, base_url)
            asyncio.run(_compare_async_calls(bench, base_url))
        _compare_decoding(bench)
        _compare_imports(bench)


# Calls


def _compare_calls(bench: Benchmark, base_url: str) -> None:
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {TOKEN}"
    url = f"{base_url}/api/v1/tasks/1"

    def plain() -> object:
        answer = session.get(url, params={"events": "none"}, timeout=30)
        answer.raise_for_status()
        return answer.json()

    with BeRayClient(base_url, token=TOKEN) as client, session:

        def sdk() -> object:
            return client.get_task(1, events="none")

        assert sdk() == plain()
        results = bench.samples(ROUNDS, lambda: _cost(sdk), lambda: _cost(plain))
    for at, kind in enumerate(("wall time", "processor time of the caller")):
        bench.compare(
            f"an SDK call (GET of 1 KB JSON), {kind}",
            unit="µs",
            ours=Side("BeRayClient.get_task", results[0][at::2]),
            other=Side("requests.Session().get().json()", results[1][at::2]),
            goal=Goal("≤", 0.6),
        )


def _cost(call: Callable[[], object]) -> tuple[float, float]:
    """Microseconds of wall and processor time per call."""
    started, before = time.perf_counter(), time.process_time()
    for _ in range(CALLS):
        call()
    used, elapsed = time.process_time() - before, time.perf_counter() - started
    return elapsed / CALLS * 1e6, used / CALLS * 1e6


async def _compare_async_calls(bench: Benchmark, base_url: str) -> None:
    url = f"{base_url}/api/v1/tasks/1"
    session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {TOKEN}"})

    async def bare() -> object:
        async with session.get(url, params={"events": "none"}) as answer:
            answer.raise_for_status()
            return await answer.json(loads=parse_json)

    async with AsyncBeRayClient(base_url, token=TOKEN) as client, session:

        async def sdk() -> object:
            return await client.get_task(1, events="none")

        assert await sdk() == await bare()
        results = await _samples(ROUNDS, sdk, bare)
    for at, kind in enumerate(("wall time", "processor time of the caller")):
        bench.compare(
            f"SDK calls (GET of 1 KB JSON), {AT_ONCE} at once on one event loop, by {kind}",
            unit="calls/s",
            ours=Side("AsyncBeRayClient.get_task", results[0][at::2]),
            other=Side("aiohttp.ClientSession.get, json (same parser)", results[1][at::2]),
            goal=Goal("≥", 0.9),
        )


async def _samples(count: int, *calls: Callable[[], Awaitable[object]]) -> list[list[float]]:
    """Calls per second of wall and of processor time, for each call, in turn."""
    results: list[list[float]] = [[] for _ in calls]
    for _ in range(count):
        for result, call in zip(results, calls, strict=True):
            result.extend(await _calls_per_second(call))
    return results


async def _calls_per_second(call: Callable[[], Awaitable[object]]) -> tuple[float, float]:
    async def some() -> None:
        for _ in range(ASYNC_CALLS // AT_ONCE):
            await call()

    started, before = time.perf_counter(), time.process_time()
    await asyncio.gather(*(some() for _ in range(AT_ONCE)))
    used, elapsed = time.process_time() - before, time.perf_counter() - started
    return ASYNC_CALLS / elapsed, ASYNC_CALLS / used


# Decoding


def _compare_decoding(bench: Benchmark) -> None:
    for kind, delta in (("ASCII", "x" * 120), ("Chinese", "行中文字" * 15)):
        stream = b"".join(encode_event(seq, "tool.output", _body(seq, delta)) for seq in range(1, EVENTS + 1))
        chunks = [stream[start : start + CHUNK_BYTES] for start in range(0, len(stream), CHUNK_BYTES)]
        assert {decode(chunks) for decode in (ours, *OTHERS.values())} == {EVENTS}
        measures = [_rate(decode, chunks) for decode in (ours, *OTHERS.values())]
        own, *others = bench.rounds(ROUNDS, *measures)
        for (name, rates), least in zip(zip(OTHERS, others, strict=True), (2.0, 0.9, None), strict=True):
            bench.compare(
                f"decode a stream of {EVENTS:,} events ({kind}, {len(stream) >> 20} MiB)",
                unit="events/s",
                ours=Side("the SDK's decoder", own),
                other=Side(name, rates),
                goal=None if least is None else Goal("≥", least),
            )


def _body(seq: int, delta: str) -> bytes:
    event = {"v": 1, "seq": seq, "at": "2026-01-01T00:00:00.000Z", "task_id": 1, "type": "tool.output"}
    event |= {"call_id": "c1", "stream": "stdout", "delta": delta, "truncated": False}
    return json.dumps(event, ensure_ascii=False).encode()


def _rate(decode: Decode, chunks: Sequence[bytes]) -> Callable[[], float]:
    def measure() -> float:
        before = time.process_time()
        decode(chunks)
        return EVENTS / (time.process_time() - before)

    return measure


# Imports


def _compare_imports(bench: Benchmark) -> None:
    own, bare, client, library = bench.rounds(
        ROUNDS,
        lambda: _process_ms("import beray"),
        lambda: _process_ms("pass"),
        lambda: _process_ms("from beray import BeRayClient; BeRayClient('http://127.0.0.1:1')"),
        lambda: _process_ms("import requests"),
    )
    bench.compare(
        "a process that imports the package",
        unit="ms",
        ours=Side("import beray", own),
        other=Side("nothing", bare),
        goal=Goal("≤", 10, of="difference"),
    )
    bench.compare(
        "a process that makes a client",
        unit="ms",
        ours=Side("BeRayClient(…)", client),
        other=Side("import requests", library),
    )


def _process_ms(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return (time.perf_counter() - started) * 1000


# Memory

MOVING: Final = """
import asyncio, inspect, pathlib, sys, time
import beray

def status(name):
    line = next(line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1]) / 1024

async def main():
    kind, url, path, way = sys.argv[1:]
    client = getattr(beray, kind)(url, "t")

    async def call(name, *arguments):
        result = getattr(client, name)(*arguments)
        return await result if inspect.isawaitable(result) else result

    await call("get_task", 1)
    open("/proc/self/clear_refs", "w").write("5")  # the highest resident size begins anew
    before, started = status("VmRSS"), time.perf_counter()
    if way == "up":
        await call("upload_file", 1, "large", pathlib.Path(path))
    else:
        await call("download_file", 1, "large", path)
    print(status("VmHWM") - before, time.perf_counter() - started)
    await call("close")

asyncio.run(main())
"""


def _measure_memory(bench: Benchmark, base_url: str) -> None:
    path = bench.folder / "large"
    for kind in ("BeRayClient", "AsyncBeRayClient"):
        for way in ("down", "up"):
            mib, seconds = _moved(kind, base_url, path, way)
            assert path.stat().st_size == FILE_BYTES
            bench.note(
                f"memory of a file of 1 GiB on its way {way}",
                unit="MiB",
                ours=Side(f"{kind}, {FILE_BYTES / MIB / seconds:,.0f} MiB/s", [mib]),
                goal=Goal("≤", 16, of="figure"),
            )


def _moved(*arguments: object) -> tuple[float, float]:
    command = [sys.executable, "-c", MOVING, *map(str, arguments)]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=30)
    mib, seconds = found.stdout.split()
    return float(mib), float(seconds)


if __name__ == "__main__":
    main()
