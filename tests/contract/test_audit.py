"""`.ci/audit.py`: a known vulnerability fails the check; that nobody could be asked does not, and is said."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

AUDIT = runpy.run_path(str(Path(__file__).parents[2] / ".ci/audit.py"))
SOUND = {"name": "requests", "version": "2.32.5", "vulns": []}
FLAWED = {"name": "old", "version": "1.0", "vulns": [{"id": "CVE-1", "fix_versions": ["1.1"]}]}
UNKNOWN = {"name": "requests", "skip_reason": "not found"}


def audited(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> int:
    """The exit status, when the service answers so: first to the probe."""
    left = iter(answers)

    def ask(pins: list[str], *, seconds: float) -> Any:
        assert "requests" in pins[0] or len(pins) > 20, "the probe, or everything"
        return next(left)

    monkeypatch.setitem(AUDIT["main"].__globals__, "ask", ask)
    status = AUDIT["main"]()
    assert next(left, None) is None
    return status


def test_known_vulnerability_fails_and_is_named(monkeypatch, capsys):
    assert audited(monkeypatch, [SOUND], [SOUND, FLAWED]) == 1
    assert "old 1.0: CVE-1, mended in 1.1" in capsys.readouterr().out


def test_sound_packages_pass_and_those_nobody_knows_are_named(monkeypatch, capsys):
    assert audited(monkeypatch, [SOUND], [SOUND, {"name": "own", "skip_reason": "not found"}]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told == ["1 packages audited, 0 known vulnerabilities", "notice: nothing is known about own"]


def test_index_that_knows_nothing_is_not_taken_for_an_all_clear(monkeypatch, capsys):
    """Asked through such an index, pip-audit says that no vulnerabilities are known."""
    assert audited(monkeypatch, [UNKNOWN]) == 0
    assert capsys.readouterr().out.startswith("notice: dependencies were not audited")


def test_output_without_an_answer_is_a_notice_only_if_the_service_was_not_reached():
    assert AUDIT["read"](json.dumps({"dependencies": [SOUND]}), "WARNING: x") == [SOUND]
    with pytest.raises(AUDIT["NotAsked"]):
        AUDIT["read"]("", "Traceback\nrequests.exceptions.ProxyError: no way out")
    with pytest.raises(RuntimeError):
        AUDIT["read"]("", "error: no such option")
