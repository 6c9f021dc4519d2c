"""The overview is there whatever of it can't be had."""

import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from beray.server.admin import overview
from beray.server.admin.overview import Overview, Told
from beray.server.db.connect import Database
from beray.server.db.processes import Process
from beray.server.readiness import Readiness
from tests.support.databases import seeded_database

NOW = 1_800_000_000_000
CHECK: Any = {"model": "m", "model_kind": "model", "ok": True, "answered": "OK", "latency_ms": 9, "error": None}


async def _check() -> Readiness:
    return Readiness()


async def _count_nothing() -> Mapping[str, int] | None:
    return None


TOLD = Told(
    process=Process("local", role="all", host="here", pid=7, version="1"),
    info=lambda: {"version": "1", "model": "m", "model_kind": "model", "limits": {}},
    check=_check,
    last_check=lambda: None,
    count_running=_count_nothing,
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """With a task that has waited for 5 s."""
    with seeded_database(tmp_path / "beray.db", 1, status="queued", updated_at=NOW - 5000) as opened:
        yield opened


async def look(database: Database, work_dirs: Path, told: Told = TOLD) -> dict[str, Any]:
    return await Overview(database, lambda: NOW, work_dirs=work_dirs, told=told).look()


async def test_parts_that_do_not_work_yet_are_told_as_unknown(database, tmp_path):
    seen = await look(database, tmp_path)

    assert seen["queue"] == {"queued": 1, "oldest_seconds": 5}
    assert seen["processes"] == [
        {"id": "local", "host": "here", "pid": 7, "role": "all", "version": "1", "beat_seconds": 0.0, "running": None}
    ]
    assert seen["model"]["last_check"] is None
    assert {check["state"] for check in seen["checks"].values()} == {"starting"}


async def test_latest_check_of_the_model_is_told_with_its_age(database, tmp_path):
    seen = await look(database, tmp_path, replace(TOLD, last_check=lambda: (CHECK, 12.4)))

    assert seen["model"] == {"name": "m", "kind": "model", "last_check": CHECK | {"seconds_ago": 12}}


async def test_runs_that_nobody_can_count_are_told_as_unknown(database, tmp_path, caplog):
    async def fail() -> Mapping[str, int] | None:
        raise OperationalError("SELECT", {}, ConnectionError("the connection was lost"))

    seen = await look(database, tmp_path, replace(TOLD, count_running=fail))

    assert [process["running"] for process in seen["processes"]] == [None]
    assert "the runs can't be counted: the connection was lost" in caplog.text


async def test_disk_is_looked_at_where_the_folder_will_be(database, tmp_path):
    seen = await look(database, tmp_path / "not" / "made")

    assert seen["storage"]["total_bytes"] > seen["storage"]["free_bytes"] > 0


async def test_disk_that_fails_is_told_as_unknown(database, tmp_path, monkeypatch):
    def fail(path: Path) -> os.statvfs_result:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(overview.os, "statvfs", fail)
    seen = await look(database, tmp_path)

    assert (seen["storage"]["free_bytes"], seen["storage"]["total_bytes"]) == (None, None)


async def test_disk_that_does_not_answer_holds_one_thread_however_often_it_is_asked(database, tmp_path, monkeypatch):
    goes_on = threading.Event()
    looks: list[Path] = []
    real = os.statvfs

    def hang(path: Path) -> os.statvfs_result:
        looks.append(path)
        assert goes_on.wait(30)
        return real(path)

    monkeypatch.setattr(overview, "DISK_SECONDS", 0.01)
    monkeypatch.setattr(overview.os, "statvfs", hang)
    asked = Overview(database, lambda: NOW, work_dirs=tmp_path, told=TOLD)

    seen = [await asked.look() for _ in range(3)]
    hung = len(looks)
    goes_on.set()
    monkeypatch.setattr(overview, "DISK_SECONDS", 30)
    later = await asked.look()

    assert [each["storage"]["free_bytes"] for each in seen] == [None, None, None]
    assert hung == 1
    assert later["storage"]["free_bytes"] > 0
