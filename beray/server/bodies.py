"""Types for the fields of request bodies."""

from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError


def _whole_characters(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("string_unicode", "This must be valid Unicode text.") from error
    return value


Text = Annotated[str, AfterValidator(_whole_characters)]
"""A string. JSON may hold half a surrogate pair, which pydantic lets through to whom it would break: the database, a
hash, an answer."""
