import pytest

from tests.server.files.files_server import FilesServer, TaskFiles


@pytest.fixture
def task(files_server: FilesServer) -> TaskFiles:
    """A task with an empty work_dir."""
    return files_server.make_task()
