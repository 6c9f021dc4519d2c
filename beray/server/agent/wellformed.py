"""Text from a model may hold what can't be kept: lone surrogates (half an emoji, escaped in JSON), which neither JSON
nor files can hold, and NUL characters, which PostgreSQL's text can't.
"""

import json
import re
from typing import Any

_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def wellformed(text: str) -> str:
    """`text` with surrogate pairs joined, lone surrogates and NUL characters replaced."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
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


def wellformed_arguments(arguments: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    """A tool call's arguments, as JSON text or value, with every text in them well-formed."""
    if not isinstance(arguments, str):
        return None if arguments is None else dict(wellformed_json(arguments))
    arguments = wellformed(arguments)
    if _ESCAPED_SURROGATE.search(arguments) is None:
        return arguments
    try:
        return json.dumps(wellformed_json(json.loads(arguments)))
    except ValueError:
        return arguments  # the model will be told what is wrong with it
