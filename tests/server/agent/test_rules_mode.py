"""Rules mode, through the whole loop."""


async def test_hello_world_is_written_run_and_reported(bench):
    outcome = await bench.run("写一个打印 hello world 的 Python 脚本")

    assert outcome.is_completed
    assert outcome.result.startswith("由固定规则完成，并非 AI 模型。")
    assert "hello world" in outcome.result
    assert (bench.work_dir / "hello.py").read_text() == 'print("hello world")\n'
    assert outcome.usage == {
        "requests": 3,
        "tool_calls": 2,
        "input_tokens": None,
        "output_tokens": None,
        "cost_usd": None,
    }
