"""The engine's promises. Each case is a process of its own: the engine library is a singleton."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from dbos._error import DBOSNonExistentWorkflowError

from beray.server.engine.dbos_engine import _is_news

PROGRAM = "tests.server.engine.engine_program"
ROOT = Path(__file__).parents[3]


def run(case: str, folder: Path) -> dict:
    """Run a case of `engine_program.py`; what it reports as JSON on its last line."""
    done = subprocess.run(
        [sys.executable, "-m", PROGRAM, case, str(folder / "beray.db")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in {0, -9}, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_submitted_run_is_run_once_with_its_steps(tmp_path):
    assert run("simple", tmp_path) == {"runs": [[1, 1]], "steps": ["turn-0", "turn-1"], "results": [{"n": 0}, {"n": 1}]}


def test_rolled_back_submission_never_runs(tmp_path):
    assert run("rollback", tmp_path) == {"runs": [[2, 1]]}


@pytest.mark.parametrize("end", ["kill", "close"])
def test_unfinished_run_goes_on_at_its_last_finished_step(tmp_path, end):
    first = run(f"unfinished-{end}", tmp_path)

    second = run("continue", tmp_path)

    assert first == {"steps": ["turn-0", "turn-1"]}
    assert second == {"runs": [[1, 1]], "steps": ["turn-1", "turn-2"], "results": [{"n": 0}, {"n": 1}, {"n": 2}]}


def test_finished_run_does_not_run_again(tmp_path):
    run("simple", tmp_path)

    assert run("idle", tmp_path) == {"runs": []}


def test_only_so_many_runs_of_a_user_go_on_at_once(tmp_path):
    assert run("concurrency", tmp_path) == {"most_of_user": 2, "most": 3, "done": 8}


def test_purged_run_is_forgotten(tmp_path):
    assert run("purge", tmp_path) == {"left": 0}


def test_failed_run_does_not_stop_the_engine(tmp_path):
    assert run("failure", tmp_path) == {"runs": [[1, 1], [2, 1]]}


def test_step_that_was_done_but_could_not_be_recorded_does_not_fail_the_run(tmp_path):
    assert run("unrecorded", tmp_path) == {
        "runs": [[1, 1]],
        "steps": ["turn-0", "turn-1"],
        "results": [{"n": 0}, {"n": 1}],
        "is_refused": True,
    }


def test_launch_that_failed_can_be_tried_again(tmp_path):
    seen = run("launched-again", tmp_path)

    assert seen == {"failures": ["no room early", "no room late"], "threads": [], "runs": [[1, 1]]}


def test_log_keeps_quiet_about_the_runs_of_deleted_tasks_only():
    gone, other = DBOSNonExistentWorkflowError("target", "1.1"), RuntimeError("x")

    assert not _is_news(logging.makeLogRecord({"msg": "Exception encountered", "exc_info": (type(gone), gone, None)}))
    assert not _is_news(logging.makeLogRecord({"msg": "Asyncio task cancelled for x"}))
    assert _is_news(logging.makeLogRecord({"msg": "Exception encountered", "exc_info": (type(other), other, None)}))
