import pytest

from tests.server.auth.auth_server import AuthServer


@pytest.fixture
def server(accounts: AuthServer) -> AuthServer:
    """A server without rate limits, for what is not about them."""
    return accounts


@pytest.fixture
def limited_server(limited_accounts: AuthServer) -> AuthServer:
    """A server as it is by default, with rate limits."""
    return limited_accounts
