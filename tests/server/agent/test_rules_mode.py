"""Rules mode, through the whole loop."""

import subprocess
import sys

import pytest

from tests.support.agent_bench import Crash

UNKNOWN = {"input_tokens": None, "cached_input_tokens": None, "output_tokens": None, "cost_usd": None}


@pytest.mark.parametrize(
    ("goal", "begins"),
    [
        ("写一个打印 hello world 的 Python 脚本", "由固定规则完成，并非 AI 模型。"),
        ("1. 帮我写一个简单的python脚本打印hello world", "由固定规则完成，并非 AI 模型。"),
        ("Write a Python script that prints hello world", "Done by fixed rules, not by an AI model."),
    ],
)
async def test_hello_world_is_written_run_and_reported(bench, goal, begins):
    outcome = await bench.run(goal)

    assert outcome.is_completed
    assert outcome.result.startswith(begins)
    assert "hello world" in outcome.result
    assert (bench.work_dir / "hello.py").read_text() == 'print("hello world")\n'
    assert outcome.usage == {"requests": 3, "tool_calls": 2, **UNKNOWN}
    titles = [event["title"] for event in await bench.events("tool.started")]
    assert titles == ["write_file hello.py", "shell python hello.py"]
    assert "".join(event["delta"] for event in await bench.events("tool.output")) == "hello world\n"


async def test_tokens_and_cost_are_unknown_in_every_event(bench):
    await bench.run("$ true")

    usages = [event["usage"] for event in await bench.events() if "usage" in event]
    assert usages
    assert all(usage.items() >= UNKNOWN.items() for usage in usages)


@pytest.mark.parametrize(
    ("goal", "word"), [("写一首关于宇宙的诗。", "规则模式"), ("Write a poem about the universe.", "rules mode")]
)
async def test_what_is_not_understood_is_refused_and_nothing_is_done(bench, goal, word):
    outcome = await bench.run(goal)

    assert not outcome.is_completed
    assert outcome.error["code"] == "rules_unsupported"
    assert word in outcome.error["message"]
    assert "OPENAI_API_KEY" in outcome.error["hint"]
    assert not outcome.error["retryable"]
    assert await bench.events("tool.requested", "text.delta") == []
    assert list(bench.work_dir.iterdir()) == []


async def test_the_first_failing_block_ends_the_task(bench):
    goal = "```bash\necho 1 > a\n```\n```python\nraise SystemExit(7)\n```\n```bash\necho 3 > b\n```"

    outcome = await bench.run(goal)

    assert outcome.error["code"] == "rules_step_failed"
    assert "exit code 7" in outcome.error["message"]
    assert "2 of 3" in outcome.error["message"]
    assert [path.name for path in bench.work_dir.iterdir()] == ["a"]


async def test_files_are_written_read_listed_and_deleted(bench):
    goal = "1. create a file a.txt with 'it''s'\n2. append more to a.txt\n3. read a.txt\n4. list files\n5. delete a.txt"

    outcome = await bench.run(goal)

    assert outcome.is_completed
    assert "it''s\nmore" in outcome.result
    assert "a.txt" in outcome.result
    assert list(bench.work_dir.iterdir()) == []
    changes = [(event["path"], event["change"]) for event in await bench.events("file.changed")]
    assert changes == [("a.txt", "created"), ("a.txt", "modified"), ("a.txt", "deleted")]


async def test_a_file_that_is_not_there_fails_the_task(bench):
    outcome = await bench.run("read nothing.txt")

    assert outcome.error["code"] == "rules_step_failed"
    assert "nothing.txt" in outcome.error["message"]


async def test_output_with_fences_stays_in_its_block(bench):
    outcome = await bench.run("$ printf 'a\\n```\\nb\\n'")

    assert outcome.result.endswith("````\na\n```\nb\n````")


async def test_tools_the_task_lacks_are_named(bench):
    outcome = await bench.run("$ true", tools=("read_file",))

    assert outcome.error["code"] == "rules_tools_missing"
    assert "shell" in outcome.error["message"]


async def test_an_interrupted_step_is_not_repeated_but_fails(bench):
    """Rules can't inspect what a step left behind, so they can't go on."""

    def die_in_the_step(when, types):
        if when == "before" and "tool.finished" in types:
            raise Crash

    bench.crash = die_in_the_step
    with pytest.raises(Crash):
        await bench.run("$ echo once >> a")
    bench.crash = None

    outcome = await bench.run("$ echo once >> a")

    assert outcome.error["code"] == "rules_step_failed"
    assert (bench.work_dir / "a").read_text() == "once\n"


def test_rules_mode_loads_no_providers_client_and_shows_no_banner():
    program = (
        "import sys, beray.server.agent.turn, beray.server.agent.models.rules_model, pydantic_ai;"
        " print('openai' in sys.modules, pydantic_ai.BANNER_ENABLED)"
    )

    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert run.stdout == "False False\n"
