"""Fixtures that show themselves in each test: a real server, and clients of it."""

import contextlib
import gc
import itertools
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import URL, make_url

from beray.client import BeRayClient
from tests.server.auth.auth_server import AuthServer, run_auth_server
from tests.server.files.files_server import FilesServer, run_files_server
from tests.support.browser import Chromium
from tests.support.databases import sqlite_url
from tests.support.machine import CHECKS, machine_lacks, required
from tests.support.postgres import PostgresCluster
from tests.support.sandbox_cases import CANARY, Box, open_box
from tests.support.server import ServerProcess

_numbers = itertools.count(1)
LONG = ("attacks", "console", "e2e", "contract", "cli")  # folders of tests that start servers of their own
SHARING = ("console",)  # folders whose tests share what is dear to start: a browser, with a server


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two workers a core: the longest tests wait for leases, processes that start, pages that are drawn."""
    return (os.cpu_count() or 1) * 2


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long tests come first for every worker, so that none is left alone with one at the end.

    Each worker begins with a part of the list, in its order, and takes from the others when it has done its own.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    files = [list(group) for _, group in itertools.groupby(items, key=_place)]
    long = [file for file in files if file[0].path.parent.name in LONG]
    short = [item for file in files if file[0].path.parent.name not in LONG for item in file]
    size = -(-len(short) // workers)
    items[:] = [
        item
        for worker in range(workers)
        for item in (*itertools.chain(*long[worker::workers]), *short[worker * size : (worker + 1) * size])
    ]


def _place(item: pytest.Item) -> Path:
    """What goes to one worker: a file, or a folder."""
    return item.path.parent if item.path.parent.name in SHARING else item.path


def pytest_runtest_setup(item: pytest.Item) -> None:
    """`@pytest.mark.needs("landlock")`: skip with the reason, or fail where the run insists on it."""
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            _need(name)


def _need(name: str) -> None:
    reason = machine_lacks(name)
    if reason is not None and name in required():
        pytest.fail(f"BERAY_TEST_REQUIRE names {name}, but {reason}")
    if reason is not None:
        pytest.skip(reason)


def pytest_configure(config: pytest.Config) -> None:
    """A misspelt requirement must not require nothing."""
    _keep_bytecode(config)
    ServerProcess.is_forked = True
    gc.disable()  # until all tests are collected; see below
    unknown = required() - CHECKS.keys()
    if unknown:
        raise pytest.UsageError(f"BERAY_TEST_REQUIRE names {sorted(unknown)}; known: {sorted(CHECKS)}")


def _keep_bytecode(config: pytest.Config) -> None:
    """Have servers' processes find their modules compiled, where the environment wants none of that beside the code.

    Hundreds are started, and each would compile 2,000 modules: 4.4 s of processor time instead of 1.7 (measured).
    """
    if config.pluginmanager.hasplugin("cacheprovider") and os.environ.pop("PYTHONDONTWRITEBYTECODE", None):
        sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = str(config.cache.mkdir("bytecode"))
        sys.dont_write_bytecode = False


def pytest_collection_finish(session: pytest.Session) -> None:
    """Never look for garbage through the modules and thousands of tests that are there now, which takes 0.2 s."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def service_dir() -> Iterator[Path]:
    """A folder whose every parent a sandbox uid can pass (pytest's own tmp_path is 0700)."""
    with tempfile.TemporaryDirectory(prefix="beray-test-") as folder:
        path = Path(folder)
        path.chmod(0o711)
        yield path


@pytest.fixture(scope="module")
def module_dir(service_dir: Path) -> Path:
    """A new folder in it for what a module's tests share: with several workers one may begin a module twice."""
    folder = service_dir / f"module-{next(_numbers)}"
    folder.mkdir(mode=0o711)
    return folder


@pytest.fixture(scope="module")
def files_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilesServer]:
    """A server of files for a module; each test makes tasks of its own."""
    with run_files_server(tmp_path_factory.mktemp("work_dirs")) as running:
        yield running


@pytest.fixture
def accounts(tmp_path: Path) -> Iterator[AuthServer]:
    """A server of accounts without rate limits, for what is not about them."""
    with run_auth_server(tmp_path, rate_limits=False) as running:
        yield running


@pytest.fixture
def limited_accounts(tmp_path: Path) -> Iterator[AuthServer]:
    """A server of accounts as it is by default, with rate limits."""
    with run_auth_server(tmp_path) as running:
        yield running


@pytest.fixture
def make_server(service_dir: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Makes servers of the test's own, each with a fresh data folder; ended with the test."""
    made: list[ServerProcess] = []

    def make(*, data_dir: Path | None = None, **settings: object) -> ServerProcess:
        folder = data_dir or service_dir / f"data-{next(_numbers)}"
        server = ServerProcess(folder, **settings)
        made.append(server)
        return server

    yield make
    for server in made:
        server.kill()


@pytest.fixture(scope="session")
def server(service_dir: Path) -> Iterator[ServerProcess]:
    """One ready server for all tests of this process; tests share it, so each makes users of its own."""
    running = ServerProcess(service_dir / "data", webhook_allow_private="127.0.0.1").start()
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="session")
def postgres(service_dir: Path) -> Iterator[PostgresCluster]:
    """A running PostgreSQL for all tests of this process; a test that stops it starts it again."""
    _need("postgres")
    cluster = PostgresCluster(service_dir / "postgres").start()
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """A running browser for all tests of this process."""
    _need("chromium")
    with Chromium() as running:
        yield running


@pytest.fixture
def postgres_url(postgres: PostgresCluster) -> Iterator[str]:
    """URL of an empty database of the test's own."""
    url = postgres.create_database()
    yield url
    postgres.drop_database(url)


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """An empty database of each kind: what is promised of one holds for both."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "beray.db")
    return make_url(request.getfixturevalue("postgres_url"))


@pytest.fixture
def make_client(server: ServerProcess) -> Iterator[Callable[[], BeRayClient]]:
    """Makes clients, each logged in as a new user."""
    clients: list[BeRayClient] = []

    def make() -> BeRayClient:
        token = server.register(f"user-{next(_numbers)}-{id(clients)}@example.com")
        client = BeRayClient(server.base_url, token=token)
        clients.append(client)
        return client

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def client(make_client: Callable[[], BeRayClient]) -> BeRayClient:
    """A client logged in as a user of its own."""
    return make_client()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def open_once(service_dir: Path) -> AsyncIterator[Callable[[str], Awaitable[Box]]]:
    """A sandbox of each backend that is asked for, opened once for all tests of this process that share it."""
    boxes: dict[str, Box] = {}
    async with contextlib.AsyncExitStack() as stack:

        async def get(backend: str) -> Box:
            if backend not in boxes:
                os.environ["SERVER_CANARY"] = CANARY
                boxes[backend] = await stack.enter_async_context(open_box(backend, service_dir / f"box-{backend}"))
            boxes[backend].new_task()
            return boxes[backend]

        yield get
    os.environ.pop("SERVER_CANARY", None)
