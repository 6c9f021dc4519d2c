"""The screen, as golden text."""

import io
from typing import Any

import pytest

from beray.cli.screen import Screen
from beray.cli.terminal import Terminal
from tests.support.fake_server import Script, numbered
from tests.support.scripts import BEGINNING, HELLO_WORLD, finished, said, tool


class Joined(io.StringIO):
    """stdout and stderr of one terminal, without colours."""

    def isatty(self) -> bool:
        return True


def shown_on_one_terminal(script: Script, *, is_verbose: bool = False) -> str:
    both = Joined()
    with Terminal(both, both, {"NO_COLOR": "1"}) as terminal:
        screen = Screen(terminal, is_verbose=is_verbose)
        for event in numbered(script, 42):
            assert isinstance(event, dict)
            screen.show(event)
    return both.getvalue()


def shown_apart(script: Script) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    with Terminal(out, err, {}) as terminal:
        screen = Screen(terminal)
        for event in numbered(script, 42):
            assert isinstance(event, dict)
            screen.show(event)
    return out.getvalue(), err.getvalue()


def test_terminal_shows_everything_once() -> None:
    assert shown_on_one_terminal(HELLO_WORLD) == (
        "I'll write a small script, run it, and check the output.\n"
        "✓ write_file hello.py   +1 line · 4 ms\n"
        "✓ shell python hello.py   exit 0 · 41 ms\n"
        "  │ hello world\n"
        "Done: hello.py prints the greeting.\n"
        "──────────────────────────────────────────────\n"
        "✓ completed in 7.5 s · 2 steps · 1,834 in / 212 out · $0.0041\n"
        "  files  hello.py 83 B     beray files get 42 hello.py · beray files zip 42\n"
    )


def test_pipe_gets_the_result_and_stderr_the_story() -> None:
    out, err = shown_apart(HELLO_WORLD)

    assert out == "hello world\nDone: hello.py prints the greeting.\n"
    assert err == (
        "I'll write a small script, run it, and check the output.\n"
        "✓ write_file hello.py   +1 line · 4 ms\n"
        "✓ shell python hello.py   exit 0 · 41 ms\n"
        "  │ hello world\n"
        "──────────────────────────────────────────────\n"
        "✓ completed in 7.5 s · 2 steps · 1,834 in / 212 out · $0.0041\n"
        "  files  hello.py 83 B     beray files get 42 hello.py · beray files zip 42\n"
    )


def test_output_that_the_final_text_repeats_is_not_printed_twice() -> None:
    script: Script = [
        *BEGINNING,
        *tool("c1", "shell", "echo hi", output="hi\n"),
        finished(result="The script printed:\nhi"),
    ]

    out, _ = shown_apart(script)

    assert out == "The script printed:\nhi\n"


def test_result_that_was_no_text_of_the_stream_is_printed_at_the_end() -> None:
    shown = shown_on_one_terminal([*BEGINNING, *said("m", "Working."), finished(result="Done.")])

    assert shown.startswith("Working.\nDone.\n──")


def test_text_without_deltas_is_shown() -> None:
    done: Script = [{"type": "text.done", "message_id": "m", "text": "All at once."}]

    assert shown_on_one_terminal([*BEGINNING, *done]) == "All at once.\n"


@pytest.mark.parametrize(
    ("usage", "shown"),
    [
        ({"input_tokens": None, "output_tokens": None, "cost_usd": None}, "tokens unknown · cost unknown"),
        ({"input_tokens": 5, "output_tokens": None, "cost_usd": 0.0}, "5 in / unknown out · $0.0000"),
        ({}, "tokens unknown · cost unknown"),
    ],
)
def test_what_is_not_known_is_called_unknown_and_never_zero(usage: dict[str, Any], shown: str) -> None:
    assert f"1 step · {shown}\n" in shown_on_one_terminal([*BEGINNING, finished(usage=usage)])


def test_failed_task_names_what_happened_and_what_to_do_once() -> None:
    error = {
        "code": "rules_unsupported",
        "message": "No rule fits.",
        "hint": "Set a model:\nexport X=1",
        "retryable": False,
    }
    script: Script = [*BEGINNING, {"type": "error", **error}, finished("failed", error=error)]

    assert shown_on_one_terminal(script) == (
        "✗ No rule fits.  rules_unsupported\n"
        "  Set a model:\n"
        "  export X=1\n"
        "──────────────────────────────────────────────\n"
        "✗ failed in 1.5 s · 1 step · tokens unknown · cost unknown\n"
    )


def test_failed_command_shows_a_cross_and_its_status() -> None:
    shown = shown_on_one_terminal([*BEGINNING, *tool("c1", "shell", "false", exit_code=1)])

    assert shown == "✗ shell false   exit 1 · 41 ms\n"


def test_stopped_task_says_so() -> None:
    assert "■ stopped in 1.0 s" in shown_on_one_terminal([*BEGINNING, finished("stopped")])


def test_long_output_shows_its_last_five_lines() -> None:
    output = "".join(f"line {number}\n" for number in range(1, 9))

    shown = shown_on_one_terminal([*BEGINNING, *tool("c1", "shell", "seq 8", output=output)])

    assert "│ … 3 lines before (-v shows all)\n  │ line 4\n" in shown
    assert "line 3\n" not in shown
    assert shown.endswith("  │ line 8\n")


def test_verbose_shows_all_output_as_it_comes() -> None:
    output = "".join(f"line {number}\n" for number in range(1, 9)) + "no newline"

    shown = shown_on_one_terminal([*BEGINNING, *tool("c1", "shell", "seq 8", output=output)], is_verbose=True)

    lines = shown.splitlines()
    assert lines[0] == "▸ shell seq 8"
    assert lines[1] == "  │ line 1"
    assert lines[-2:] == ["  │ no newline", "✓ shell seq 8   exit 0 · 41 ms"]


def test_lines_cut_into_pieces_are_whole_on_the_screen() -> None:
    begin, _, end = tool("c1", "shell", "x", output="?")[1:]
    pieces: Script = [
        {"type": "tool.output", "call_id": "c1", "stream": "stdout", "delta": piece}
        for piece in ("a", "b\nc", "d\n", "e")
    ]

    assert "  │ ab\n  │ cd\n  │ e\n" in shown_on_one_terminal([*BEGINNING, begin, *pieces, end])


def test_progress_bar_shows_its_last_state() -> None:
    shown = shown_on_one_terminal([*BEGINNING, *tool("c1", "shell", "x", output="10 %\r50 %\r100 %\n")])

    assert "  │ 100 %\n" in shown
    assert "10 %\r" not in shown


def test_escape_sequences_of_the_agent_are_inert_everywhere() -> None:
    evil = "\x1b[2J\x1b]0;owned\x07\x9b31m"
    script: Script = [
        *BEGINNING,
        *said("m", f"text {evil}end"),
        *tool("c1", f"shell{evil}", f"run {evil}it", output=f"out {evil}put\n"),
        *tool("c2", "write_file", "x", exit_code=None, summary=f"sum {evil}mary"),
        {"type": "plan.updated", "items": [{"text": f"plan {evil}", "status": "done"}]},
        {"type": "input.requested", "question": f"really{evil}?"},
        {"type": "error", "code": f"c{evil}", "message": f"m {evil}", "hint": f"h {evil}"},
        finished("failed", result=f"result {evil}", files=[{"path": f"a{evil}.py", "size": 1}], files_total=1),
    ]

    out, err = shown_apart(script)
    joined = shown_on_one_terminal(script) + shown_on_one_terminal(script, is_verbose=True)

    for shown in (out, err, joined):
        assert "\x1b" not in shown
        assert "\x9b" not in shown
        assert "\x07" not in shown
        assert "owned" not in shown


def test_cut_answer_of_the_model_is_marked() -> None:
    script: Script = [
        *BEGINNING,
        {"type": "text.delta", "message_id": "m", "delta": "Half an ans"},
        {"type": "text.reset", "message_id": "m", "reason": "cut"},
        *said("m2", "The whole answer."),
    ]

    assert shown_on_one_terminal(script) == (
        "Half an ans\n  ↻ the model's answer was cut and begins anew\nThe whole answer.\n"
    )


def test_unknown_events_and_missing_fields_show_nothing_wrong() -> None:
    script: Script = [
        {"type": "brand.new"},
        {"type": "tool.output", "call_id": "never", "delta": "x"},
        {"type": "text.delta"},
        {"type": "tool.finished"},
        {"type": "plan.updated"},
        {"type": "task.finished", "status": "evaporated"},
    ]

    shown = shown_on_one_terminal(script)

    assert "✗" in shown
    assert "• evaporated · tokens unknown · cost unknown\n" in shown


def test_many_files_are_listed_in_part_with_the_way_to_all() -> None:
    files = [{"path": f"out/{number}.txt", "size": 10} for number in range(12)]

    shown = shown_on_one_terminal([*BEGINNING, finished(files=files, files_total=250)])

    assert "  files  out/0.txt 10 B     beray files get 42 out/0.txt\n" in shown
    assert "         out/9.txt 10 B" in shown
    assert "out/10.txt" not in shown
    assert shown.endswith("  … 240 more files\n  all  beray files zip 42\n")


def test_file_names_are_quoted_for_the_shell() -> None:
    shown = shown_on_one_terminal([*BEGINNING, finished(files=[{"path": "my $file.py", "size": 1}], files_total=1)])

    assert "beray files get 42 'my $file.py'" in shown


def test_further_run_starts_its_own_clock_and_steps() -> None:
    script: Script = [*HELLO_WORLD, *BEGINNING[1:], finished()]

    assert (
        shown_on_one_terminal(script).rstrip().endswith("✓ completed in 1.0 s · 1 step · tokens unknown · cost unknown")
    )
