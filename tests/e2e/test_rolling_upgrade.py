"""An old and a new version side by side on one database, as in a rolling upgrade."""

import sys
from typing import Any

import psycopg
import requests

from beray import __version__
from beray.client import BeRayClient
from tests.e2e.test_cluster import HELLO, run_to_its_wait
from tests.support import next_version
from tests.support.cluster import ApiProcess, Cluster, WorkerProcess
from tests.support.waiting import wait_until

NEXT = (sys.executable, "-m", "tests.support.next_version")


class NextApi(ApiProcess):
    program = NEXT


class NextWorker(WorkerProcess):
    program = NEXT


def query(cluster: Cluster, sql: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(cluster.database_url) as connection:
        return connection.execute(sql).fetchall()  # type: ignore[call-overload]  # a literal in each test


def run_hello(at: BeRayClient, watched_at: BeRayClient) -> None:
    """A task made at one API and watched at another."""
    task_id = at.create_task(HELLO)["id"]
    events = list(watched_at.stream_task_updates(task_id))
    assert events == at.get_task(task_id)["events"]
    assert events[-1]["status"] == "completed"


def test_old_and_new_work_side_by_side_until_the_old_is_gone(service_dir, postgres_url):
    folder = service_dir / "rolling"
    with Cluster(folder, postgres_url, apis=1, workers=1) as cluster:
        [old_api], [old_worker] = cluster.apis, cluster.workers
        new_api = NextApi(folder / "next-api", **cluster.settings)
        new_worker = NextWorker(folder / "next-worker", **cluster.settings)
        cluster.apis.append(new_api)
        cluster.workers.append(new_worker)
        token = old_api.register("a@example.com")
        old = BeRayClient(old_api.base_url, token=token)
        long_task = run_to_its_wait(old, "go")

        new_api.start()
        new_worker.start()
        new = BeRayClient(new_api.base_url, token=token)

        assert query(cluster, "SELECT version_num FROM alembic_version") == [(next_version.HEAD,)]
        versions = {row[0] for row in query(cluster, "SELECT DISTINCT version FROM process")}
        assert versions == {__version__, next_version.VERSION}
        assert requests.get(f"{new_api.base_url}/health", timeout=10).json()["version"] == next_version.VERSION
        for at, watched_at in ((old, new), (new, old)):
            run_hello(at, watched_at)

        assert new_worker.stop() == 0  # what is queued now only the old one can run, on the new schema
        run_hello(new, old)
        assert old_api.stop() == 0  # an old process that is started again takes the new schema as it is
        old_api.start()
        assert query(cluster, "SELECT version_num FROM alembic_version") == [(next_version.HEAD,)]
        new_worker.start()

        assert old_worker.stop() == 0
        wait_until(lambda: new.get_task(long_task)["attempt"] == 2, what="the new worker to take the long task over")
        new.upload_file(long_task, "go", b"")
        wait_until(lambda: new.get_task(long_task)["status"] not in {"queued", "running"}, what="its end")
        assert old_api.stop() == 0
        run_hello(new, new)
        old.close()
        new.close()
