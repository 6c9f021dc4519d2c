"""How deep JSON is nested, told without recursion: whatever reads or writes it by recursion ends in an error of its own
where a model or a server has nested it a thousand times.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

MOST_DEPTH: Final = 64  # levels; no tool has arguments of ten, and what walks over them takes a few calls a level
MOST_SIGNS: Final = 4096  # looked at to know a message again: its names stand at its beginning or nowhere useful

# a text (whose end may be missing), or a bracket; possessive, so that no text makes it look twice
_SIGN: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[{\]}]', re.DOTALL)
_ID: Final = re.compile(r'\s*:\s*(?:(\d{1,18})|"([^"\\]{1,200})")(?=\s*[,}])')


def is_too_deep(json_text: str, most: int = MOST_DEPTH) -> bool:
    """Whether JSON text, whole or not, is nested deeper than `most` levels."""
    if json_text.count("{") + json_text.count("[") <= most:
        return False
    return any(depth > most for _, depth in _signs(json_text))


def is_value_too_deep(value: Any, most: int = MOST_DEPTH) -> bool:
    """Whether a JSON value is nested deeper than `most` levels."""
    level = [value]
    for _ in range(most):
        level = [inner for each in level if isinstance(each, dict | list) for inner in _inside(each)]
    return any(isinstance(each, dict | list) for each in level)


def answered_id(json_text: str) -> int | str | None:
    """Which request a JSON-RPC message that can't be read is the answer to, if it is one and tells it early."""
    names: set[str] = set()
    found: int | str | None = None
    for number, (sign, depth) in enumerate(_signs(json_text)):
        if number >= MOST_SIGNS or depth == 0:
            break
        if depth != 1 or not sign[0].startswith('"'):
            continue
        name = sign[0][1:-1]
        if name == "id" and found is None and (told := _ID.match(json_text, sign.end())):
            found = int(told[1]) if told[1] else told[2]
        names.add(name)
        if found is not None and "jsonrpc" in names and names & {"result", "error"}:
            return found
    return None


def _signs(json_text: str) -> Iterator[tuple[re.Match[str], int]]:
    """Texts and brackets in their order, with the depth after each."""
    depth = 0
    for sign in _SIGN.finditer(json_text):
        if sign[0] in "[{":
            depth += 1
        elif sign[0] in "]}":
            depth -= 1
        yield sign, depth


def _inside(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value
