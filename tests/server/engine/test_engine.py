"""The engine's promises. Each case is a process of its own: the engine library is a singleton."""

import inspect
import json
import logging
import os
from typing import Any

import pytest
from dbos._error import DBOSNonExistentWorkflowError
from sqlalchemy import URL, make_url

from beray.server.engine.dbos_queue import _is_news, library_url
from tests.support.databases import sqlite_url
from tests.support.starter import Work, starter

PROGRAM = "tests.server.engine.engine_program"


def run(case: str, url: URL) -> dict:
    """Run a case of `engine_program.py`; what it reports as JSON on its last line."""
    arguments = [case, url.render_as_string(hide_password=False)]
    done = starter().run(Work(arguments, os.environ, module=PROGRAM), seconds=60)
    assert done.returncode in {0, -9}, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def one_url(tmp_path) -> URL:
    """For what has nothing to do with the kind of database."""
    return sqlite_url(tmp_path / "beray.db")


def test_submitted_run_is_run_once(database_url):
    assert run("simple", database_url) == {"runs": [[1, 1]]}


def test_rolled_back_submission_never_runs(database_url):
    assert run("rollback", database_url) == {"runs": [[2, 1]]}


@pytest.mark.parametrize("end", ["kill", "close"])
def test_unfinished_run_is_taken_up_again(database_url, end):
    first = run(f"unfinished-{end}", database_url)

    second = run("continue", database_url)

    assert first == second == {"runs": [[1, 1]]}


def test_finished_run_does_not_run_again(database_url):
    run("simple", database_url)

    assert run("idle", database_url) == {"runs": []}


def test_only_so_many_runs_of_a_user_go_on_at_once(database_url):
    assert run("concurrency", database_url) == {"most_of_user": 2, "most": 3, "done": 8}


def test_purged_run_is_forgotten(database_url):
    assert run("purge", database_url) == {"left": 0}


@pytest.mark.parametrize(("case", "seen"), [("queue-only", {"is_running": False}), ("purge", {"left": 0})])
def test_password_of_any_characters_works(postgres, case, seen):
    url = postgres.create_database()

    assert run(case, postgres.with_role(url, "s3cret pw@:/%")) == seen

    postgres.drop_database(url)


def test_url_reaches_the_library_as_it_is():
    url = URL.create("postgresql", "be ray", "s3cret pw+@:/%", "db", 5432, "be_ray", {"options": "-c geqo=off"})

    assert make_url(library_url(url)) == url


def test_failed_run_does_not_stop_the_engine(one_url):
    assert run("failure", one_url) == {"runs": [[1, 1], [2, 1]]}


def test_launch_that_failed_can_be_tried_again(one_url):
    seen = run("launched-again", one_url)

    assert seen == {"failures": ["no room early", "no room late"], "threads": [], "runs": [[1, 1]]}


def test_log_keeps_quiet_about_the_runs_of_deleted_tasks_only():
    gone, other = DBOSNonExistentWorkflowError("target", "1.1"), RuntimeError("x")

    assert not _is_news(logging.makeLogRecord({"msg": "Exception encountered", "exc_info": (type(gone), gone, None)}))
    assert not _is_news(logging.makeLogRecord({"msg": "Asyncio task cancelled for x"}))
    assert not _is_news(logging.makeLogRecord({"msg": "Exception listing queues: (psycopg.OperationalError) away"}))
    assert _is_news(logging.makeLogRecord({"msg": "Exception encountered", "exc_info": (type(other), other, None)}))


@pytest.fixture
def shared_url(postgres_url) -> URL:
    """Only PostgreSQL has more than one process."""
    return make_url(postgres_url)


def test_run_of_a_dead_process_is_taken_over(shared_url):
    first = run("another-process-hangs", shared_url)

    heir = run("takes-over", shared_url)

    assert first == {"runs": [[1, 1]]}
    assert heir["before"] == [0, True, []], "a process that lives keeps its runs"
    assert heir["after"] == [[1, 0], False], "one look may be deceived by a clock that was set"
    assert heir["runs"] == [[1, 1]]
    assert heir["processes"] == ["heir"], "nothing is left of the dead"


def test_run_taken_from_a_living_process_by_mistake_begins_anew_only_once(shared_url):
    assert run("stray-takeover", shared_url) == {"runs": [[1, 1], [1, 1]]}


def test_run_whose_attempt_was_displaced_is_taken_up_again(database_url):
    assert run("displaced", database_url) == {"runs": [1, 1]}


def test_cut_worker_lets_go_claims_nothing_and_goes_on_later(shared_url):
    assert run("cut-and-go-on", shared_url) == {"cut": [[[1, 1]], 0], "after": [[1, 1], [2, 1]]}


def test_user_with_one_task_gets_the_next_free_place(database_url):
    """Two places, both the flooder's: the next that is free is the other's."""
    assert run("fair", database_url) == {"place_of_the_other": 2}


def test_claim_of_a_process_that_is_alone_is_the_librarys(one_url):
    assert run("claimed-alike", one_url) == {"claimed": ["1.1", "2.1"], "differences": []}


def test_run_of_another_application_version_is_left_alone(database_url):
    assert run("other-version", database_url) == {"runs": [[2, 1]]}


def test_records_of_old_runs_are_purged(database_url):
    assert run("old-runs", database_url) == {"purged": [0, 1]}


def parameters(function: Any) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in {"self", "cls"}]


def test_library_has_the_private_calls_that_are_used():
    """They are no contract of the library's: whoever moves the pin looks at these first."""
    from dbos import DBOS
    from dbos._context import DBOSContext
    from dbos._core import execute_dequeued_workflow
    from dbos._recovery import recover_pending_workflows
    from dbos._sys_db import SystemDatabase

    assert parameters(DBOS._recover_pending_workflows) == ["executor_ids"]
    assert "recover_pending_workflows(" in inspect.getsource(DBOS._recover_pending_workflows)
    assert parameters(recover_pending_workflows) == ["dbos", "executor_ids"]
    assert DBOSContext().owner_xid is None
    assert parameters(SystemDatabase.reenqueue_for_recovery) == ["workflow_id", "executor_ids", "recovery_queue_name"]
    assert parameters(SystemDatabase.start_queued_workflows) == [
        "queue",
        "executor_id",
        "app_version",
        "queue_partition_key",
        "local_running_count",
        "partition_local_running_count",
        "owner_xid",
        "is_latest_version",
    ]
    assert parameters(execute_dequeued_workflow) == ["dbos", "status", "owner_xid"]
    for name in ("get_queue", "get_workflow_statuses", "get_pending_workflows"):
        assert callable(getattr(SystemDatabase, name))
    assert {"status", "executor_id", "queue_partition_key", "queue_name"} <= set(workflow_columns())


def workflow_columns() -> list[str]:
    from dbos._schemas.system_database import SystemSchema

    return list(SystemSchema.workflow_status.columns.keys())
