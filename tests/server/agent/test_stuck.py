"""A run that goes round in circles is warned, then ended; one that only looks so is left alone."""

import pytest

from beray.server.agent.models.choice import ModelChoice
from beray.server.agent.stuck import Repeats, StuckRules, fingerprint_of
from tests.support.agent_bench import Crash, CrashAt
from tests.support.scripted_model import Reply, call, sequence, turns

GOAL = "Do it."
RULES = StuckRules()


def choice(server):
    return ModelChoice("openai:scripted", "model", base_url=server.base_url, is_own_url=True)


def again(*calls, before=()):
    """Answers with these calls, in turn, for ever."""
    return sequence(*before, *(Reply(calls=[each]) for _ in range(30) for each in calls))


def warnings_told(server):
    return [
        number
        for number, request in enumerate(server.requests)
        if any("nothing changed" in str(message["content"]) for message in request["messages"])
    ]


@pytest.mark.parametrize(
    ("calls", "warned_after", "ended_after"),
    [
        ([call("shell", command="exit 7")], 3, 5),
        ([call("read_file", path="none.txt")], 3, 5),
        ([call("no_such_tool")], 3, 5),
        ([call("shell", command="echo same")], 4, 6),
        ([call("shell", command="echo a"), call("shell", command="echo b")], 12, 16),
        ([call("shell", command="exit 1"), call("read_file", path="none")], 12, 16),
        ([call("shell", command=f"echo {each}") for each in "abc"], 18, 24),
    ],
    ids=["failing command", "missing file", "unknown tool", "same result", "ping-pong", "failing ping-pong", "threes"],
)
async def test_circles_are_warned_of_once_and_then_ended(bench, scripted, calls, warned_after, ended_after):
    server = scripted(again(*calls))

    outcome = await bench.run(GOAL, model=choice(server))

    assert outcome.error["code"] == "stuck"
    assert outcome.error["hint"]
    assert calls[-1]["name"] in outcome.error["message"] or calls[0]["name"] in outcome.error["message"]
    assert len(server.requests) == ended_after
    assert warnings_told(server)[0] == warned_after
    last = server.requests[-1]["messages"]
    assert sum("nothing changed" in str(message["content"]) for message in last) == 1


async def test_a_model_that_heeds_the_warning_goes_on(bench, scripted):
    def script(request, number):
        is_warned = any("nothing changed" in str(message["content"]) for message in request["messages"])
        return Reply("I stop: it can't be done.") if is_warned else Reply(calls=[call("shell", command="exit 7")])

    outcome = await bench.run(GOAL, model=choice(scripted(script)))

    assert outcome.result == "I stop: it can't be done."


async def test_polling_whose_output_changes_is_left_alone(bench, scripted):
    poll = call("shell", command="echo x >> log; wc -l < log")
    server = scripted(sequence(*[Reply(calls=[poll])] * 12, Reply("Done.")))

    outcome = await bench.run(GOAL, model=choice(server))

    assert outcome.is_completed
    assert warnings_told(server) == []


async def test_mending_between_failing_tests_is_no_circle(bench, scripted):
    turns_ = []
    for number in range(6):
        turns_.append(Reply(calls=[call("write_file", path="a.py", content=f"x = {number}\n")]))
        turns_.append(Reply(calls=[call("shell", command="echo the same failure; exit 1")]))
    server = scripted(sequence(*turns_, Reply("Done.")))

    outcome = await bench.run(GOAL, model=choice(server))

    assert outcome.is_completed
    assert warnings_told(server) == []


async def test_the_count_goes_on_over_a_crash(bench, scripted):
    server = scripted(again(call("shell", command="exit 7")))
    for number in (7, 14):
        bench.crash = CrashAt(number)
        with pytest.raises(Crash):
            await bench.run(GOAL, model=choice(server))
    bench.crash = None

    outcome = await bench.run(GOAL, model=choice(server))

    assert outcome.error["code"] == "stuck"
    ran = [event for event in await bench.events("tool.finished") if event["exit_code"] == 7]
    assert 4 <= len(ran) <= 6  # an interrupted one has another result, and begins a new row


@pytest.mark.parametrize(
    "calls",
    [
        [call("grep", pattern=each) for each in "abcdefgh"],
        [call("read_file", file=each) for each in "abcdefgh"],
        [call("read_file", raw=f"{{{each}") for each in "abcdefgh"],
        [call("shell", command=f"echo {each}") for each in "abcdefgh"],
    ],
    ids=["unknown tool", "wrong arguments", "no JSON", "commands"],
)
async def test_different_calls_in_one_answer_are_no_circle(bench, scripted, calls):
    server = scripted(sequence(Reply(calls=calls), Reply("Done.")))

    outcome = await bench.run(GOAL, model=choice(server))

    assert outcome.result == "Done."
    assert warnings_told(server) == []


@pytest.mark.parametrize("tool", ["shell", "no_such_tool"])
async def test_equal_calls_in_one_answer_are_warned_of_before_anything_ends(bench, scripted, tool):
    many = Reply(calls=[call(tool, command="exit 7")] * 30)
    server = scripted(sequence(many, many))

    outcome = await bench.run(GOAL, model=choice(server))

    assert outcome.error["code"] == "stuck"
    assert warnings_told(server) == [1]
    assert len(await bench.events("tool.finished")) == 30 + RULES.grace


async def test_it_can_be_switched_off(bench, scripted):
    server = scripted(sequence(*[Reply(calls=[call("shell", command="exit 7")])] * 9, Reply("Done.")))

    outcome = await bench.run(GOAL, model=choice(server), stuck=None)

    assert outcome.is_completed


async def test_answers_cut_at_their_length_are_monologues(bench, scripted):
    server = scripted(sequence(Reply("On and on", finish_reason="length")))

    outcome = await bench.run(GOAL, model=choice(server))

    assert outcome.error["code"] == "stuck"
    assert len(server.requests) == RULES.monologues
    assert "cut at the length limit" in str(server.requests[-1]["messages"][-1]["content"])


async def test_answers_that_stay_cut_end_the_run_where_nothing_is_called_stuck(bench, scripted):
    server = scripted(sequence(Reply("On and on", finish_reason="length")))

    outcome = await bench.run(GOAL, model=choice(server), stuck=None)

    assert (outcome.error["code"], len(server.requests)) == ("model_output_cut", RULES.monologues)


@pytest.mark.parametrize("rules", [RULES, None])
async def test_cut_answers_with_work_between_them_are_no_monologue(bench, scripted, rules):
    cut = Reply("On and on", finish_reason="length")
    work = [Reply(calls=[call("shell", command=f"echo {number}")]) for number in range(4)]
    server = scripted(sequence(*(each for reply in work for each in (cut, reply)), Reply("Done.")))

    outcome = await bench.run(GOAL, model=choice(server), stuck=rules)

    assert outcome.result == "Done."


async def test_text_while_the_plan_is_open_is_asked_once_more(bench, scripted):
    plan = call("update_plan", items=[{"text": "one", "status": "done"}, {"text": "two", "status": "todo"}])
    server = scripted(sequence(Reply(calls=[plan]), Reply("Now I do two:"), Reply("That is all there is.")))

    outcome = await bench.run(GOAL, model=choice(server))

    assert outcome.result == "That is all there is."
    assert "your plan has steps" in str(server.requests[-1]["messages"][-1]["content"])
    assert [event["text"] for event in await bench.events("text.done")] == ["Now I do two:", "That is all there is."]


async def test_text_with_the_plan_done_ends_the_task(bench, scripted):
    plan = call("update_plan", items=[{"text": "one", "status": "done"}])

    outcome = await bench.run(GOAL, model=choice(scripted(turns(Reply(calls=[plan]), Reply("All done.")))))

    assert outcome.result == "All done."


def test_a_call_between_begins_anew():
    repeats = Repeats()
    verdicts = [repeats.note_call(each, ok=False, rules=RULES)[0] for each in "aabaabaa"]

    assert verdicts == ["fine"] * 8


def test_a_second_circle_is_warned_of_again():
    repeats = Repeats()

    verdicts = [repeats.note_call(each, ok=False, rules=RULES)[0] for each in "aaabcccdddd"]

    assert verdicts.count("warn") == 3
    assert "stuck" not in verdicts


def test_nothing_ends_before_the_warning_is_told():
    repeats = Repeats()
    verdicts = [repeats.note_call("a", ok=True, rules=RULES)[0] for _ in range(50)]
    repeats.warn("shell", {}, 4)
    repeats.take_warning()
    after = [repeats.note_call("a", ok=True, rules=RULES)[0] for _ in range(RULES.grace)]

    assert (verdicts.count("warn"), verdicts.count("stuck")) == (1, 0)
    assert after == ["fine", "stuck"]


def test_what_breaks_a_circle_in_threes():
    repeats = Repeats()
    almost = "abcabcabcabcabcab"
    verdicts = {repeats.note_call(each, ok=True, rules=RULES)[0] for each in f"{almost}d{almost}"}

    assert verdicts == {"fine"}


def running(seconds, printed="(no output)"):
    return f"bg-1: running, {seconds} s, sleep 999\n{printed}"


def test_how_long_a_background_command_has_run_makes_no_difference():
    output, list_ = {"action": "output", "id": "bg-1"}, {"action": "list"}

    def known_as(args, result):
        return fingerprint_of("background", args, result, ok=True)

    assert known_as(output, running(3)) == known_as(output, running(12))
    assert known_as(output, running(3, "a")) != known_as(output, running(3, "b"))
    assert known_as(output, running(3, running(3))) != known_as(output, running(3, running(4)))
    assert known_as(list_, running(3, running(3))) == known_as(list_, running(4, running(5)))
    assert known_as(output, "bg-1: running, 3 s, x") != known_as(output, "bg-1: exit code 0, 3 s, x")


def test_how_long_a_command_took_makes_no_difference():
    first = fingerprint_of("shell", {"command": "x"}, "exit code 1 (0.1 s)\nE in 0.12s", ok=False)

    assert first == fingerprint_of("shell", {"command": "x"}, "exit code 1 (0.7 s)\nE in 1.5s", ok=False)
    assert first != fingerprint_of("shell", {"command": "x"}, "exit code 2 (0.1 s)\nE in 0.12s", ok=False)
    assert fingerprint_of("shell", {}, "exit code 0 (0.1 s)\n5 s left", ok=True) != fingerprint_of(
        "shell", {}, "exit code 0 (0.1 s)\n4 s left", ok=True
    )
