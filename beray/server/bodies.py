"""Types for the fields of request bodies."""

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError


def _whole_characters(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("string_unicode", "This must be valid Unicode text.") from error
    return value


def _without_nul(value: str) -> str:
    if "\0" in value:  # PostgreSQL's text cannot hold it, nor can a command line
        raise PydanticCustomError("nul", "This must not hold a NUL character.")
    return value


Text = Annotated[str, AfterValidator(_whole_characters)]
"""A string. JSON may hold half a surrogate pair, which pydantic lets through to whom it would break: the database, a
hash, an answer."""

Plain = Annotated[Text, AfterValidator(_without_nul), Field(json_schema_extra={"pattern": r"^[^\u0000]*$"})]
"""A string without NUL."""
