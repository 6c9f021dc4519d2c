"""What the SDK costs its caller: processor time of a call, and events decoded per second.

- A call: `BeRayClient.get_task` against the same GET and `.json()` on a plain `requests.Session`, both to a server that
  answers from memory. Counted is this process' processor time, so the server's speed plays no part.
- Decoding: bytes of a stream in chunks of 64 KiB to JSON objects, as the SDK does it, against `iter_lines` and
  `json.loads`.
"""

import io
import json
import time
from collections.abc import Callable

import requests
import urllib3

from benchmarks.measure import Benchmark, Goal, Side
from benchmarks.twin import running_twin
from beray.client import BeRayClient
from beray.protocol.responses import parse_json
from beray.protocol.sse import EventStreamDecoder, encode_event

ROUNDS = 7
CALLS = 150
EVENTS = 20_000
CHUNK_BYTES = 64 * 1024
TOKEN = "t" * 43


def main() -> None:
    """Measure."""
    with Benchmark("sdk") as bench:
        with running_twin(bench.folder) as twin:
            _compare_calls(bench, twin.base_url)
        _compare_decoding(bench)


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
        ours, other = bench.rounds(ROUNDS, lambda: _cost(sdk), lambda: _cost(plain), share=0.6)
    bench.compare(
        "an SDK call, processor time of the caller",
        unit="µs",
        ours=Side("BeRayClient.get_task", ours),
        other=Side("requests.Session().get().json()", other),
        goal=Goal("≤", 0.6),
    )


def _cost(call: Callable[[], object]) -> float:
    """Microseconds of processor time per call."""
    before = time.process_time()
    for _ in range(CALLS):
        call()
    return (time.process_time() - before) / CALLS * 1e6


def _compare_decoding(bench: Benchmark) -> None:
    stream = b"".join(encode_event(seq, "tool.output", _body(seq)) for seq in range(1, EVENTS + 1))
    assert _decode_ours(stream) == _decode_plain(stream) == EVENTS
    ours, other = bench.rounds(ROUNDS, lambda: _rate(_decode_ours, stream), lambda: _rate(_decode_plain, stream))
    bench.compare(
        f"decode a stream of {EVENTS:,} events ({len(stream) >> 20} MiB)",
        unit="events/s",
        ours=Side("the SDK's decoder", ours),
        other=Side("iter_lines and json.loads", other),
    )


def _body(seq: int) -> bytes:
    event = {"v": 1, "seq": seq, "at": "2026-01-01T00:00:00.000Z", "task_id": 1, "type": "tool.output"}
    return json.dumps(event | {"call_id": "c1", "stream": "stdout", "delta": "x" * 120, "truncated": False}).encode()


def _rate(decode: Callable[[bytes], int], stream: bytes) -> float:
    before = time.process_time()
    count = decode(stream)
    return count / (time.process_time() - before)


def _decode_ours(stream: bytes) -> int:
    """As `protocol/flows.py` does: the decoder, then `parse_json` of each event's data."""
    decoder = EventStreamDecoder()
    count = 0
    for start in range(0, len(stream), CHUNK_BYTES):
        for event in decoder.feed(stream[start : start + CHUNK_BYTES]):
            count += parse_json(event.data)["v"]
    return count


def _decode_plain(stream: bytes) -> int:
    """What one writes first: `iter_lines` (in chunks as large as ours), and `json.loads` of the data lines."""
    response = requests.Response()
    response.raw = urllib3.HTTPResponse(io.BytesIO(stream), preload_content=False)
    count = 0
    for line in response.iter_lines(chunk_size=CHUNK_BYTES):
        if line.startswith(b"data: "):
            count += json.loads(line[6:])["v"]
    return count


if __name__ == "__main__":
    main()
