"""What a model is told when a passage that it wants to replace does not stand in the file as it gave it. Pure.

Most misses are a matter of blanks: indentation, tabs, trailing blanks, blank lines. These are looked for first, by
comparing lines with blanks taken away, and named. Else the passage of the same height is found that shares the most
trigrams (three characters in a row, blanks left out) with what was given: each line is looked at once, so the time
grows with the file and not with its square. In both cases a diff shows file and request line by line.
"""

import difflib
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

MOST_CHARACTERS: Final = 1_000_000  # of a file that is looked through: some 0.3 s
MOST_LINES: Final = 20_000
MOST_OLD_LINES: Final = 400
DIFF_LINES: Final = 80
DIFF_LINE_CHARACTERS: Final = 400
LEAST_SHARED: Final = 0.4  # of the trigrams; what shares less is another passage

Normal = Callable[[str], str]

_ALIKE: Final = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "\N{NO-BREAK SPACE}": " "})


def _plain(line: str) -> str:
    return unicodedata.normalize("NFKC", line.translate(_ALIKE))


_WAYS: Final[tuple[tuple[Normal, str], ...]] = (
    (str.rstrip, "trailing blanks"),
    (lambda line: line.expandtabs(4).rstrip(), "tabs instead of spaces"),
    (str.strip, "indentation"),
    (lambda line: re.sub(r"\s+", "", line), "blanks within lines"),
    (lambda line: re.sub(r"\s+", "", _plain(line)), "characters that look alike, such as quotes and dashes"),
    (lambda line: re.sub(r"\s+", "", line).casefold(), "small and capital letters"),
)


@dataclass(frozen=True)
class Passage:
    """Lines of the file, counted from 1, and in what they differ from what was given ("" = in more than blanks)."""

    first: int
    lines: Sequence[str]
    only_in: str = ""


def explain_miss(path: str, content: str, old: str) -> str:
    """Where `content` comes closest to `old`, which does not stand in it, and what differs.

    Args:
        path: The file's name, for the diff.
        content: The file's text.
        old: What was looked for.
    """
    if (unescaped := _unescaped(content, old)) is not None:
        return unescaped
    lines = _lines(content)
    wanted = old.removesuffix("\n").split("\n")[:MOST_OLD_LINES]
    found = _alike_but_for_blanks(lines, wanted) or _without_blank_lines(lines, wanted) or _most_alike(lines, wanted)
    if found is None:
        looked = f"Nothing in {path}" if len(content) <= MOST_CHARACTERS else f"Nothing in the beginning of {path}"
        return f"{looked} is like it. Read the file again and copy the passage from it."
    where = f"line {found.first}" if len(found.lines) == 1 else f"lines {found.first} to {_last(found)}"
    head = f"It differs from {where} only in {found.only_in}" if found.only_in else f"The closest passage is {where}"
    return f"{head}. Lines with - stand in the file, lines with + in `old`:\n{_diff(path, found, wanted)}"


def _unescaped(content: str, old: str) -> str | None:
    r"""What to say if `old` has \n or \" written out where the file has line ends and quotes."""
    for escaped, plain, name in (("\\n", "\n", "line ends"), ('\\"', '"', "quotes")):
        if escaped in old and old.replace(escaped, plain) in content:
            return f"It would without backslashes: `old` has {escaped} where the file has {name}."
    both = old.replace("\\n", "\n").replace('\\"', '"')
    if both != old and both in content:
        return r"It would without backslashes: `old` has \n and \" where the file has line ends and quotes."
    return None


def _lines(content: str) -> list[str]:
    return content[:MOST_CHARACTERS].split("\n")[:MOST_LINES]


def _alike_but_for_blanks(lines: Sequence[str], wanted: Sequence[str]) -> Passage | None:
    for normal, only_in in _WAYS:
        normal_wanted = [normal(line) for line in wanted]
        if not any(normal_wanted):
            return None
        start = _find([normal(line) for line in lines], normal_wanted)
        if start is not None:
            return Passage(start + 1, lines[start : start + len(wanted)], only_in)
    return None


def _find(lines: Sequence[str], wanted: Sequence[str]) -> int | None:
    """Where `wanted` begins in `lines`. What stands first for sure decides: a passage may begin with blank lines."""
    anchor = next(number for number, line in enumerate(wanted) if line)
    for at in _places(lines, wanted[anchor]):
        start = at - anchor
        if start >= 0 and lines[start : start + len(wanted)] == wanted:
            return start
    return None


def _places(lines: Sequence[str], line: str) -> Iterator[int]:
    at = -1
    while True:
        try:
            at = lines.index(line, at + 1)
        except ValueError:
            return
        yield at


def _without_blank_lines(lines: Sequence[str], wanted: Sequence[str]) -> Passage | None:
    kept = [number for number, line in enumerate(lines) if line.strip()]
    filled = [line.rstrip() for line in wanted if line.strip()]
    if not filled:
        return None
    start = _find([lines[number].rstrip() for number in kept], filled)
    if start is None:
        return None
    first, last = kept[start], kept[start + len(filled) - 1]
    return Passage(first + 1, lines[first : last + 1], "blank lines")


def _most_alike(lines: Sequence[str], wanted: Sequence[str]) -> Passage | None:
    """The lines, as many as `wanted` has, that share the most trigrams with it."""
    sought = _trigrams("".join(map(_packed, wanted)))
    if not sought:
        return None
    seen: dict[str, set[str]] = {}
    shared, sizes = [0], [0]
    for line in lines:
        packed = _packed(line)
        if packed not in seen:
            seen[packed] = _trigrams(packed)
        shared.append(len(seen[packed] & sought))
        sizes.append(len(seen[packed]))
    return _best_window(lines, len(wanted), len(sought), list(accumulate(shared)), list(accumulate(sizes)))


def _best_window(
    lines: Sequence[str], height: int, sought: int, shared: Sequence[int], sizes: Sequence[int]
) -> Passage | None:
    """By sums up to each line; twice what is shared over the size of both is 1 for the same text."""
    height = min(height, len(lines))
    best, best_score = 0, 0.0
    for start in range(len(lines) - height + 1):
        end = start + height
        score = 2 * (shared[end] - shared[start]) / (sought + sizes[end] - sizes[start])
        if score > best_score:
            best, best_score = start, score
    return Passage(best + 1, lines[best : best + height]) if best_score >= LEAST_SHARED else None


def _packed(line: str) -> str:
    return re.sub(r"\s+", "", line)[:2000].lower()


def _trigrams(packed: str) -> set[str]:
    if 0 < len(packed) < 3:
        return {packed}
    return {packed[start : start + 3] for start in range(len(packed) - 2)}


def _diff(path: str, found: Passage, wanted: Sequence[str]) -> str:
    shows_blanks = bool(found.only_in) or any("\t" in line for line in (*found.lines, *wanted))
    show: Normal = _with_visible_blanks if shows_blanks else lambda line: line
    rows = list(
        difflib.unified_diff(
            [show(line) for line in found.lines],
            [show(line) for line in wanted],
            fromfile=f"{path}, lines {found.first} to {_last(found)}",
            tofile="old",
            n=len(wanted),
            lineterm="",
        )
    )
    rows = [row for row in rows if not row.startswith("@@")]
    shown = [row if len(row) <= DIFF_LINE_CHARACTERS else f"{row[:DIFF_LINE_CHARACTERS]}…" for row in rows[:DIFF_LINES]]
    if len(rows) > DIFF_LINES:
        shown.append(f"[{len(rows) - DIFF_LINES} more lines of the diff]")
    if any(mark in row for row in shown for mark in "→·"):
        shown.append("(→ is a tab, · a blank at a line's end)")
    return "\n".join(shown)


def _with_visible_blanks(line: str) -> str:
    body = line.rstrip()
    return (body + line[len(body) :].replace(" ", "·")).replace("\t", "→")


def _last(found: Passage) -> int:
    return found.first + len(found.lines) - 1


def line_numbers(content: str, old: str, *, most: int = 10) -> list[int]:
    """The lines in which `old` begins, at most so many."""
    numbers: list[int] = []
    at, line = 0, 1
    while len(numbers) < most and (found := content.find(old, at)) >= 0:
        line += content.count("\n", at, found)
        numbers.append(line)
        line += old.count("\n")
        at = found + len(old)
    return numbers
