"""The terminal: two streams, what they can show, and the one line that may change.

stdout carries the result, stderr the progress. On a real terminal the last line of stderr may be *transient* (a
spinner): everything else is written once and stays, so that scrolling, copying and `tee` work.
"""

import os
import re
import shutil
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self, TextIO

SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
FRAME_SECONDS: Final = 0.1
DEFAULT_COLUMNS: Final = 100
CLEAR_LINE: Final = "\r\x1b[2K"

STYLES: Final[Mapping[str, str]] = {
    "good": "32",
    "bad": "31",
    "warn": "33",
    "dim": "2",
    "strong": "1",
    "accent": "36",
}

# Whole escape sequences first (CSI; OSC, DCS, SOS, PM, APC with their text; two-character ones), so that no debris of
# them stays. What then is left of controls goes one by one: C0 without newline and tab, DEL, C1, and the bidirectional
# overrides, which can make a line read as what it is not.
_UNSAFE: Final = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x00-\x1f\x7f-\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]"
    r"|\x9b[0-?]*[ -/]*[@-~]"
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


def plain(text: str) -> str:
    """`text` with every escape sequence and control character but newline and tab taken out."""
    return _UNSAFE.sub("", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """`text` safe to print and on one line."""
    return " ".join(plain(text).split())


def cell_width(text: str) -> int:
    """How many columns `text` takes; Chinese characters take two."""
    return sum(_character_width(character) for character in text)


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def fit(text: str, columns: int) -> str:
    """`text` cut with an ellipsis so that it takes at most `columns`."""
    if cell_width(text) <= columns:
        return text
    taken, width = [], 1
    for character in text:
        width += _character_width(character)
        if width > columns:
            break
        taken.append(character)
    return "".join(taken) + "…"


class Terminal:
    """Writes the result to `out` and the progress to `err`.

    Attributes:
        is_live: `err` is a terminal that may show colours and a changing line (no NO_COLOR, no CI).
        is_joined: Both streams end in the same place, so what was shown on one needn't be repeated on the other.
    """

    def __init__(self, out: TextIO, err: TextIO, environ: Mapping[str, str]) -> None:
        self.out = out
        self.err = err
        self.is_live = err.isatty() and not _asks_for_plain(environ)
        self.is_joined = _same_place(out, err)
        self._lock = threading.RLock()
        self._status: Callable[[], str] | None = None
        self._is_painted = False
        self._is_mid_line = False
        self._prompt: str | None = None
        self._frame = 0
        self._closing = threading.Event()
        self._spinner: threading.Thread | None = None

    @classmethod
    def standard(cls) -> Self:
        """The process' own streams, which then replace what their encoding can't show instead of failing."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        return cls(sys.stdout, sys.stderr, os.environ)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Take the transient line away and stop the spinner."""
        self.status(None)
        self._closing.set()
        if self._spinner is not None:
            self._spinner.join()
            self._spinner = None

    @property
    def columns(self) -> int:
        """Width of the terminal."""
        return shutil.get_terminal_size((DEFAULT_COLUMNS, 24)).columns

    def style(self, name: str, text: str) -> str:
        """`text` in a colour of `STYLES`, where colours are shown."""
        return f"\x1b[{STYLES[name]}m{text}\x1b[0m" if self.is_live else text

    def progress(self, line: str = "") -> None:
        """Write one line to stderr."""
        with self._lock:
            self._begin_line()
            self.err.write(line + "\n")
            self.err.flush()
            self._paint()

    @contextmanager
    def prompting(self, text: str) -> Iterator[None]:
        """Keep `text` as the last line of stderr, after which people type; what is written meanwhile goes above it.

        It takes the place of the transient line. Whoever has read a whole line says so by `end_prompt`.
        """
        self.status(None)
        with self._lock:
            self._begin_line()
            self._prompt = text
            self._paint()
        try:
            yield
        finally:
            with self._lock:
                if self._prompt is not None and self._is_painted:
                    self.err.write("\n")
                    self.err.flush()
            self.end_prompt()

    def end_prompt(self) -> None:
        """The prompt's line has been ended, by the Enter that was typed."""
        with self._lock:
            if self._prompt is not None:
                self._prompt, self._is_painted = None, False

    def result(self, text: str) -> None:
        """Write `text` to stdout, ending its last line."""
        with self._lock:
            self._begin_line()
            self.out.write(text if text.endswith("\n") else text + "\n")
            self.out.flush()
            self._paint()

    def stream(self, text: str) -> None:
        """Write a piece of text to stdout as it comes; the line may go on."""
        if not text:
            return
        with self._lock:
            self._clear()
            self.out.write(text)
            self.out.flush()
            self._is_mid_line = not text.endswith("\n")

    def end_stream(self) -> None:
        """End the line that `stream` has left open, if it has."""
        with self._lock:
            self._begin_line()
            self._paint()

    def status(self, text: Callable[[], str] | None) -> None:
        """Show what `text` returns, again and again, as the transient line with a spinner; None takes it away.

        Does nothing on a plain terminal.
        """
        if not self.is_live:
            return
        with self._lock:
            if self._prompt is not None:
                return
            self._status = text
            if text is None:
                self._clear()
            else:
                self._paint()
        if text is not None and self._spinner is None:
            spinner = threading.Thread(target=self._spin, name="beray-spinner", daemon=True)
            spinner.start()
            self._spinner = spinner  # only now: Ctrl-C before would leave a thread that can't be joined

    def _spin(self) -> None:
        while not self._closing.wait(FRAME_SECONDS):
            with self._lock:
                self._frame += 1
                self._paint()

    def _begin_line(self) -> None:
        self._clear()
        if self._is_mid_line:
            self.out.write("\n")
            self.out.flush()
            self._is_mid_line = False

    def _clear(self) -> None:
        if self._is_painted:
            self.err.write(CLEAR_LINE if self.is_live else "\n")  # a prompt stays where nothing can be cleared
            self.err.flush()
            self._is_painted = False

    def _paint(self) -> None:
        if self._is_mid_line:
            return
        if self._prompt is not None:
            self._paint_prompt(self._prompt)
        elif self._status is not None:
            self._paint_status(self._status)

    def _paint_prompt(self, text: str) -> None:
        if not self._is_painted:  # else it would hide what has been typed
            self.err.write(text)
            self.err.flush()
            self._is_painted = True

    def _paint_status(self, text: Callable[[], str]) -> None:
        mark = self.style("accent", SPINNER[self._frame % len(SPINNER)])
        self.err.write(f"{CLEAR_LINE}{mark} {self.style('dim', fit(text(), self.columns - 3))}")
        self.err.flush()
        self._is_painted = True


def _asks_for_plain(environ: Mapping[str, str]) -> bool:
    return bool(environ.get("NO_COLOR") or environ.get("CI") or environ.get("TERM") == "dumb")


def _same_place(first: TextIO, second: TextIO) -> bool:
    if first.isatty() and second.isatty():
        return True
    try:
        return os.path.sameopenfile(first.fileno(), second.fileno())
    except (OSError, ValueError):  # a stream without a descriptor
        return False
