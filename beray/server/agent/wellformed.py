"""Text from a model may hold lone surrogates (half an emoji, escaped in JSON); neither JSON nor files can hold them."""

from typing import Any


def wellformed(text: str) -> str:
    """`text` with surrogate pairs joined and lone surrogates replaced."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def wellformed_json(value: Any) -> Any:
    """`value`, a JSON value, with every text in it well-formed."""
    if isinstance(value, str):
        return wellformed(value)
    if isinstance(value, dict):
        return {wellformed(key): wellformed_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [wellformed_json(item) for item in value]
    return value
