"""A call's arguments as events show them: events are kept for ever, so they hold little, whatever the model sends."""

from typing import Any, Final

MOST_TEXT_CHARACTERS: Final = 4000  # of one text; a file's whole content is in the file
MOST_CHARACTERS: Final = 16_000  # of all arguments of a call
MOST_DEPTH: Final = 6
LEAST_CHARACTERS: Final = 8  # what any value counts as, with the signs around it
LEAST_INT: Final = -(2**63)
MOST_INT: Final = 2**63 - 1  # beyond these an event can't hold a number


def shown_args(args: dict[str, Any]) -> dict[str, Any]:
    """The arguments, in their order, as far as there is room; of what is left out it is told how much it is."""
    return _Shortened().shorten_object(args, depth=1)


class _Shortened:
    """A copy on the way, and the room that is left for it."""

    def __init__(self) -> None:
        self._room = MOST_CHARACTERS

    def shorten_object(self, value: dict[str, Any], *, depth: int) -> dict[str, Any]:
        shown: dict[str, Any] = {}
        for key, item in value.items():
            if self._room <= 0:
                return {**shown, "…": f"[{len(value) - len(shown)} more]"}
            name = self._shorten_text(key)
            shown[name] = self._shorten(item, depth=depth)
        return shown

    def _shorten(self, value: Any, *, depth: int) -> Any:
        if isinstance(value, str):
            return self._shorten_text(value)
        if isinstance(value, int) and not LEAST_INT <= value <= MOST_INT:
            return self._shorten_text(str(value))
        self._room -= LEAST_CHARACTERS
        if isinstance(value, dict | list) and depth >= MOST_DEPTH:
            return f"[{len(value)} inside]"
        if isinstance(value, dict):
            return self.shorten_object(value, depth=depth + 1)
        if isinstance(value, list):
            return self._shorten_list(value, depth=depth + 1)
        return value

    def _shorten_list(self, values: list[Any], *, depth: int) -> list[Any]:
        shown: list[Any] = []
        for item in values:
            if self._room <= 0:
                return [*shown, f"[{len(values) - len(shown)} more]"]
            shown.append(self._shorten(item, depth=depth))
        return shown

    def _shorten_text(self, value: str) -> str:
        most = max(0, min(MOST_TEXT_CHARACTERS, self._room))
        self._room -= LEAST_CHARACTERS + min(len(value), most)
        return value if len(value) <= most else f"{value[:most]}… [{len(value) - most} more characters]"
