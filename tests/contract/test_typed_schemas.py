"""/openapi.json describes the contract's types: what their schemas take, and what they refuse."""

from typing import get_args

import jsonschema
import pytest

from beray.protocol.events import Event, EventType
from beray.protocol.types import FileNode, Info
from beray.server.typed_schemas import schemas_of, tagged_union

OUTPUT = {
    "v": 1,
    "seq": 2,
    "at": "2026-01-01T00:00:00.000Z",
    "task_id": 3,
    "type": "tool.output",
    "call_id": "c",
    "stream": "stdout",
    "delta": "x",
    "truncated": False,
}


def fits_event(event: object) -> bool:
    schemas = schemas_of(())
    union = tagged_union(Event, schemas)
    checker = jsonschema.Draft202012Validator({**union, "components": {"schemas": schemas}})
    return checker.is_valid(event)


def test_event_is_told_by_its_type():
    assert fits_event(OUTPUT)


@pytest.mark.parametrize(
    "change", [{"type": "tool.outputs"}, {"stream": "stdlog"}, {"seq": "2"}, {"truncated": None}, {"delta": 1}]
)
def test_event_with_a_wrong_field_does_not_fit(change):
    assert not fits_event(OUTPUT | change)


def test_event_that_lacks_a_field_does_not_fit():
    assert not fits_event({name: value for name, value in OUTPUT.items() if name != "call_id"})


def test_every_type_of_event_is_named():
    mapping = tagged_union(Event, {})["discriminator"]["mapping"]

    assert tuple(mapping) == get_args(EventType)


def test_type_that_holds_itself_is_described_once():
    node = schemas_of([FileNode])["FileNode"]

    assert node["properties"]["children"]["items"] == {"$ref": "#/components/schemas/FileNode"}
    assert "children" not in node["required"]


def test_types_within_a_type_are_described_too():
    assert {"Info", "Sandbox", "Confinement", "ServerLimits", "DayLimits"} <= schemas_of([Info]).keys()
