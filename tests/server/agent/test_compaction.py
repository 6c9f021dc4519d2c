"""A long conversation is made smaller before the model's context is full, and nothing that counts is lost."""

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai.messages import (
    ModelRequest,
    ModelResponse,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)

from beray.server.agent.conversation import compaction, notes, summary
from beray.server.agent.models.choice import ModelChoice
from tests.support.agent_bench import Crash, CrashAt
from tests.support.scripted_model import Reply, call, failure

GOAL = "Count all the things in the folder, one after the other."
LONG = "x" * 4000
SUMMARY_REQUEST = "record of an agent's work"


def choice(server):
    return ModelChoice("openai:scripted", "model", base_url=server.base_url, is_own_url=True)


def is_summary(request) -> bool:
    return SUMMARY_REQUEST in str(request["messages"][0]["content"])


def size(request) -> int:
    return sum(len(str(message)) for message in request["messages"])


def long_work(steps, *, summary=None, tokens_per_character=0.25):
    """`steps` calls with long results, the tokens counted by the request's size; then the end."""

    def script(request, number):
        tokens = (int(size(request) * tokens_per_character), 20)
        if is_summary(request):
            return summary or Reply("So far: files 1 to 9 were counted.", usage=tokens)
        done = script.count = getattr(script, "count", 0) + 1
        if done > steps:
            return Reply("Counted all.", usage=tokens)
        made = call("shell", command=f"echo step {done}; head -c 4000 /dev/zero | tr '\\0' x")
        return Reply(calls=[made], usage=tokens)

    return script


def assert_well_formed(request):
    """Every result follows its call, every call has its result: what providers demand."""
    called, answered = [], []
    for message in request["messages"]:
        called += [each["id"] for each in message.get("tool_calls") or []]
        if message["role"] == "tool":
            assert message["tool_call_id"] in called
            answered.append(message["tool_call_id"])
    assert called == answered


async def test_old_results_are_cleared_at_70_percent_and_the_newest_kept(bench, scripted):
    server = scripted(long_work(14))

    outcome = await bench.run(GOAL, model=choice(server), context_tokens=14_000)

    assert outcome.result == "Counted all."
    compacted = await bench.events("context.compacted")
    assert {event["how"] for event in compacted} == {"cleared"}
    first = compacted[0]
    assert 0.7 * 14_000 <= first["before"] < 14_000
    assert first["after"] < first["before"]
    assert first["dropped"]["tool_results"] > 0
    last = server.requests[-1]["messages"]
    results = [message["content"] for message in last if message["role"] == "tool"]
    assert len(results) == 14
    assert all(LONG in result for result in results[-compaction.KEPT_RESULTS :])
    assert compaction.CLEARED in results[0]
    for request in server.requests:
        assert_well_formed(request)
        assert size(request) * 0.25 < 14_000


async def test_what_is_still_too_much_is_summarised_and_the_goal_is_kept(bench, scripted):
    server = scripted(long_work(12))

    outcome = await bench.run(GOAL, model=choice(server), context_tokens=6000)

    assert outcome.result == "Counted all."
    compacted = await bench.events("context.compacted")
    assert "summarised" in {event["how"] for event in compacted}
    assert max(event["dropped"]["messages"] for event in compacted) > 1
    last = server.requests[-1]["messages"]
    assert last[1]["content"] == GOAL
    assert "files 1 to 9 were counted" in last[2]["content"]
    for request in server.requests:
        assert_well_formed(request)
        assert is_summary(request) or size(request) * 0.25 < 6000
    asked = [request for request in server.requests if is_summary(request)]
    assert outcome.usage["requests"] == len(server.requests)
    assert all("tools" not in request for request in asked)


async def test_the_record_to_summarise_holds_what_happened(bench, scripted):
    server = scripted(long_work(12))

    await bench.run(GOAL, model=choice(server), context_tokens=6000)

    asked = next(request for request in server.requests if is_summary(request))
    record = str(asked["messages"][0]["content"])
    entries = [json.loads(line) for line in record.splitlines() if line.startswith("{")]
    assert entries[0] == {"role": "user", "text": GOAL}
    assert (entries[1]["role"], entries[1]["tool"]) == ("call", "shell")
    assert entries[2]["role"] == "result"
    assert "step 1" in entries[2]["text"]


@pytest.mark.parametrize("summary", [failure(400, "no"), Reply("")], ids=["refused", "empty"])
async def test_without_a_summary_what_is_known_takes_its_place(bench, scripted, summary):
    server = scripted(long_work(12, summary=summary))

    outcome = await bench.run(GOAL, model=choice(server), context_tokens=6000)

    assert outcome.result == "Counted all."
    assert "dropped" in {event["how"] for event in await bench.events("context.compacted")}
    first, known = server.requests[-1]["messages"][1:3]
    assert first["content"] == GOAL
    assert "called shell" in known["content"]


async def test_unknown_context_is_learnt_from_the_refusal_and_tried_once_more(bench, scripted):
    """Nothing is known of the model's context: the request that is refused is made smaller, once."""
    refused = []

    def script(request, number):
        if size(request) > 20_000 and not is_summary(request):
            refused.append(number)
            return failure(400, "too long", code="context_length_exceeded")
        return work(request, number)

    work = long_work(12)
    server = scripted(script)

    outcome = await bench.run(GOAL, model=choice(server), context_tokens=None)

    assert outcome.result == "Counted all."
    assert len(refused) == 1
    assert len(await bench.events("context.compacted")) > 1, "the second time it is not left to a refusal"


async def test_a_goal_that_is_too_long_by_itself_fails(bench, scripted):
    server = scripted(lambda request, number: failure(400, "too long", code="context_length_exceeded"))

    outcome = await bench.run(GOAL, model=choice(server))

    assert outcome.error["code"] == "context_exceeded"
    assert len(server.requests) == 1


async def test_a_crash_in_the_middle_of_it_loses_nothing(bench, scripted):
    server = scripted(long_work(12))
    bench.crash = crash = CrashAt(10_000)
    seen = 0
    while True:
        try:
            outcome = await bench.run(GOAL, model=choice(server), context_tokens=6000)
        except Crash:
            crash.number = 10_000
            continue
        break
    compacting = [index for index, (_, types) in enumerate(crash.seen, 1) if "context.compacted" in types]
    assert outcome.is_completed
    assert compacting
    seen = len(server.requests)
    assert outcome.usage["requests"] == seen


async def test_a_takeover_goes_on_with_the_smaller_conversation(bench, scripted):
    server = scripted(long_work(12))

    class CrashAfterCompaction:
        has_died = False

        def __call__(self, when, types):
            if when == "after" and "context.compacted" in types and not self.has_died:
                self.has_died = True
                raise Crash(when, types)

    bench.crash = CrashAfterCompaction()
    with pytest.raises(Crash):
        await bench.run(GOAL, model=choice(server), context_tokens=6000)
    before = max(size(request) for request in server.requests if not is_summary(request))
    count = len(server.requests)

    outcome = await bench.run(GOAL, model=choice(server), context_tokens=6000)

    assert outcome.is_completed
    assert size(server.requests[count]) < before


async def test_results_stay_whole_while_there_is_room(bench, scripted):
    server = scripted(long_work(10))

    await bench.run(GOAL, model=choice(server), context_tokens=1_000_000)

    assert await bench.events("context.compacted") == []
    for earlier, later in itertools.pairwise(server.requests):
        assert later["messages"][: len(earlier["messages"])] == earlier["messages"], "the prefix can be cached"
        assert later["tools"] == earlier["tools"]


# ---- the parts, for any conversation

# short texts, repeated: long ones take Hypothesis longer to make than they take to test
ALPHABET = 'ab \n"{}:é中\u2028\U0001f600'  # of all there are Hypothesis would make a table first, for seconds
texts = st.builds(str.__mul__, st.text(ALPHABET, max_size=8), st.integers(0, 250))


@st.composite
def conversations(draw):
    """As a run makes them: requests and answers in turn, results after their calls, ending in a request."""
    messages = [ModelRequest(parts=[UserPromptPart(GOAL)])]
    for turn in range(draw(st.integers(0, 12))):
        calls = [
            ToolCallPart("shell", {"command": draw(texts)}, tool_call_id=f"call_{turn}_{index}")
            for index in range(draw(st.integers(0, 3)))
        ]
        messages.append(ModelResponse(parts=[TextPart(draw(texts)), *calls]))
        results = [ToolReturnPart("shell", draw(texts) * 3, tool_call_id=each.tool_call_id) for each in calls]
        told = [UserPromptPart(draw(st.sampled_from(["More, please.", notes.EMPTY])))]
        messages.append(ModelRequest(parts=[*results, *(told if draw(st.booleans()) or not results else [])]))
    return messages


def ids(messages, kinds):
    return [part.tool_call_id for message in messages for part in message.parts if isinstance(part, kinds)]


@given(conversations(), st.integers(0, 20_000))
def test_every_call_keeps_its_result_and_every_word_of_the_user_stays(messages, late_bytes):
    cleared = compaction.clear_results(messages).messages
    parts = compaction.split(cleared, late_bytes=late_bytes)
    joined = cleared if parts is None else parts.join(f"{summary.SUMMARY} all of it")

    for made in (cleared, joined):
        assert ids(made, ToolCallPart) == ids(made, ToolReturnPart)
        assert isinstance(made[0], ModelRequest)
        assert isinstance(made[-1], ModelRequest)
        kinds = [type(message) for message in made]
        assert all(one is not other for one, other in itertools.pairwise(kinds))
    said = [part.content for message in messages for part in message.parts if isinstance(part, UserPromptPart)]
    kept = [part.content for message in joined for part in message.parts if isinstance(part, UserPromptPart)]
    users = [content for content in said if not notes.is_note(content)]
    assert [content for content in kept if content in users] == users


@given(conversations())
def test_clearing_never_makes_it_larger(messages):
    assert compaction.count_bytes(compaction.clear_results(messages).messages) <= compaction.count_bytes(messages)


@given(conversations(), st.integers(100, 5000))
def test_the_record_is_bounded(messages, most):
    record = summary.record(messages, [], most_characters=most)

    assert len(record) <= most + 60
    for line in record.splitlines():
        assert set(json.loads(line)) <= {"role", "tool", "text"}


def test_answers_of_the_user_to_questions_are_neither_cleared_nor_summarised():
    """They are the user's words, though they come as a call's result; that nobody answered is none."""

    def asked(number, result):
        call_ = ToolCallPart("ask_user", {"question": "Which?"}, f"call_{number}")
        return [
            ModelResponse(parts=[call_]),
            ModelRequest(parts=[ToolReturnPart("ask_user", result, f"call_{number}")]),
        ]

    answer = f"{notes.ANSWERED}\nGreen. {LONG}"
    worked = [message for number in range(2, 20) for message in asked(number, f"Nobody answered. {LONG}")]
    messages = [ModelRequest(parts=[UserPromptPart(GOAL)]), *asked(1, answer), *worked]

    cleared = compaction.clear_results(messages)
    parts = compaction.split(messages, late_bytes=2 * len(LONG))

    assert cleared.count == 18 - compaction.KEPT_RESULTS
    assert cleared.messages[2].parts[0].content == answer
    assert [part.content for part in parts.kept] == [GOAL, answer]
