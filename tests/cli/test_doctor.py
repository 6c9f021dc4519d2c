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


def test_unreachable_server_is_one_cross(beray: CommandLine) -> None:
    ended = beray("doctor", "--server", "http://127.0.0.1:9")

    assert ended.status == 1
    assert [line[0] for line in ended.out.splitlines() if line[0] in "✓✗"] == ["✓", "✗"]
