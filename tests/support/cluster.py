"""Several real processes on one PostgreSQL database: `beray serve --no-worker` and `beray worker`."""

import re
import threading
from pathlib import Path
from types import TracebackType

from tests.support.server import ServerProcess

ADDRESS = re.compile(r"^BeRay \S+ worker +(http://[^/\s]+)/ready$", re.MULTILINE)


class ApiProcess(ServerProcess):
    """`beray serve --no-worker`; a port it has once had it keeps."""

    command = ("serve", "--no-worker")

    def start(self) -> "ApiProcess":
        super().start()
        self.port = int(self.base_url.rpartition(":")[2])
        return self


class WorkerProcess(ServerProcess):
    """`beray worker`; it says in its log where it can be asked how it is."""

    command = ("worker",)
    _seen = 0

    def launch(self) -> None:
        self._seen = len(self.log_text())
        super().launch()

    def _find_url(self) -> str | None:
        self.check_alive()
        found = ADDRESS.search(self.log_text()[self._seen :])
        return None if found is None else found[1]


class Cluster:
    """Processes that share a database and a folder of work_dirs, all ready. Use it as a context manager.

    Args:
        folder: Where they keep things.
        database_url: An empty database.
        apis: How many API processes.
        workers: How many workers.
        settings: Of all of them.
    """

    def __init__(self, folder: Path, database_url: str, *, apis: int = 1, workers: int = 1, **settings: object) -> None:
        self.folder = folder
        self.database_url = database_url
        self.settings = {
            "database_url": database_url,
            "work_dirs": folder / "work_dirs",
            "secret_key": "one key for all processes of the cluster",
            **settings,
        }
        self.apis = [ApiProcess(folder / f"api-{n}", **self.settings) for n in range(apis)]
        self.workers = [WorkerProcess(folder / f"worker-{n}", **self.settings) for n in range(workers)]

    @property
    def processes(self) -> list[ServerProcess]:
        return [*self.apis, *self.workers]

    def __enter__(self) -> "Cluster":
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o711)
        failures: list[BaseException] = []

        def start(process: ServerProcess) -> None:
            try:
                process.start()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=start, args=(process,)) for process in self.processes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            self._kill()
            raise failures[0]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()

    def _kill(self) -> None:
        for process in self.processes:
            process.kill()
