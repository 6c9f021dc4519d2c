"""The cluster that tests get: it keeps what was committed, and does not outlive who started it."""

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support import postgres as support
from tests.support.ordinary_user import ROOT
from tests.support.postgres import PostgresCluster, wheel_binaries
from tests.support.waiting import wait_until

needs_wheel = pytest.mark.skipif(wheel_binaries() is None, reason=f"the wheel {support.WHEEL} is not installed")
_numbers = itertools.count(1)


@pytest.fixture
def make_cluster(service_dir: Path) -> Iterator[Callable[..., PostgresCluster]]:
    """Makes clusters of the test's own, which it may stop and kill."""
    made: list[PostgresCluster] = []

    def make(binaries: Path | None = None) -> PostgresCluster:
        cluster = PostgresCluster(service_dir / f"cluster-{next(_numbers)}", binaries=binaries)
        made.append(cluster)
        return cluster.start()

    yield make
    for cluster in made:
        cluster.kill()


def run(url: str, *statements: str) -> list[tuple[object, ...]]:
    """Run the statements and commit; the rows of the last one."""
    with psycopg.connect(url, connect_timeout=10) as connection:
        for statement in statements:
            cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def test_each_test_has_an_empty_database_in_utf8(postgres, postgres_url):
    other_url = postgres.create_database()

    run(postgres_url, "CREATE TABLE word (text text)", "INSERT INTO word VALUES ('北京')")

    assert run(postgres_url, "SELECT upper(text || 'é') FROM word") == [("北京É",)]
    assert run(other_url, "SELECT to_regclass('word')") == [(None,)]
    postgres.drop_database(other_url)


def test_a_database_is_a_copy_of_its_template(postgres, postgres_url):
    run(postgres_url, "CREATE TABLE word (text text)", "INSERT INTO word VALUES ('a')")

    copy_url = postgres.create_database(template=postgres_url)

    assert run(copy_url, "SELECT text FROM word") == [("a",)]
    postgres.drop_database(copy_url)


def test_dropping_a_database_ends_its_connections(postgres):
    url = postgres.create_database()
    with psycopg.connect(url, connect_timeout=10) as connection:
        postgres.drop_database(url)

        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


@pytest.mark.needs("postgres")
def test_a_restart_keeps_data_and_port(make_cluster):
    cluster = make_cluster()
    url = cluster.create_database("kept")
    run(url, "CREATE TABLE word (text text)", "INSERT INTO word VALUES ('a')")

    cluster.restart()

    assert cluster.url("kept") == url
    assert run(url, "SELECT text FROM word") == [("a",)]


@pytest.mark.needs("postgres")
def test_a_kill_keeps_what_was_committed(make_cluster):
    cluster = make_cluster()
    url = cluster.create_database()
    run(url, "CREATE TABLE word (text text)", "INSERT INTO word VALUES ('committed')")
    connection = psycopg.connect(url, connect_timeout=10)
    connection.execute("INSERT INTO word VALUES ('open')")

    cluster.kill()
    cluster.start()

    assert run(url, "SELECT text FROM word") == [("committed",)]
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    connection.close()


@pytest.mark.needs("postgres")
def test_a_taken_port_is_passed_over(make_cluster, monkeypatch):
    taken = make_cluster()
    free_port = support._free_port
    ports = iter([taken.port])
    monkeypatch.setattr(support, "_free_port", lambda: next(ports, None) or free_port())

    cluster = make_cluster()

    assert cluster.port != taken.port
    assert run(cluster.url("postgres"), "SHOW data_directory") == [(str(cluster.data_dir),)]


@needs_wheel
def test_the_binaries_of_the_wheel_serve(make_cluster):
    cluster = make_cluster(wheel_binaries())

    url = cluster.create_database()

    assert run(url, "SELECT upper('é')") == [("É",)]


@needs_wheel
def test_a_machine_without_postgres_has_the_binaries_of_the_wheel(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(support, "DEBIAN", tmp_path)

    assert support.find_binaries() == wheel_binaries()


@pytest.mark.needs("postgres")
def test_a_cluster_ends_when_its_owner_is_killed(service_dir):
    folder = service_dir / "orphan"
    command = [sys.executable, "-m", "tests.support.postgres", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().strip()
        assert run(url, "SELECT 1") == [(1,)]
        postmaster = int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])

        owner.kill()

        wait_until(lambda: not Path(f"/proc/{postmaster}").exists(), what="the end of the postmaster")
    with pytest.raises(psycopg.OperationalError):
        run(url, "SELECT 1")
