from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server.auth.auth_server import AuthServer, run_auth_server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[AuthServer]:
    """A server without rate limits, for what is not about them."""
    with run_auth_server(tmp_path, rate_limits=False) as running:
        yield running


@pytest.fixture
def limited_server(tmp_path: Path) -> Iterator[AuthServer]:
    """A server as it is by default, with rate limits."""
    with run_auth_server(tmp_path) as running:
        yield running
