"""`doctor`."""

from tests.support.command_line import CommandLine
from tests.support.fake_server import FakeServer


def test_healthy_service_is_all_ticks_and_status_0(beray: CommandLine, fake: FakeServer) -> None:
    ended = beray("doctor")

    assert ended.status == 0
    assert ended.out.splitlines()[1:] == [
        f"✓ server  {fake.base_url}",
        "✓ login  ada@example.com",
        "✓ model  rules mode, not an AI model: set OPENAI_API_KEY",
        "✓ sandbox  landlock · confined: files · not confined: memory (no cgroup) · not here: bubblewrap: missing",
        "✓ Python in the sandbox  /usr/bin/python3",
    ]


def test_broken_parts_are_crosses_with_a_remedy_and_status_1(beray: CommandLine, fake: FakeServer) -> None:
    fake.info["sandbox"] = {"backend": "none", "confinements": [], "python": None}
    failed = {"state": "failed", "hint": "The engine did not start: disk full."}
    fake.refusals["GET /ready"] = (503, {"status": "unavailable", "checks": {"engine": failed}})

    ended = beray("doctor", BERAY_TOKEN="wrong")

    assert ended.status == 1
    lines = ended.out.splitlines()
    assert any(line.startswith("✗ server") and "engine: The engine did not start: disk full." in line for line in lines)
    assert "✗ login  Not logged in." in lines
    assert any("apt install bubblewrap" in line for line in lines)
    assert any("BERAY_SANDBOX_PYTHON" in line for line in lines)


def with_model(fake: FakeServer, **checked: object) -> None:
    """The server has a real model, which answers so."""
    fake.info |= {"model": "openai:some", "model_kind": "model", "model_notice": {"en": "Model openai:some."}}
    fake.model_check = {"model": "openai:some", "model_kind": "model", "error": None} | checked


def test_model_that_answers_is_shown_with_its_words_and_time(beray: CommandLine, fake: FakeServer) -> None:
    with_model(fake, ok=True, answered="OK", latency_ms=812)

    ended = beray("doctor")

    assert ended.status == 0
    assert ended.out.splitlines()[3:5] == ["✓ model  Model openai:some.", "✓ model answers  “OK” after 0.8 s"]


def test_model_that_does_not_answer_is_a_cross_with_what_to_mend(beray: CommandLine, fake: FakeServer) -> None:
    error = {"code": "model_auth", "message": "The key was refused.", "hint": "Check the key.", "retryable": False}
    with_model(fake, ok=False, answered=None, latency_ms=None, error=error)

    ended = beray("doctor")

    assert ended.status == 1
    assert ended.out.splitlines()[4:6] == ["✗ model answers  The key was refused. (model_auth)", "    Check the key."]


def test_older_server_and_rules_mode_are_asked_nothing_more(beray: CommandLine, fake: FakeServer) -> None:
    beray("doctor")
    assert "POST /api/v1/model/check" not in fake.requests

    with_model(fake)
    fake.model_check = None
    ended = beray("doctor")

    assert ended.status == 0
    assert "model answers" not in ended.out


def test_unreachable_server_is_one_cross(beray: CommandLine) -> None:
    ended = beray("doctor", "--server", "http://127.0.0.1:9")

    assert ended.status == 1
    assert [line[0] for line in ended.out.splitlines() if line[0] in "✓✗"] == ["✓", "✗"]
