import contextlib
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from beray.server.agent.models.choice import ModelChoice
from tests.support.agent_bench import Bench, open_bench
from tests.support.scripted_model import Reply, Script, ScriptedModel, turns


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A task of its own, and what runs it."""
    made = open_bench(tmp_path, python=shutil.which("python3"))
    yield made
    await made.sandbox.close()
    made.database.close()


@pytest.fixture
def scripted() -> Iterator[Callable[[Script], ScriptedModel]]:
    """Starts model servers that play a script."""
    with contextlib.ExitStack() as running:
        yield lambda script: running.enter_context(ScriptedModel(script))


@pytest.fixture
def use(bench, scripted):
    """Let a model make these calls, one an answer; what it was told of each."""

    async def run(*calls, **changes):
        server = scripted(turns(*[Reply(calls=[made]) for made in calls], Reply("done")))
        model = ModelChoice("openai:scripted", "model", base_url=server.base_url, is_own_url=True)
        outcome = await bench.run("go", model=model, **changes)
        assert outcome.result == "done"
        return [message["content"] for message in server.requests[-1]["messages"] if message["role"] == "tool"]

    return run


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries again after milliseconds."""
    monkeypatch.setattr("beray.server.agent.models.faults.FIRST_WAIT_SECONDS", 0.001)
