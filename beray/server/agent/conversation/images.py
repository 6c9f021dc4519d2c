"""Pictures in a conversation. Imports the model library.

A tool gives them with its result. They are kept once, in the record of that call: checkpoints are written twice a turn,
and would else hold megabytes each time. There they stand empty, and are filled again when a run is taken up.
"""

import asyncio
import base64
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic_ai.messages import BinaryContent, ModelMessage, ModelRequest, ToolReturnPart

from beray.server.agent.run import AgentRun
from beray.server.agent.tools.pictures import Picture
from beray.server.db import agent_runs

REFUSED = "[The picture was removed: the model's server refused it. Find out what you need by a program instead.]"
GONE = "[The picture is gone. Call the tool again if you need it.]"


def with_pictures(text: str, call_id: str, pictures: Sequence[Picture]) -> str | list[str | BinaryContent]:
    """A tool's result as the library takes it."""
    if not pictures:
        return text
    return [
        text,
        *(
            BinaryContent(picture.content, media_type=picture.media_type, identifier=f"{call_id}-{number}")
            for number, picture in enumerate(pictures)
        ),
    ]


def to_record(pictures: Sequence[Picture]) -> list[dict[str, Any]]:
    """Pictures as the record of a call keeps them."""
    return [
        {
            "media_type": picture.media_type,
            "width": picture.width,
            "height": picture.height,
            "data": base64.b64encode(picture.content).decode(),
        }
        for picture in pictures
    ]


def from_record(result: Mapping[str, Any]) -> list[Picture]:
    """The pictures of a recorded result."""
    return [
        Picture(kept["media_type"], kept["width"], kept["height"], True, base64.b64decode(kept["data"]))
        for kept in result.get("pictures", [])
    ]


def count(messages: Sequence[ModelMessage]) -> int:
    """How many results of the conversation hold pictures."""
    return sum(1 for _ in _shown(messages))


def refused(messages: Sequence[ModelMessage]) -> list[ModelMessage]:
    """The conversation with a note in the place of each picture: the model's server does not take them."""
    return _changed(messages, lambda part, picture: REFUSED)


def count_bytes(messages: Sequence[ModelMessage]) -> int:
    """What the pictures of a conversation hold."""
    return sum(
        len(item.data)
        for part in _shown(messages)
        for item in _items(part)
        if isinstance(item, BinaryContent) and item.is_image
    )


def emptied(messages: Sequence[ModelMessage]) -> list[ModelMessage]:
    """The conversation with empty pictures, for a checkpoint."""
    return _changed(messages, lambda part, picture: _of(picture, b""))


async def filled(messages: Sequence[ModelMessage], run: AgentRun) -> list[ModelMessage]:
    """The conversation with its pictures, from the records of the calls that showed them."""
    calls = {part.tool_call_id for part in _shown(messages)}
    if not calls:
        return list(messages)
    found = await run.database.read(lambda connection: agent_runs.find_results(connection, run.task_id, sorted(calls)))
    return await asyncio.to_thread(_filled, messages, found)  # they may be megabytes


def _filled(messages: Sequence[ModelMessage], results: Mapping[str, str]) -> list[ModelMessage]:
    pictures = {call_id: from_record(json.loads(result)) for call_id, result in results.items()}

    def fill(part: ToolReturnPart, picture: BinaryContent) -> BinaryContent | str:
        number = picture.identifier.rpartition("-")[2]
        kept = pictures.get(part.tool_call_id, [])
        return _of(picture, kept[int(number)].content) if number.isdigit() and int(number) < len(kept) else GONE

    return _changed(messages, fill)


def _shown(messages: Sequence[ModelMessage]) -> Iterator[ToolReturnPart]:
    """The results that hold pictures."""
    for message in messages:
        for part in message.parts:
            if isinstance(part, ToolReturnPart) and any(map(_is_picture, _items(part))):
                yield part


def _items(part: ToolReturnPart) -> list[Any]:
    """A result in its pieces, if it has any: only those with pictures have."""
    return part.content if isinstance(part.content, list) else []


def _changed(
    messages: Sequence[ModelMessage], change: Callable[[ToolReturnPart, BinaryContent], BinaryContent | str]
) -> list[ModelMessage]:
    """Copies of the messages with pictures, the others as they are."""
    shown = {id(part) for part in _shown(messages)}

    def parts(message: ModelRequest) -> list[Any]:
        return [_with_changed(part, change) if id(part) in shown else part for part in message.parts]

    return [
        replace(message, parts=parts(message))
        if isinstance(message, ModelRequest) and any(id(part) in shown for part in message.parts)
        else message
        for message in messages
    ]


def _with_changed(part: Any, change: Callable[[ToolReturnPart, BinaryContent], BinaryContent | str]) -> ToolReturnPart:
    content = [change(part, item) if _is_picture(item) else item for item in _items(part)]
    changed: ToolReturnPart = replace(part, content=content)
    return changed


def _is_picture(item: Any) -> bool:
    return isinstance(item, BinaryContent) and item.is_image


def _of(picture: BinaryContent, data: bytes) -> BinaryContent:
    return BinaryContent(data, media_type=picture.media_type, identifier=picture.identifier)
