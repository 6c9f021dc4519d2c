"""`AsyncBeRayClient` is `BeRayClient` to be awaited: the same surface; what both do is tested beside, for both."""

import inspect
from typing import Any

from beray import AsyncBeRayClient, BeRayClient


def surface(client: type) -> dict[str, list[tuple[str, Any, Any]]]:
    """Public methods with the names, kinds and defaults of their parameters."""
    found = {}
    for name, member in inspect.getmembers(client, callable):
        if not name.startswith("_") or name == "__init__":
            parameters = inspect.signature(member).parameters.values()
            found[name] = [(one.name, one.kind, one.default) for one in parameters]
    return found


def test_both_clients_have_the_same_surface() -> None:
    assert surface(AsyncBeRayClient) == surface(BeRayClient)


def test_what_blocks_there_is_awaited_here() -> None:
    for name in surface(BeRayClient):
        if name == "__init__" or hasattr(BeRayClient.__mro__[1], name):
            continue
        there, here = getattr(BeRayClient, name), getattr(AsyncBeRayClient, name)
        is_iterator = "Generator" in str(inspect.signature(there).return_annotation)
        assert inspect.iscoroutinefunction(here) is not is_iterator, name


def test_both_say_the_same_in_their_first_line() -> None:
    for name in surface(BeRayClient):
        there, here = getattr(BeRayClient, name).__doc__, getattr(AsyncBeRayClient, name).__doc__
        if name != "__init__":
            assert (there or "").split("\n\n")[0] == (here or "").split("\n\n")[0], name
