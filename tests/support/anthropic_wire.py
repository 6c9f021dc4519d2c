"""What the scripted model's replies look like as Anthropic's Messages API streams them."""

import json
from collections.abc import Iterator
from typing import Any

from tests.support.model_wire import Said, Wire

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_SENTENCES = {  # what its API says where OpenAI's has a code
    "insufficient_quota": (400, "Your credit balance is too low to access the Anthropic API."),
    "context_length_exceeded": (400, "prompt is too long: 210000 tokens > 200000 maximum"),
}
_STOP_REASONS = {"stop": "end_turn", "tool_calls": "tool_use", "length": "max_tokens", "content_filter": "refusal"}


def _content(said: Said) -> Iterator[bytes]:
    blocks = _Blocks()
    for delta in said.deltas:
        if "role" in delta:
            yield _frame("message_start", message=_message(said))
        elif "content" in delta:
            yield blocks.text(delta["content"])
        else:
            yield blocks.call(delta["tool_calls"][0])


def _end(said: Said) -> Iterator[bytes]:
    opened = sum("name" in delta["tool_calls"][0]["function"] for delta in said.deltas if "tool_calls" in delta)
    opened += any("content" in delta and "role" not in delta for delta in said.deltas)
    if opened:
        yield _frame("content_block_stop", index=opened - 1)
    told = {"output_tokens": said.usage[1] if said.usage else 0}
    delta = {"stop_reason": _STOP_REASONS[said.reason], "stop_sequence": None}
    yield _frame("message_delta", delta=delta, usage=told)
    yield _frame("message_stop")


def _error(status: int, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    told = body.get("error", {})
    status, message = _SENTENCES.get(told.get("code"), (status, told.get("message", "no")))
    kind = _ERROR_TYPES.get(status, "api_error")
    return status, {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"}


class _Blocks:
    """Opens and closes the blocks of one message."""

    def __init__(self) -> None:
        self._index = -1
        self._kind = ""

    def text(self, piece: str) -> bytes:
        begun = b"" if self._kind == "text" else self._begin({"type": "text", "text": ""})
        return begun + _frame("content_block_delta", index=self._index, delta={"type": "text_delta", "text": piece})

    def call(self, made: dict[str, Any]) -> bytes:
        function = made["function"]
        if "name" in function:
            return self._begin({"type": "tool_use", "id": made["id"], "name": function["name"], "input": {}})
        delta = {"type": "input_json_delta", "partial_json": function["arguments"]}
        return _frame("content_block_delta", index=self._index, delta=delta)

    def _begin(self, block: dict[str, Any]) -> bytes:
        ended = _frame("content_block_stop", index=self._index) if self._index >= 0 else b""
        self._index += 1
        self._kind = block["type"]
        return ended + _frame("content_block_start", index=self._index, content_block=block)


def _message(said: Said) -> dict[str, Any]:
    tokens_in = said.usage[0] if said.usage else 0  # its wire has no way not to tell; those cached are counted apart
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": said.model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {
            "input_tokens": tokens_in - said.cached,
            "cache_read_input_tokens": said.cached,
            "cache_creation_input_tokens": 0,
            "output_tokens": 0,
        },
    }


def _frame(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


ANTHROPIC = Wire(_content, _end, b"event: content_block_delta\ndata: {garbled\n\n", _error)
