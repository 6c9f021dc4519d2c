"""What may reach a terminal, and how wide it is."""

import io
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beray.cli.terminal import CLEAR_LINE, Terminal, cell_width, fit, one_line, plain


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("hostile", "harmless"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b[2J\x1b[Hgone", "gone"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bP1$r0m\x1b\\after", "after"),
        ("\x9b31mC1", "C1"),
        ("\x9d0;title\x9cC1", "C1"),
        ("bell\x07 back\x08space", "bell backspace"),
        ("a\x1b", "a"),
        ("unfinished \x1b[12", "unfinished 12"),
        ("\u202egpj.exe", "gpj.exe"),
        ("tab\tand\nnewline", "tab\tand\nnewline"),
        ("windows\r\nline", "windows\nline"),
        ("中文 é 🎉", "中文 é 🎉"),
    ],
)
def test_escape_sequences_of_others_are_taken_out(hostile: str, harmless: str) -> None:
    assert plain(hostile) == harmless


@given(st.text(alphabet=st.characters(max_codepoint=0x2100)))
def test_no_control_character_but_newline_and_tab_is_left(text: str) -> None:
    left = plain(text)

    assert not any((ord(char) < 32 and char not in "\n\t") or 0x7F <= ord(char) <= 0x9F for char in left)
    assert "\n" not in one_line(text)


def test_hostile_text_is_cleaned_in_linear_time() -> None:
    """An unfinished sequence must not be looked through again from each of its characters."""
    assert plain("\x90" * 200_000) == ""
    assert len(plain("\x1b]" + "x" * 200_000)) == 200_000


@given(st.text(max_size=50), st.integers(min_value=1, max_value=30))
def test_fitted_text_takes_no_more_columns_than_there_are(text: str, columns: int) -> None:
    assert cell_width(fit(text, columns)) <= columns


def test_chinese_takes_two_columns() -> None:
    assert cell_width("中文ab") == 6
    assert fit("中文中文", 5) == "中文…"


@pytest.mark.parametrize(
    ("environ", "is_live"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"CI": "true"}, False), ({"TERM": "dumb"}, False)],
)
def test_colours_and_the_changing_line_need_a_terminal_that_wants_them(environ: dict[str, str], is_live: bool) -> None:
    terminal = Terminal(Tty(), Tty(), environ)

    assert terminal.is_live is is_live
    assert ("\x1b" in terminal.style("good", "x")) is is_live


def test_pipes_get_plain_lines() -> None:
    out, err = io.StringIO(), io.StringIO()

    with Terminal(out, err, {}) as terminal:
        terminal.status(lambda: "working")
        terminal.progress(terminal.style("good", "done"))

    assert err.getvalue() == "done\n"
    assert not terminal.is_joined


def test_changing_line_is_taken_away_before_what_stays() -> None:
    err = Tty()

    with Terminal(Tty(), err, {}) as terminal:
        terminal.status(lambda: "working")
        terminal.progress("done")

    shown = err.getvalue()
    assert "working" in shown
    assert f"{CLEAR_LINE}done\n" in shown
    assert shown.endswith(CLEAR_LINE)


def test_ctrl_c_while_the_spinner_starts_leaves_a_terminal_that_can_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    terminal = Terminal(Tty(), Tty(), {})
    monkeypatch.setattr(threading.Thread, "start", interrupt)
    with pytest.raises(KeyboardInterrupt):
        terminal.status(lambda: "working")

    terminal.close()


def test_open_line_of_a_stream_is_ended_before_the_next_line() -> None:
    both = Tty()

    with Terminal(both, both, {"NO_COLOR": "1"}) as terminal:
        terminal.stream("half a ")
        terminal.stream("line")
        terminal.progress("next")

    assert both.getvalue() == "half a line\nnext\n"
