"""`beray run` in a process of its own, against a scripted server."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from beray.cli.options import LIMITS
from beray.server.tasks.bodies import AskedLimits
from tests.support.command_line import CommandLine, OnTerminal
from tests.support.fake_server import FakeServer, Gate
from tests.support.scripts import BEGINNING, HELLO_WORLD, finished, tool
from tests.support.waiting import wait_until


def test_pipe_gets_the_result_and_stderr_the_progress(beray: CommandLine, fake: FakeServer) -> None:
    fake.next_script = HELLO_WORLD

    ended = beray("run", "print", "hello", "world")

    assert ended.status == 0
    assert ended.out == "hello world\nDone: hello.py prints the greeting.\n"
    assert ended.err == (
        "● 42  print hello world\n"
        f"  {fake.base_url}/api/v1/tasks/42 · Ctrl-C detaches · twice stops\n"
        "  model  rules mode, not an AI model: set OPENAI_API_KEY\n"
        "I'll write a small script, run it, and check the output.\n"
        "✓ write_file hello.py   +1 line · 4 ms\n"
        "✓ shell python hello.py   exit 0 · 41 ms\n"
        "  │ hello world\n"
        "──────────────────────────────────────────────\n"
        "✓ completed in 7.5 s · 2 steps · 1,834 in / 212 out · $0.0041\n"
        "  files  hello.py 83 B     beray files get 42 hello.py · beray files zip 42\n"
    )


def test_terminal_shows_a_spinner_while_it_works_and_nothing_of_it_stays(
    on_terminal: Callable[..., OnTerminal], fake: FakeServer
) -> None:
    gate = Gate()
    fake.next_script = [*HELLO_WORLD[:3], gate, *HELLO_WORLD[3:]]

    terminal = on_terminal("run", "print hello world")
    terminal.read_until("thinking… 0 s")
    gate.set()

    assert terminal.end() == 0
    lines = [line.rpartition("\r")[2] for line in terminal.raw.decode().replace("\r\n", "\n").split("\n")]
    assert "thinking" not in "".join(lines)
    assert "hello world" in terminal.shown
    assert "\x1b[32m✓" in terminal.raw.decode()


@pytest.mark.parametrize("variable", ["NO_COLOR", "CI"])
def test_terminal_that_wants_plain_lines_gets_no_escape_sequence(
    on_terminal: Callable[..., OnTerminal], fake: FakeServer, variable: str
) -> None:
    fake.next_script = HELLO_WORLD

    terminal = on_terminal("run", "print hello world", **{variable: "1"})

    assert terminal.end() == 0
    assert b"\x1b" not in terminal.raw
    assert terminal.shown.count("Done: hello.py prints the greeting.") == 1
    assert "  │ hello world\n" in terminal.shown


def test_chinese_locale_is_spoken_to_in_chinese(beray: CommandLine, fake: FakeServer) -> None:
    fake.next_script = HELLO_WORLD

    ended = beray("run", "打印 hello world", LANG="zh_CN.UTF-8")

    assert "✓ 完成，用时 7.5 s · 2 步" in ended.err
    assert "模型  规则模式，不是 AI 模型" in ended.err
    assert {headers.get("Accept-Language") for headers in fake.headers} == {"zh"}


def test_command_to_repeat_is_the_one_uv_was_given(beray: CommandLine, fake: FakeServer) -> None:
    fake.next_script = HELLO_WORLD

    ended = beray("run", "print hello world", UV_RUN_RECURSION_DEPTH="1")

    assert "uv run beray files get 42 hello.py" in ended.err


def test_json_is_one_object_with_the_files(beray: CommandLine, fake: FakeServer) -> None:
    fake.next_script = HELLO_WORLD

    ended = beray("run", "--json", "print hello world")

    task = json.loads(ended.out)
    assert (task["id"], task["status"], task["files"]) == (42, "completed", [{"path": "hello.py", "size": 83}])
    assert ended.err == "  model  rules mode, not an AI model: set OPENAI_API_KEY\n"


def test_events_are_the_raw_events_one_a_line(beray: CommandLine, fake: FakeServer) -> None:
    fake.next_script = HELLO_WORLD

    ended = beray("run", "--events", "print hello world")

    events = [json.loads(line) for line in ended.out.splitlines()]
    assert events == fake.tasks[42].events()


@pytest.mark.parametrize(("status", "exit_status"), [("completed", 0), ("failed", 3), ("stopped", 8)])
def test_exit_status_is_the_tasks_result(beray: CommandLine, fake: FakeServer, status: str, exit_status: int) -> None:
    fake.next_script = [*BEGINNING, finished(status)]

    assert beray("run", "do it").status == exit_status
    assert beray("run", "--json", "do it").status == exit_status
    assert beray("run", "--no-exit-status", "do it").status == 0


def test_goal_comes_from_stdin_a_file_or_the_words(beray: CommandLine, fake: FakeServer, home: Path) -> None:
    fake.next_script = [*BEGINNING, finished()]
    (home / "goal.txt").write_text("\ufeff写诗\n")

    beray("run", "-", stdin=b"from stdin\n")
    beray("run", "-f", "goal.txt")
    beray("run", "three", "plain", "words")

    assert [task.goal for task in fake.tasks.values()] == ["from stdin", "写诗", "three plain words"]


@pytest.mark.parametrize(
    ("arguments", "stdin", "what"),
    [
        (["run"], b"", "The goal is missing"),
        (["run", "  "], b"", "The goal is missing"),
        (["run", "-"], b"", "The goal is missing"),
        (["run", "-"], b"\xff\xfe", "not UTF-8 text"),
        (["run", "-"], b"x" * 1_100_000, "longer than"),
        (["run", "-f", "none.txt", "words"], b"", "not both"),
        (["run", "-f", "none.txt"], b"", "none.txt cannot be read: No such file"),
        (["run", "--json", "--events", "x"], b"", "Choose one"),
        (["run", "-d", "--out", "x", "x"], b"", "-d does not wait"),
        (["run", "--timeout", "soon", "x"], b"", "no duration"),
        (["run", "-a", "nowhere", "x"], b"", "nowhere"),
        (["ps", "--status", "lost"], b"", "No such status: lost"),
        (["nonsense"], b"", "No such command"),
        (["watch", "abc"], b"", "abc"),
        (["rm", "42"], b"", "add -y"),
    ],
)
def test_wrong_use_is_two_lines_and_status_2(
    beray: CommandLine, fake: FakeServer, arguments: list[str], stdin: bytes, what: str
) -> None:
    fake.add([*BEGINNING, finished()])

    ended = beray(*arguments, stdin=stdin)

    first, second = ended.err.splitlines()
    assert ended.status == 2
    assert first.startswith("✗ ")
    assert what in first
    assert "--help" in second
    assert list(fake.tasks) == [42]


@pytest.mark.parametrize(
    ("status_code", "code", "exit_status"),
    [
        (401, "not_authenticated", 4),
        (403, "forbidden", 4),
        (404, "task_not_found", 5),
        (400, "bad_request", 6),
        (409, "task_already_ended", 6),
        (413, "upload_too_large", 6),
        (422, "goal_too_long", 6),
        (500, "internal_error", 7),
        (599, "odd", 7),
    ],
)
def test_refusals_are_a_sentence_and_an_exit_status(
    beray: CommandLine, fake: FakeServer, status_code: int, code: str, exit_status: int
) -> None:
    fake.refusals["POST /api/v1/tasks"] = (status_code, {"detail": "This is why.", "code": code})

    ended = beray("run", "do it")

    assert ended.status == exit_status
    assert ended.err.splitlines()[0] == "✗ This is why."
    assert "Traceback" not in ended.err


def test_debug_adds_the_traceback_and_the_request_id(beray: CommandLine, fake: FakeServer) -> None:
    fake.refusals["POST /api/v1/tasks"] = (409, {"detail": "This is why.", "code": "odd"})

    ended = beray("--debug", "run", "do it")

    assert "Traceback" in ended.err
    assert "request id: request-1" in ended.err
    assert ended.status == 6


def test_unreachable_server_is_status_7(beray: CommandLine) -> None:
    ended = beray("run", "do it", "--server", "http://127.0.0.1:9")

    first, second = ended.err.splitlines()
    assert ended.status == 7
    assert "127.0.0.1:9" in first
    assert "beray doctor" in second


def test_detached_run_prints_the_id_and_how_to_come_back(beray: CommandLine, fake: FakeServer) -> None:
    fake.next_script = [*BEGINNING, Gate()]

    ended = beray("run", "-d", "do it")

    assert (ended.status, ended.out) == (0, "42\n")
    assert "beray watch 42" in ended.err
    assert "GET /api/v1/tasks/42/stream" not in fake.requests


def test_run_can_name_the_model(beray: CommandLine, fake: FakeServer, home: Path) -> None:
    (home / "a.txt").write_text("a")
    fake.next_script = [*BEGINNING, finished()]

    for further in ((), ("-a", str(home / "a.txt"))):
        ended = beray("run", "--model", "openai:some", *further, "do it")
        assert "  model  openai:some\n" in ended.err


def test_run_can_name_tools_and_limits(beray: CommandLine, fake: FakeServer, home: Path) -> None:
    """Named tools are those named, also where nobody could answer a question."""
    (home / "a.txt").write_text("a")
    fake.info = {**fake.info, "model_kind": "model", "tools": [{"name": "ask_user", "is_default": True}]}
    fake.next_script = [*BEGINNING, finished()]

    limits = ("--limit", "requests=5", "--limit", "cost_usd=0.25", "--limit", "requests=6")
    for number, further in enumerate(((), ("-a", str(home / "a.txt"))), 42):
        assert beray("run", "--tool", "shell", "--tool", "ask_user", *limits, *further, "do it").status == 0
        assert fake.tasks[number].tools == ["shell", "ask_user"]
        assert fake.tasks[number].limits == {"requests": 6, "cost_usd": 0.25}


def test_run_can_have_a_url_called(beray: CommandLine, fake: FakeServer) -> None:
    fake.next_script = [*BEGINNING, finished()]

    assert beray("run", "--webhook", "https://hooks.example.com/x", "do it").status == 0

    assert fake.tasks[42].webhook_url == "https://hooks.example.com/x"


def test_run_without_them_leaves_limits_to_the_server(beray: CommandLine, fake: FakeServer) -> None:
    fake.next_script = [*BEGINNING, finished()]

    assert beray("run", "do it").status == 0
    assert fake.tasks[42].limits is None


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("request=5", "requests, tool_calls, tokens, wall_seconds, cost_usd"),
        ("5", "NAME=VALUE"),
        ("requests", "requests=50"),
        ("requests=", "requests=50"),
        ("requests=0", "above 0"),
        ("requests=1.5", "whole number"),
        ("tokens=" + "9" * 5000, "whole number"),
        ("cost_usd=nan", "cost_usd=0.5"),
        ("cost_usd=inf", "cost_usd=0.5"),
        ("cost_usd=-1", "cost_usd=0.5"),
    ],
)
def test_limit_that_is_none_is_a_usage_error(beray: CommandLine, fake: FakeServer, limit: str, said: str) -> None:
    ended = beray("run", "--limit", limit, "do it")

    assert ended.status == 2
    assert said in ended.err
    assert fake.requests == []


def test_limits_of_the_command_line_are_those_of_the_server() -> None:
    assert list(LIMITS) == list(AskedLimits.model_fields)


def test_model_that_takes_over_is_said_in_one_line(beray: CommandLine, fake: FakeServer) -> None:
    fallback = {"type": "model.fallback", "from": "openai:a", "to": "ollama:b", "code": "model_quota"}
    fake.next_script = [*BEGINNING, fallback, finished()]

    assert "model openai:a has failed for good (model_quota); ollama:b takes over" in beray("run", "do it").err


def test_attachments_are_there_before_the_task_begins(beray: CommandLine, fake: FakeServer, home: Path) -> None:
    fake.next_script = [*BEGINNING, finished()]
    folder = home / "data set"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "b.bin").write_bytes(bytes(range(256)) * 5000)
    (folder / "empty.txt").write_bytes(b"")
    (home / "中文.txt").write_text("hi")

    ended = beray("run", "use them", "-a", "中文.txt", "-a", "data set")

    assert ended.status == 0
    assert fake.tasks[42].files == {
        "中文.txt": b"hi",
        "data set/deep/b.bin": bytes(range(256)) * 5000,
        "data set/empty.txt": b"",
    }
    uploads = [index for index, request in enumerate(fake.requests) if request.startswith("PUT ")]
    assert max(uploads) < fake.requests.index("POST /api/v1/tasks/42/start")


def test_failed_upload_leaves_no_held_task_behind(beray: CommandLine, fake: FakeServer, home: Path) -> None:
    (home / "big.bin").write_bytes(b"x")
    fake.refusals["PUT /api/v1/tasks/42/files/content"] = (413, {"detail": "Too large.", "code": "upload_too_large"})

    ended = beray("run", "use it", "-a", "big.bin")

    assert ended.status == 6
    assert fake.tasks == {}


def test_attachments_of_one_name_are_refused_before_anything_is_made(
    beray: CommandLine, fake: FakeServer, home: Path
) -> None:
    for name in ("a", "b"):
        (home / name).mkdir()
        (home / name / "same.txt").write_text(name)

    ended = beray("run", "use them", "-a", "a/same.txt", "-a", "b/same.txt")

    assert ended.status == 2
    assert "same.txt" in ended.err
    assert fake.tasks == {}


def test_out_brings_every_file_byte_for_byte(beray: CommandLine, fake: FakeServer, home: Path) -> None:
    files = {"hello.py": b"print('hello world')\n", "out/bytes.bin": bytes(range(256)) * 9, "out/中文 name": b""}
    gate = Gate()
    fake.next_script = [*BEGINNING, gate, finished(files=[{"path": "hello.py", "size": 21}], files_total=3)]

    process = beray.popen("run", "do it", "--out", "results")
    wait_until(lambda: "GET /api/v1/tasks/42/stream" in fake.requests)
    fake.tasks[42].files = files
    gate.set()
    _, err = process.communicate(timeout=60)

    assert process.returncode == 0, err
    folder = home / "results"
    assert {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files


def test_time_out_stops_the_task_and_is_status_124(beray: CommandLine, fake: FakeServer) -> None:
    fake.next_script = [*BEGINNING, Gate(), finished("stopped")]

    ended = beray("run", "--timeout", "300ms", "do it")

    assert ended.status == 124
    assert fake.tasks[42].status == "stopped"
    assert "The time-out of 0.3 s has passed." in ended.err


def test_verbose_run_shows_output_while_it_comes(on_terminal: Callable[..., OnTerminal], fake: FakeServer) -> None:
    gate = Gate()
    calls = tool("c1", "shell", "count", output="one\n")
    fake.next_script = [*BEGINNING, *calls[:-1], gate, calls[-1], finished()]

    terminal = on_terminal("run", "-v", "count")
    terminal.read_until("│ one")
    gate.set()

    assert terminal.end() == 0


def test_task_of_a_real_model_names_it_and_says_nothing_of_rules(beray: CommandLine, fake: FakeServer) -> None:
    fake.add([*BEGINNING, finished()], model="openai:some-model", model_kind="model")

    ended = beray("watch", "42")

    assert "  model  openai:some-model\n" in ended.err
    assert "rules" not in ended.err
