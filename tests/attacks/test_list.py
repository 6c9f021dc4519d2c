"""The list of attacks is whole: each of the 59 numbers has a test, and what SECURITY.md says of them is so."""

import re
from collections import defaultdict
from pathlib import Path

ATTACKS = range(1, 60)
TESTS = Path(__file__).parents[1]
SECURITY = TESTS.parent / "SECURITY.md"


def numbered_tests() -> dict[int, set[str]]:
    """Names of all tests that carry a number, wherever they are."""
    found = defaultdict(set)
    for path in TESTS.rglob("test_*.py"):
        for name, number in re.findall(r"^(?:async )?def (test_attack_(\d\d)_\w+)", path.read_text(), re.MULTILINE):
            found[int(number)].add(name)
    return found


def numbers(cell: str) -> set[int]:
    """`1–3, 7` as numbers."""
    spans = re.findall(r"(\d+)(?:–(\d+))?", re.sub(r"`[^`]*`", "", cell))
    return {number for first, last in spans for number in range(int(first), int(last or first) + 1)}


def test_every_attack_has_a_test():
    assert sorted(numbered_tests()) == list(ATTACKS)


def test_the_threat_model_names_every_attack_and_no_other():
    text = SECURITY.read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ") and line.count(" | ") >= 3]

    named = set().union(*(numbers(row[-1].rstrip(" |")) for row in rows[1:]))

    assert named == set(ATTACKS)
