"""`console` is a test's own browser at a server that the tests of a process share; its model plays scripts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.browser import Chromium
from tests.support.console import Console, Scripts
from tests.support.scripted_model import ScriptedModel
from tests.support.server import ServerProcess


@pytest.fixture(scope="session")
def scripts() -> Scripts:
    """What the shared server's model plays."""
    return Scripts()


@pytest.fixture(scope="session")
def console_server(chromium: Chromium, scripts: Scripts, service_dir: Path) -> Iterator[ServerProcess]:
    """A server with a model for all tests of this process; each test registers users of its own."""
    with ScriptedModel(scripts) as model:
        server = ServerProcess(
            service_dir / "console",
            model="openai:scripted",
            model_base_url=model.base_url,
            model_api_key="key",
            max_running_tasks_per_user=10,
        )
        yield server.start()
        assert server.stop() == 0


@pytest.fixture
def console(chromium: Chromium, console_server: ServerProcess, scripts: Scripts) -> Iterator[Console]:
    """Pages and people of the test's own; when it ends, whatever went wrong on a page fails it."""
    console = Console(chromium, server=console_server, scripts=scripts)
    yield console
    console.close()
