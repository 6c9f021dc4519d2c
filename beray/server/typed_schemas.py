"""JSON Schemas of the contract's types, for /openapi.json: of what no route returns by itself, above all the events."""

import inspect
import types
from collections.abc import Iterable
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

Schema = dict[str, Any]

PLAIN: Final[dict[Any, Schema]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Any: {},
}


def schemas_of(wanted: Iterable[Any]) -> dict[str, Schema]:
    """The schemas of TypedDicts, and of all that their fields are made of, by the classes' names."""
    found: dict[str, Schema] = {}
    for type_ in wanted:
        _schema(type_, found)
    return found


def tagged_union(union: Any, found: dict[str, Schema]) -> Schema:
    """The schema of a union of TypedDicts that their field `type` tells apart; `found` gets those of its members."""
    members = get_args(union)
    return {
        "oneOf": [_schema(member, found) for member in members],
        "discriminator": {
            "propertyName": "type",
            "mapping": {tag: _reference(member) for member in members for tag in get_args(_hints(member)["type"])},
        },
    }


def _schema(wanted: Any, found: dict[str, Schema]) -> Schema:
    if is_typeddict(wanted):
        if wanted.__name__ not in found:
            found[wanted.__name__] = {}  # it may hold itself
            found[wanted.__name__] = _object(wanted, found)
        return {"$ref": _reference(wanted)}
    origin, args = get_origin(wanted), get_args(wanted)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(one, found) for one in args]}
    if origin is list:
        return {"type": "array", "items": _schema(args[0], found)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(args[1], found)}
    if origin is Literal:
        return {"enum": list(args)}
    return dict(PLAIN[wanted])


def _object(wanted: Any, found: dict[str, Schema]) -> Schema:
    schema: Schema = {
        "title": wanted.__name__,
        "type": "object",
        "properties": {name: _schema(hint, found) for name, hint in _hints(wanted).items()},
        "required": sorted(wanted.__required_keys__),
    }
    told = inspect.getdoc(wanted)
    return schema if told is None or told.startswith("dict(") else schema | {"description": told}


def _hints(wanted: Any) -> dict[str, Any]:
    return get_type_hints(wanted)  # without `NotRequired` and the like


def _reference(wanted: Any) -> str:
    return f"#/components/schemas/{wanted.__name__}"
