"""Types for the fields of request bodies."""

from typing import Annotated, Final

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


def whole(value: object) -> object:
    """JSON has one kind of number: `5.0` is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _filled(value: str) -> str:
    if not value.strip():
        raise PydanticCustomError("blank", "This must not be blank.")
    return value


Text = Annotated[str, AfterValidator(_whole_characters)]
"""A string. JSON may hold half a surrogate pair, which pydantic lets through to whom it would break: the database, a
hash, an answer."""

Plain = Annotated[Text, AfterValidator(_without_nul), Field(json_schema_extra={"pattern": r"^[^\u0000]*$"})]
"""A string without NUL."""

NAME_MOST: Final = 100  # characters

Name = Annotated[
    str,
    Field(max_length=NAME_MOST),  # before the rest: the error of a length is told by its own name only there
    AfterValidator(_whole_characters),
    AfterValidator(_without_nul),
    AfterValidator(_filled),
    Field(json_schema_extra={"pattern": r"^[^\u0000]*[^\s\u0000][^\u0000]*$", "minLength": 1}),
]
"""What a user calls a thing: a short string without NUL that is more than spaces."""
