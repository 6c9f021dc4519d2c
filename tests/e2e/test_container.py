"""A server whose commands run in containers: a task from the goal to its file."""

import pytest

from beray.client import BeRayClient
from tests.support.container_image import engine_here, image_here

pytestmark = pytest.mark.needs("container")


def test_a_task_runs_its_commands_in_containers(make_server):
    engine = engine_here()
    server = make_server(
        sandbox="container",
        sandbox_container_engine=engine.program,
        sandbox_container_image=image_here(engine.program),
    ).start()
    client = BeRayClient(server.base_url, token=server.register("container@example.org"))

    task = client.create_task("$ (cat /proc/1/comm; hostname) > where.txt; id -un >> where.txt")
    *_, last = client.stream_task_updates(task["id"])

    assert client.get_task(task["id"])["status"] == "completed", last
    assert client.get_file_content(task["id"], "where.txt").content.split() == [b"python3", b"beray", b"beray"]
    assert client.get_ready()["sandbox"]["backend"] == "container"
    client.close()
