"""How tasks and files look in a notebook: HTML without scripts, styles of its own or anything from elsewhere.

Whatever is shown may come from a model, or from a page that a model has read. So every text goes through `_text` before
it is HTML, and is cut; the colours are the page's own, which fit a light and a dark one alike.

A value of another shape is shown as None: the notebook then falls back to plain text.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

GOAL_CHARACTERS: Final = 600
RESULT_CHARACTERS: Final = 4000
LINE_CHARACTERS: Final = 160
MOST_CALLS: Final = 20  # the last ones of a task
MOST_TASKS: Final = 100
MOST_FILES: Final = 300
MOST_LEVELS: Final = 12
OPEN_LEVELS: Final = 2

# Without the two classes MathJax, which most notebooks load, would take what stands between two dollar signs for TeX.
_BOX: Final = '<div class="tex2jax_ignore mathjax_ignore" style="color:inherit;font-size:.95em;line-height:1.45">'
_TABLE: Final = '<table style="border-collapse:collapse;margin:.2em 0">'
_CELL: Final = "text-align:left;vertical-align:top;padding:.15em .9em .15em 0;border:0"
_FAINT: Final = "opacity:.7"
_LEAF: Final = "padding-left:1.1em"  # as far in as the names of folders, which have a mark to fold them
_WORDS: Final = "white-space:pre-wrap;overflow-wrap:anywhere"
_RULE: Final = "border-left:3px solid currentColor;padding-left:.7em;margin:.4em 0"

# Of a brightness between white and black, so that each can be told on both.
_COLOURS: Final = {
    "queued": "#7a7f87",
    "running": "#2f7fd6",
    "waiting": "#b3730e",
    "completed": "#2a8a4a",
    "failed": "#d3423f",
    "stopped": "#7a7f87",
}

# What no page can hold, or shows nothing of; and what turns the direction of the text, so that names read as others.
_UNREADABLE: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_UNENDED: Final = {"ok": "", "summary": ""}
_MARKS: Final = {"True": "✓", "False": "✗", "": "…"}

_UNITS: Final = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}

Json = Mapping[str, Any]


def task_html(task: Json) -> str | None:
    """One task: how it stands, what came of it, and what its agent did."""
    if not _is_task(task):
        return None
    parts = [
        _headline(task),
        f'<div style="{_WORDS};margin:.2em 0"><b dir="auto">{_text(task["goal"], GOAL_CHARACTERS)}</b></div>',
        _question(task.get("question")),
        _error(task.get("error")),
        _result(task.get("result")),
        f'<div style="{_FAINT}">{_facts(task)}</div>',
        _work(task.get("events")),
    ]
    return f"{_BOX}{''.join(parts)}</div>"


def tasks_html(tasks: Sequence[Any]) -> str | None:
    """Tasks as a table, one a row."""
    if not tasks or not all(_is_task(task) for task in tasks[:MOST_TASKS]):
        return None
    head = "".join(f'<th style="{_CELL};{_FAINT}">{name}</th>' for name in ("id", "status", "goal", "model", "created"))
    rows = "".join(f"<tr>{''.join(map(_cell, _columns(task)))}</tr>" for task in tasks[:MOST_TASKS])
    table = f"{_TABLE}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    return f"{_BOX}{table}{_more(len(tasks) - MOST_TASKS)}</div>"


def files_html(nodes: Sequence[Any]) -> str | None:
    """A tree of files, with folders that can be folded."""
    if not all(isinstance(node, Mapping) and "name" in node for node in nodes):
        return None
    if not nodes:
        return f'{_BOX}<span style="{_FAINT}">no files</span></div>'
    room = _Room(MOST_FILES)
    return f"{_BOX}{_folder(nodes, room=room, level=0)}</div>"


def _is_task(task: Any) -> bool:
    return isinstance(task, Mapping) and {"id", "goal", "status"} <= task.keys()


# A task's parts


def _headline(task: Json) -> str:
    words = [f"task {_text(task['id'])}", _status(task["status"])]
    if task.get("stop_requested") is True and task["status"] in ("running", "waiting"):
        words.append("being stopped")
    if task.get("model"):
        words.append(f"<bdi>{_text(task['model'])}</bdi>")
    run = task.get("run")
    if isinstance(run, int) and run > 1:
        words.append(f"run {_text(run)}")
    return f"<div>{' · '.join(words)}</div>"


def _status(status: Any) -> str:
    colour = _COLOURS.get(status, "currentColor") if isinstance(status, str) else "currentColor"
    return f'<span style="white-space:nowrap"><span style="color:{colour}">●</span> {_text(status)}</span>'


def _question(question: Any) -> str:
    if not isinstance(question, Mapping):
        return ""
    choices = question.get("choices")
    offered = " / ".join(_text(choice) for choice in choices[:10]) if isinstance(choices, list) else ""
    asked = f'<div dir="auto" style="{_WORDS}">{_text(question.get("question"), GOAL_CHARACTERS)}</div>'
    return f'<div style="{_RULE}">{asked}<div style="{_FAINT}">{offered}</div></div>'


def _error(error: Any) -> str:
    if not isinstance(error, Mapping):
        return ""
    code = f'<span style="color:{_COLOURS["failed"]}">●</span> <code>{_text(error.get("code"))}</code>'
    message = f"<bdi>{_text(error.get('message'), GOAL_CHARACTERS)}</bdi>"
    hint = error.get("hint")
    advice = f'<div style="{_FAINT}">{_text(hint, GOAL_CHARACTERS)}</div>' if hint else ""
    return f'<div dir="auto" style="{_RULE};{_WORDS}">{code} {message}{advice}</div>'


def _result(result: Any) -> str:
    if result is None:
        return ""
    return f'<div dir="auto" style="{_RULE};{_WORDS}">{_text(result, RESULT_CHARACTERS)}</div>'


def _facts(task: Json) -> str:
    """The last line: when, and what it has used."""
    facts = [_text(task[name]) for name in ("created_at", "finished_at") if task.get(name)]
    words = ["<bdi>" + " → ".join(facts) + "</bdi>"] if facts else []
    usage = task.get("usage")
    if isinstance(usage, Mapping):
        used = ("requests", "tool_calls", "input_tokens", "output_tokens", "cost_usd")
        words += [f"{_text(name)} {_text(usage[name])}" for name in used if usage.get(name) is not None]
    return " · ".join(words)


def _work(events: Any) -> str:
    """What the agent did, folded: its calls, and how many events there are of each type."""
    if not isinstance(events, list) or not events:
        return ""
    known = [event for event in events if isinstance(event, Mapping)]
    calls = list(_calls(known))
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in calls[-MOST_CALLS:])
    table = f"{_TABLE}<tbody>{rows}</tbody></table>" if rows else ""
    counts = Counter(_text(event.get("type")) for event in known).most_common(MOST_CALLS)
    kinds = " · ".join(f"{kind} {count}" for kind, count in counts)
    summary = f"{len(events)} events, {len(calls)} tool calls"
    return f'<details><summary>{summary}</summary>{table}<div style="{_FAINT}">{kinds}</div></details>'


def _calls(events: Iterable[Json]) -> Iterator[tuple[str, str, str]]:
    """Each tool call as mark, title and summary; its end is looked for by its id."""
    known = [event for event in events if isinstance(event.get("call_id"), str)]
    ends = {event["call_id"]: event for event in known if event.get("type") == "tool.finished"}
    for event in known:
        if event.get("type") == "tool.started":
            end = ends.get(event["call_id"], _UNENDED)
            yield _MARKS.get(str(end.get("ok")), "?"), _wrapped(event.get("title")), _wrapped(end.get("summary"))


def _columns(task: Json) -> tuple[str, ...]:
    return (
        _text(task["id"]),
        _status(task["status"]),
        _wrapped(task["goal"]),
        f"<bdi>{_text(task.get('model') or '')}</bdi>",
        f'<span style="white-space:nowrap">{_text(task.get("created_at") or "")}</span>',
    )


def _wrapped(value: Any) -> str:
    """A text in a cell, in its own direction, that makes the table no wider than the page."""
    return f'<div dir="auto" style="overflow-wrap:anywhere">{_text(value)}</div>'


def _cell(content: str) -> str:
    return f'<td style="{_CELL}">{content}</td>'


# Files


class _Room:
    """How many nodes may still be shown: a tree can hold ten thousand."""

    def __init__(self, left: int) -> None:
        self.left = left


def _folder(nodes: Sequence[Any], *, room: _Room, level: int) -> str:
    shown = []
    known = [node for node in nodes if isinstance(node, Mapping)]
    for node in known:
        if room.left <= 0:
            break
        room.left -= 1
        shown.append(f'<li style="list-style:none;margin:0;padding:0">{_node(node, room=room, level=level)}</li>')
    items = "".join(shown) + _more(len(known) - len(shown))
    return f'<ul style="margin:0;padding-left:{1.1 if level else 0}em">{items}</ul>'


def _node(node: Json, *, room: _Room, level: int) -> str:
    name = f"<bdi>{_text(node.get('name'))}</bdi>"
    children = node.get("children")
    if isinstance(children, list):
        cut = f' <span style="{_FAINT}">(not all shown)</span>' if node.get("truncated") is True else ""
        if level >= MOST_LEVELS or not children:
            return f'<div style="{_LEAF}">{name}/{cut}{" …" if children else ""}</div>'
        is_open = " open" if level < OPEN_LEVELS else ""
        inside = _folder(children, room=room, level=level + 1)
        return f"<details{is_open}><summary>{name}/{cut}</summary>{inside}</details>"
    link = " ↗" if node.get("type") == "symlink" else ""
    return f'<div style="{_LEAF}">{name}{link} <span style="{_FAINT}">{_size(node.get("size"))}</span></div>'


def _size(size: Any) -> str:
    if not isinstance(size, int | float) or isinstance(size, bool):
        return ""
    if not 0 <= size < 1 << 63:
        return "?"
    unit = next((unit for unit in _UNITS if size < 1024 * _UNITS[unit]), "TiB")
    return f"{size / _UNITS[unit]:.{0 if unit == 'B' else 1}f} {unit}"


def _more(count: int) -> str:
    return f'<div style="{_FAINT}">… and {count} more</div>' if count > 0 else ""


def _text(value: Any, most: int = LINE_CHARACTERS) -> str:
    """A value as HTML that is nothing but text."""
    try:
        words = value if isinstance(value, str) else str(value)
    except RecursionError:
        words = "…"
    cut = words[:most] + "…" if len(words) > most else words
    return escape(_UNREADABLE.sub("\N{REPLACEMENT CHARACTER}", cut), quote=True)
