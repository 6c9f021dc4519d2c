"""The recorded event logs in `tests/streams/`, by which the console's reducer is tested, are what servers send."""

import json
from pathlib import Path
from typing import get_args

import pytest

from beray.protocol.events import Event, EventType
from beray.protocol.sse import EventStreamDecoder, encode_event
from tests.support.record_streams import RECORDINGS, STREAMS
from tests.support.told_state import told_state
from tests.support.typed_dicts import faults

NAMES = sorted(RECORDINGS)
RARE = {"model.fallback"}  # as a task that is told of in test_several_models


def lines_of(name: str) -> list[bytes]:
    return (STREAMS / f"{name}.jsonl").read_bytes().splitlines()


def events_of(name: str) -> list[dict]:
    return [json.loads(line) for line in lines_of(name)]


def test_each_recording_is_there_and_nothing_else():
    files = {Path(f"{name}{end}") for name in NAMES for end in (".jsonl", ".expected.json")}

    assert {file.relative_to(STREAMS) for file in STREAMS.iterdir()} == files


@pytest.mark.parametrize("name", NAMES)
def test_recorded_events_are_what_their_types_say(name):
    events = events_of(name)

    assert [fault for event in events for fault in faults(event, Event, event["type"])] == []
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))


def test_recordings_have_events_of_every_type():
    assert {event["type"] for name in NAMES for event in events_of(name)} == set(get_args(EventType)) - RARE


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_sdk_decodes_a_recording_however_it_is_cut(name, size):
    events = events_of(name)
    frames = zip(events, lines_of(name), strict=True)
    wire = b"".join(encode_event(event["seq"], event["type"], line) for event, line in frames)
    decoder = EventStreamDecoder()

    pieces = (wire[start : start + size] for start in range(0, len(wire), size))
    decoded = [event for piece in pieces for event in decoder.feed(piece)]

    assert [json.loads(event.data) for event in decoded] == events
    assert [(event.id, event.type) for event in decoded] == [(str(event["seq"]), event["type"]) for event in events]


@pytest.mark.parametrize("name", NAMES)
def test_recording_comes_to_what_stands_beside_it(name):
    """`web/src/events/reduce.test.ts` holds the console's reducer to the same."""
    assert told_state(events_of(name)) == json.loads((STREAMS / f"{name}.expected.json").read_text(encoding="utf-8"))
