"""What is true of every run's events, however often its model or its process failed."""

import itertools
from collections.abc import Sequence
from typing import Any

Event = dict[str, Any]


def assert_true_story(events: Sequence[Event], *, is_ended: bool = True) -> None:
    """No piece of a cut try passes for truth, no call is left open or told twice, and usage never falls.

    Args:
        events: All events of a task.
        is_ended: Its run has ended by itself, so nothing may be open any more.
    """
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    _assert_text_is_whole(events, is_ended=is_ended)
    _assert_calls_are_whole(events, is_ended=is_ended)
    _assert_usage_never_falls(events)


def texts_of(events: Sequence[Event]) -> list[str]:
    """The messages a viewer holds at the end, by their deltas; what was reset is gone."""
    held: dict[str, str] = {}
    for event in events:
        if event["type"] == "text.delta":
            held[event["message_id"]] = held.get(event["message_id"], "") + event["delta"]
        elif event["type"] == "text.reset":
            del held[event["message_id"]]
    return list(held.values())


def _assert_text_is_whole(events: Sequence[Event], *, is_ended: bool) -> None:
    done = [event["text"] for event in events if event["type"] == "text.done"]
    texts = texts_of(events)
    assert texts[: len(done)] == done
    assert not is_ended or len(texts) == len(done)


def _assert_calls_are_whole(events: Sequence[Event], *, is_ended: bool) -> None:
    ids = {
        kind: [event["call_id"] for event in events if event["type"] == f"tool.{kind}"]
        for kind in ("requested", "started", "finished")
    }
    for told in ids.values():
        assert len(told) == len(set(told))
    assert set(ids["started"]) | set(ids["finished"]) <= set(ids["requested"])
    assert not is_ended or set(ids["started"]) <= set(ids["finished"])
    assert {event["call_id"] for event in events if event["type"] == "tool.output"} <= set(ids["started"])


def _assert_usage_never_falls(events: Sequence[Event]) -> None:
    told = [event["usage"] for event in events if event.get("usage") is not None]
    for before, after in itertools.pairwise(told):
        for name in before.keys() & after.keys():
            if before[name] is not None and after[name] is not None:
                assert after[name] >= before[name], name
