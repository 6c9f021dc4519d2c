import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.agent_bench import Bench, open_bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """A task of its own, and what runs it."""
    made = open_bench(tmp_path, python=shutil.which("python3"))
    yield made
    await made.sandbox.close()
    made.database.close()
