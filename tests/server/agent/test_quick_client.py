"""What the quick client sends is what the library's own would."""

import json

from openai import AsyncOpenAI

from beray.server.agent.models.quick_client import QuickOpenAI
from tests.support.scripted_model import Reply, call, sequence

TOOL = {
    "type": "function",
    "function": {
        "name": "shell",
        "description": "Run a command.",
        "parameters": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
        "strict": True,
    },
}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"}}
CONVERSATION = [
    {"role": "system", "content": "You are an agent."},
    {"role": "user", "content": [{"type": "text", "text": "Look."}, PICTURE]},
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "I look.",
        "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "shell", "arguments": '{"command": "ls"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "a", "content": "nothing"},
]
PARAMS = {
    "model": "scripted",
    "messages": CONVERSATION,
    "tools": [TOOL],
    "tool_choice": "auto",
    "stream": True,
    "stream_options": {"include_usage": True},
    "temperature": 0.5,
    "extra_body": {"enable_thinking": False},
    "timeout": 20,
}


async def test_the_same_request_is_sent_and_the_same_answer_read(scripted):
    server = scripted(sequence(Reply("hello", calls=[call("shell", command="ls")])))
    answers = []
    for make in (AsyncOpenAI, QuickOpenAI):
        client = make(base_url=server.base_url, api_key="key", max_retries=0)
        stream = await client.with_options(max_retries=0).chat.completions.create(**PARAMS)
        answers.append([chunk.model_dump() async for chunk in stream])
        await client.close()

    assert answers[0] == answers[1]
    assert server.requests[0] == server.requests[1]
    assert server.requests[0]["tools"] == [TOOL]
    assert json.dumps(server.requests[0]["messages"]) == json.dumps(CONVERSATION)
    assert server.keys[0] == server.keys[1] == "Bearer key"


async def test_without_tools_none_are_sent(scripted):
    server = scripted(sequence(Reply("hello")))
    client = QuickOpenAI(base_url=server.base_url, api_key="key", max_retries=0)

    stream = await client.chat.completions.create(model="scripted", messages=CONVERSATION[:1], stream=True)
    async for _ in stream:
        pass
    await client.close()

    assert "tools" not in server.requests[0]
