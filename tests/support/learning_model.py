"""A scripted model that learns: a story yields calls, and is sent what they came to, to decide on from that alone.

    def story():
        told = yield call("shell", command="python3 test.py")
        line = re.search(r"line (\\d+)", told)[1]
        ...
        yield call("finish", summary="mended")

For each request the story is told anew from its beginning, by the conversation that the request holds: it remembers
nothing else, so a request that is repeated, or made by another process, gets the same answer.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from tests.support.scripted_model import Reply, Script, failure, results_of

Call = dict[str, Any]
Said = Call | Sequence[Call]
Story = Generator[Said, Any, None]
"""Yields a call and is sent its result, or several and is sent a list of results."""


def learning(story: Callable[[], Story], *, disturbed: Mapping[int, Reply] | None = None) -> Script:
    """The script of a story; the requests with the numbers in `disturbed` get these replies instead."""

    def script(request: dict[str, Any], number: int) -> Reply:
        if disturbed and number in disturbed:
            return disturbed[number]
        try:
            said = _told_anew(story(), results_of(request))
        except Exception as error:  # the run then ends with what the story stumbled over
            return failure(400, f"the story can't go on: {error!r}")
        return Reply(calls=[said] if isinstance(said, dict) else said)

    return script


def _told_anew(telling: Story, results: list[str]) -> Said:
    """What the story says after these results."""
    said = next(telling)
    while results:
        count = 1 if isinstance(said, dict) else len(said)
        told, results = results[:count], results[count:]
        said = telling.send(told[0] if isinstance(said, dict) else told)
    return said
