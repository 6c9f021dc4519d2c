from collections.abc import Iterator

import pytest

from tests.server.files.files_server import FilesServer, TaskFiles, run_files_server


@pytest.fixture(scope="module")
def files_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FilesServer]:
    """One server for a module; each test makes tasks of its own."""
    with run_files_server(tmp_path_factory.mktemp("work_dirs")) as running:
        yield running


@pytest.fixture
def task(files_server: FilesServer) -> TaskFiles:
    """A task with an empty work_dir."""
    return files_server.make_task()
