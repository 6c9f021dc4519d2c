"""Whether a value is what its type says, looked at while a program runs."""

import types
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict


def faults(value: object, wanted: Any, where: str = "") -> list[str]:
    """What of `value` its type does not say or says otherwise; a field too many is a fault like one too few.

    Args:
        value: JSON.
        wanted: A TypedDict, `Literal`, union, `list[X]`, `dict[str, X]`, or a plain type.
        where: What the value is called.
    """
    return list(_faults(value, wanted, where or "value"))


def _faults(value: object, wanted: Any, where: str) -> Iterator[str]:
    if is_typeddict(wanted):
        yield from _faults_of_fields(value, wanted, where)
    elif get_origin(wanted) in (Union, types.UnionType):
        yield from _faults_of_union(value, get_args(wanted), where)
    elif get_origin(wanted) is list:
        yield from _faults_of_items(value, list, get_args(wanted)[0], where)
    elif get_origin(wanted) is dict:
        yield from _faults_of_items(value, dict, get_args(wanted)[1], where)
    elif get_origin(wanted) is Literal:
        if value not in get_args(wanted):
            yield f"{where} is {value!r}, none of {get_args(wanted)}"
    elif not _is_plain(value, wanted):
        yield f"{where} is {value!r}, not {wanted}"


def _faults_of_fields(value: object, wanted: Any, where: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{where} is {value!r}, not {wanted.__name__}"
        return
    hints = _hints(wanted)
    yield from (f"{where} lacks {name}" for name in sorted(wanted.__required_keys__ - value.keys()))
    yield from (f"{where} has {name}, which {wanted.__name__} has not" for name in sorted(value.keys() - hints.keys()))
    for name in sorted(value.keys() & hints.keys()):
        yield from _faults(value[name], hints[name], f"{where}.{name}")


def _faults_of_union(value: object, wanted: tuple[Any, ...], where: str) -> Iterator[str]:
    """Of a tagged union: those of the member that the tag names; of another: all, if no member fits."""
    named = [one for one in wanted if is_typeddict(one) and isinstance(value, dict) and _has_tag(value, one)]
    found = [faults(value, one, where) for one in named or wanted]
    if all(found):
        yield from min(found, key=len)


def _has_tag(value: dict[str, Any], wanted: Any) -> bool:
    tag = _hints(wanted).get("type")
    return get_origin(tag) is Literal and value.get("type") in get_args(tag)


def _faults_of_items(value: object, container: type, wanted: Any, where: str) -> Iterator[str]:
    if not isinstance(value, container):
        yield f"{where} is {value!r}, not {container.__name__}"
        return
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, item in items:
        yield from _faults(item, wanted, f"{where}[{name!r}]")


@cache
def _hints(wanted: Any) -> dict[str, Any]:
    return get_type_hints(wanted)


def _is_plain(value: object, wanted: Any) -> bool:
    """As a type checker has it: an int is a float too, and a bool is an int; but JSON's true is no number."""
    if wanted is Any:
        return True
    if wanted in (int, float):
        return isinstance(value, (int, wanted)) and not isinstance(value, bool)
    return isinstance(value, wanted)
