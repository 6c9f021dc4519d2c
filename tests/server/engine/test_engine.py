"""The engine's promises. Each case is a process of its own: the engine library is a singleton."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from dbos._error import DBOSNonExistentWorkflowError
from sqlalchemy import URL

from beray.server.engine.dbos_queue import _is_news

PROGRAM = "tests.server.engine.engine_program"
ROOT = Path(__file__).parents[3]


def run(case: str, url: URL) -> dict:
    """Run a case of `engine_program.py`; what it reports as JSON on its last line."""
    done = subprocess.run(
        [sys.executable, "-m", PROGRAM, case, url.render_as_string(hide_password=False)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in {0, -9}, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_submitted_run_is_run_once_with_its_steps(database_url):
    assert run("simple", database_url) == {
        "runs": [[1, 1]],
        "steps": ["turn-0", "turn-1"],
        "results": [{"n": 0}, {"n": 1}],
    }


def test_rolled_back_submission_never_runs(database_url):
    assert run("rollback", database_url) == {"runs": [[2, 1]]}


@pytest.mark.parametrize("end", ["kill", "close"])
def test_unfinished_run_goes_on_at_its_last_finished_step(database_url, end):
    first = run(f"unfinished-{end}", database_url)

    second = run("continue", database_url)

    assert first == {"steps": ["turn-0", "turn-1"]}
    assert second == {"runs": [[1, 1]], "steps": ["turn-1", "turn-2"], "results": [{"n": 0}, {"n": 1}, {"n": 2}]}


def test_finished_run_does_not_run_again(database_url):
    run("simple", database_url)

    assert run("idle", database_url) == {"runs": []}


def test_only_so_many_runs_of_a_user_go_on_at_once(database_url):
    assert run("concurrency", database_url) == {"most_of_user": 2, "most": 3, "done": 8}


def test_purged_run_is_forgotten(database_url):
    assert run("purge", database_url) == {"left": 0}


def test_failed_run_does_not_stop_the_engine(database_url):
    assert run("failure", database_url) == {"runs": [[1, 1], [2, 1]]}


def test_step_that_was_done_but_could_not_be_recorded_does_not_fail_the_run(database_url):
    assert run("unrecorded", database_url) == {
        "runs": [[1, 1]],
        "steps": ["turn-0", "turn-1"],
        "results": [{"n": 0}, {"n": 1}],
        "is_refused": True,
    }


def test_launch_that_failed_can_be_tried_again(database_url):
    seen = run("launched-again", database_url)

    assert seen == {"failures": ["no room early", "no room late"], "threads": [], "runs": [[1, 1]]}


def test_log_keeps_quiet_about_the_runs_of_deleted_tasks_only():
    gone, other = DBOSNonExistentWorkflowError("target", "1.1"), RuntimeError("x")

    assert not _is_news(logging.makeLogRecord({"msg": "Exception encountered", "exc_info": (type(gone), gone, None)}))
    assert not _is_news(logging.makeLogRecord({"msg": "Asyncio task cancelled for x"}))
    assert not _is_news(logging.makeLogRecord({"msg": "Exception listing queues: (psycopg.OperationalError) away"}))
    assert _is_news(logging.makeLogRecord({"msg": "Exception encountered", "exc_info": (type(other), other, None)}))
