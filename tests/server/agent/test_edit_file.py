"""edit_file replaces what stands in the file exactly once; else it says what differs, so that the next try fits."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.tools.closest import MOST_LINES, explain_miss, line_numbers
from tests.support.scripted_model import Reply, call

SOURCE = """\
def greet(name):
    if name:
        print("Hello, " + name)

    return name


def leave():
\treturn None
"""

MISSES = {
    "indentation": (
        "def greet(name):\n  if name:\n",
        "It differs from lines 1 to 2 only in indentation.",
        " def greet(name):\n-    if name:\n+  if name:",
    ),
    "tabs": (
        "def leave():\n    return None",
        "It differs from lines 8 to 9 only in tabs instead of spaces.",
        " def leave():\n-→return None\n+    return None\n(→ is a tab",
    ),
    "trailing blanks": (
        "    if name: \n",
        "It differs from line 2 only in trailing blanks.",
        "-    if name:\n+    if name:·\n(→ is a tab, · a blank at a line's end)",
    ),
    "blanks": (
        '        print("Hello, "+name)',
        "It differs from line 3 only in blanks within lines.",
        '-        print("Hello, " + name)\n+        print("Hello, "+name)',
    ),
    "blank lines": (
        '        print("Hello, " + name)\n    return name',
        "It differs from lines 3 to 5 only in blank lines.",
        '         print("Hello, " + name)\n-\n     return name',
    ),
    "quotes": (
        "        print(“Hello, ” + name)",
        "It differs from line 3 only in characters that look alike, such as quotes and dashes.",
        '-        print("Hello, " + name)',
    ),
    "case": ("DEF GREET(NAME):", "It differs from line 1 only in small and capital letters.", "-def greet(name):"),
    "escapes": ("def greet(name):\\n    if name:", "`old` has \\n where the file has line ends.", ""),
    "quotes escaped": ('print(\\"Hello, \\" + name)', '`old` has \\" where the file has quotes.', ""),
    "other words": (
        'def greet(name, loud):\n    if name:\n        print("Hi, " + name)\n',
        "The closest passage is lines 1 to 3.",
        '     if name:\n-        print("Hello, " + name)\n+        print("Hi, " + name)',
    ),
    "nothing like it": ("SELECT * FROM customers", "Nothing in a.py is like it. Read the file again", ""),
    "blanks alone": (" \n ", "Nothing in a.py is like it.", ""),
}


@pytest.mark.parametrize("case", MISSES)
def test_a_miss_is_explained(case):
    old, reason, diff = MISSES[case]

    told = explain_miss("a.py", SOURCE, old)

    assert reason in told
    assert diff in told


def test_the_closest_passage_is_found_as_a_whole_not_by_its_first_line():
    """Many blocks begin alike; what follows tells which one is meant."""
    blocks = [f"@route\ndef view_{number}():\n    return page_{number * 7}\n" for number in range(300)]

    told = explain_miss("a.py", "".join(blocks), "@route\ndef view_212(self):\n    return page_1484")

    assert "The closest passage is lines 637 to 639." in told
    assert "-def view_212():\n+def view_212(self):" in told


@pytest.mark.parametrize(
    ("content", "old"),
    [
        ("}\n" * MOST_LINES, "}\n" * 300 + "x"),
        ("x" * 3_000_000, "x" * 100 + "y"),
        ("word and word\n" * 100_000, "word or word\n" * 1000),
        ("", "anything"),
        ("a\n", "b\n" * 10),
    ],
    ids=["alike", "one line", "long", "empty", "short"],
)
def test_what_is_told_is_bounded(content, old):
    assert len(explain_miss("a.py", content, old)) < 40_000


@given(st.text("ab \t\n", max_size=60), st.text("ab \t\n", min_size=1, max_size=20))
@settings(deadline=None)
def test_whatever_is_sought_is_explained(content, old):
    told = explain_miss("a.txt", content, old)

    named = re.search(r"(?:line|lines) (\d+)(?: to (\d+))?", told)
    assert named or "Nothing in" in told or "backslashes" in told
    if named:
        assert 1 <= int(named[1]) <= int(named[2] or named[1]) <= content.count("\n") + 1


@given(st.text("ab\n", max_size=80), st.text("ab\n", min_size=1, max_size=4))
def test_line_numbers_are_those_of_the_occurrences(content, old):
    ends = [match.start() for match in re.finditer(re.escape(old), content)]

    assert line_numbers(content, old, most=100) == [content.count("\n", 0, at) + 1 for at in ends]


async def test_the_diff_gives_the_passage_that_fits(bench, scripted):
    """A model that copies the lines with - and those without a mark gets the edit done."""
    (bench.work_dir / "a.py").write_text(SOURCE)
    first = Reply(calls=[call("edit_file", path="a.py", old="def greet(nam):\n  if nam:", new="x")])

    def script(request, number):
        told = request["messages"][-1]["content"]
        if "+++ old\n" not in told:
            return first if number == 0 else Reply(told)
        stands = re.findall(r"^[- ](.*)$", told.partition("+++ old\n")[2], re.MULTILINE)
        return Reply(calls=[call("edit_file", path="a.py", old="\n".join(stands), new="def greet(nam):\n    if nam:")])

    server = scripted(script)
    outcome = await bench.run("go", model=ModelChoice("openai:scripted", "model", base_url=server.base_url))

    assert outcome.result == "Edited a.py at line 1."
    assert (bench.work_dir / "a.py").read_text().startswith("def greet(nam):\n    if nam:\n        print")


async def test_an_edit_made_before_is_told_so(bench, use):
    (bench.work_dir / "a.txt").write_text("one\ntwo\n")

    told = await use(
        call("edit_file", path="a.txt", old="two", new="three"), call("edit_file", path="a.txt", old="two", new="three")
    )

    assert told[0] == "Edited a.txt at line 2."
    assert "`new` stands there already, at line 2: the edit may have been made before." in told[1]


async def test_mixed_line_ends_are_named(bench, use):
    (bench.work_dir / "a.txt").write_bytes(b"one\r\ntwo\nthree\n")

    told = await use(
        call("edit_file", path="a.txt", old="one\ntwo\nthree", new="x"),
        call("edit_file", path="a.txt", old="two\nthree", new="2\n3"),
    )

    assert "It differs only in line ends, of which the file has two kinds." in told[0]
    assert (bench.work_dir / "a.txt").read_bytes() == b"one\r\n2\n3\n"


async def test_many_occurrences_are_listed_up_to_ten(bench, use):
    (bench.work_dir / "a.txt").write_text("x\n" * 30)

    (told,) = await use(call("edit_file", path="a.txt", old="x", new="y"))

    assert "`old` stands in a.txt 30 times (lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, …)" in told
