"""The agent's loop beside raw HTTP calls to the same scripted model, and what compaction saves.

- A step is a model call and a tool call that touches neither disk nor sandbox (update_plan), with the event log, the
  checkpoint and the record of the call, all durable. Raw calls send the very bodies that the loop has sent, with the
  client library's own HTTP client, and parse every chunk. The scripted model is a process of its own, so only the
  caller's processor time counts.
- Tokens sent: a task of 50 steps whose every result is 4,000 characters, once for a model with 32,000 tokens of
  context and once for one whose context is not known, so that nothing is compacted. The scripted model counts a quarter
  of a request's characters.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.measure import Benchmark, Goal, Side
from benchmarks.model_process import model_process
from beray.server.agent.budget import RunLimits
from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.run import Outcome
from tests.support.agent_bench import Bench, open_bench
from tests.support.scripted_model import TWENTY_STEPS, Reply, Script, ScriptedModel, call

GOAL = "Do all the steps."
ROUNDS = 15
REQUESTS = 21  # twenty steps and the final text
STEPS = 50
RESULT_CHARACTERS = 4000
CONTEXT_TOKENS = 32_000
CHARACTERS_PER_TOKEN = 4

Request = dict[str, Any]


def main() -> None:
    """Measure."""
    with Benchmark("agent") as bench:
        _measure_steps(bench)
        _measure_tokens(bench)


# ---- a step


def _measure_steps(bench: Benchmark) -> None:
    folders = (bench.folder / f"run-{number}" for number in itertools.count())
    with ScriptedModel(TWENTY_STEPS) as model:
        _played_ms(next(folders), model.base_url)  # loads the libraries, and shows what is sent
        bodies = [json.dumps(request).encode() for request in model.requests]
    assert len(bodies) == REQUESTS
    with model_process("twenty steps") as base_url:
        ours, raw = bench.rounds(
            ROUNDS,
            lambda: _played_ms(next(folders), base_url) / REQUESTS,
            lambda: _cpu_ms(lambda: _ask_raw(bodies, base_url)) / REQUESTS,
            share=0.4,
        )
    bench.compare(
        "a step of the agent's loop, processor time",
        unit="ms",
        ours=Side("BeRay: events, checkpoint and call recorded", ours),
        other=Side("a raw streaming call", raw),
        goal=Goal("≤", 15, of="difference"),
    )


def _played_ms(folder: Path, base_url: str) -> float:
    """Processor time of a run, its database made before."""
    played = open_bench(folder, python=None)
    try:
        return _cpu_ms(lambda: _play(played, base_url))
    finally:
        played.database.close()


def _cpu_ms(work: Callable[[], Coroutine[Any, Any, object]]) -> float:
    started = time.process_time()
    asyncio.run(work())
    return (time.process_time() - started) * 1000


async def _play(played: Bench, base_url: str, **changes: Any) -> Outcome:
    model = ModelChoice("openai:scripted", "model", base_url=base_url, is_own_url=True)
    outcome = await played.run(GOAL, model=model, **changes)
    assert outcome.is_completed, outcome.error
    return outcome


async def _ask_raw(bodies: list[bytes], base_url: str) -> None:
    headers = {"Content-Type": "application/json", "Authorization": "Bearer key"}
    async with httpx2.AsyncClient(trust_env=False, timeout=20) as client:
        for body in bodies:
            async with client.stream("POST", f"{base_url}/chat/completions", content=body, headers=headers) as answer:
                async for line in answer.aiter_lines():
                    if line.startswith("data: {"):
                        json.loads(line[6:])


# ---- tokens sent


def _measure_tokens(bench: Benchmark) -> None:
    compacted = asyncio.run(_tokens_sent(bench.folder / "compacted", context_tokens=CONTEXT_TOKENS))
    whole = asyncio.run(_tokens_sent(bench.folder / "whole", context_tokens=None))
    bench.compare(
        f"tokens sent over {STEPS} steps",
        unit="tokens",
        ours=Side(f"compacted, for a context of {CONTEXT_TOKENS:,}", [compacted]),
        other=Side("never compacted", [whole]),
    )


async def _tokens_sent(folder: Path, *, context_tokens: int | None) -> float:
    limits = RunLimits(requests=2 * STEPS, tool_calls=2 * STEPS, tokens=100_000_000)
    played = open_bench(folder, python=None)
    try:
        with ScriptedModel(_fifty_steps()) as model:
            outcome = await _play(played, model.base_url, context_tokens=context_tokens, limits=limits)
    finally:
        played.database.close()
    assert outcome.usage is not None
    assert outcome.usage["tool_calls"] == STEPS
    assert outcome.usage["input_tokens"] is not None
    return outcome.usage["input_tokens"]


def _fifty_steps() -> Script:
    """A long result at every step; a request without tools asks for a summary."""
    numbers = itertools.count()

    def script(request: Request, number: int) -> Reply:
        usage = (len(json.dumps(request)) // CHARACTERS_PER_TOKEN, 50)
        if not request.get("tools"):
            return Reply("So far all steps have gone well. " * 20, usage=usage)
        step = next(numbers)
        if step == STEPS:
            return Reply("All steps are done.", usage=usage)
        command = f"printf '{step:04} %.0s' $(seq {RESULT_CHARACTERS // 5})"
        return Reply(calls=[call("shell", command=command)], usage=usage)

    return script


if __name__ == "__main__":
    main()
