"""What an MCP tool answered, for the model. Imports the protocol's library."""

import base64
import json
from dataclasses import dataclass
from typing import Final

import mcp_types

from beray.server.agent.tools.output import HeadAndTail
from beray.server.agent.tools.pictures import Picture, recognise
from beray.server.agent.wellformed import wellformed

MOST_PICTURES: Final = 4  # of one answer

_NOTHING = "(the tool answered nothing)"
_REMEDY = "ask for less at once to see them"


@dataclass(frozen=True)
class Readable:
    """An answer as a model can take it.

    Attributes:
        text: Cut in the middle like every tool's output.
        is_cut: Something of it is missing.
        pictures: Those whose format is known; the text names them.
    """

    text: str
    is_cut: bool
    pictures: tuple[Picture, ...]


def readable(result: mcp_types.CallToolResult) -> Readable:
    """All that is text or a picture, in order; of the rest it is said what it is."""
    pictures = [picture for block in result.content if (picture := _picture(block)) is not None]
    parts = [_part(block) for block in result.content]
    if len(pictures) > MOST_PICTURES:
        parts.append(f"[only the first {MOST_PICTURES} pictures are shown]")
    if not parts and result.structured_content is not None:
        parts = [json.dumps(result.structured_content, ensure_ascii=False)]
    kept = HeadAndTail()
    kept.add(wellformed("\n".join(parts)).encode())
    shown = kept.text(_REMEDY)
    return Readable(shown if shown.strip() else _NOTHING, kept.is_cut, tuple(pictures[:MOST_PICTURES]))


def _picture(block: mcp_types.ContentBlock) -> Picture | None:
    if not isinstance(block, mcp_types.ImageContent):
        return None
    try:
        return recognise(base64.b64decode(block.data))
    except ValueError:
        return None


def _part(block: mcp_types.ContentBlock) -> str:
    match block:
        case mcp_types.TextContent():
            return block.text
        case mcp_types.ImageContent():
            picture = _picture(block)
            return f"[{picture.about}]" if picture is not None else _named(block)
        case mcp_types.AudioContent():
            return _named(block)
        case mcp_types.ResourceLink():
            return f"[resource {block.uri}: {block.description or block.name}]"
        case mcp_types.EmbeddedResource():
            return _resource(block.resource)


def _named(block: mcp_types.ImageContent | mcp_types.AudioContent) -> str:
    return f"[{block.type} of type {block.mime_type}, {_size(block.data)}, which can't be shown here]"


def _resource(resource: mcp_types.TextResourceContents | mcp_types.BlobResourceContents) -> str:
    if isinstance(resource, mcp_types.TextResourceContents):
        return f"[resource {resource.uri}]\n{resource.text}"
    return f"[resource {resource.uri} of type {resource.mime_type}, {_size(resource.blob)}, which can't be shown here]"


def _size(base64_text: str) -> str:
    return f"{len(base64_text) * 3 // 4} bytes"
