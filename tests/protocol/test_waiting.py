"""Waiting for a task's end as a flow, without a network: a scripted driver answers its effects."""

from typing import Any

import pytest

from beray.exceptions import AuthenticationError, NotFoundError, ProtocolError, RequestTimeout, WaitTimeout
from beray.protocol import waiting
from beray.protocol.effects import Read, Send
from beray.protocol.sse import HEARTBEAT
from beray.protocol.waiting import Attention
from tests.support.scripted_driver import CUT, Driver, Stream, answer, conditions, frame, frames


def task(status: str, **more: Any) -> Any:
    return answer(200, {"id": 7, "status": status, "last_seq": 2, "question": None, **more})


def wait(driver: Driver, attention: Attention | None = None, **given: Any) -> Any:
    return driver.run(waiting.wait(7, conditions(**given), attention or Attention()))


def test_a_task_that_has_ended_is_there_at_once() -> None:
    driver = Driver([task("failed")])

    assert wait(driver)["status"] == "failed"
    assert len(driver.sent) == 1


def test_a_running_task_is_followed_from_where_it_is() -> None:
    driver = Driver([task("running"), Stream([frame(3), frame(4, "task.finished")]), task("completed")])

    assert wait(driver)["status"] == "completed"

    assert driver.resumed_after == ["2"]
    assert driver.emitted == [], "the events are not the caller's"
    assert driver.slept == []


def test_events_are_told_once_across_cuts() -> None:
    seen: list[int] = []
    driver = Driver(
        [
            task("running"),
            Stream([frames(3, 4)], CUT),
            Stream([frames(4, 5), frame(6, "task.finished")]),
            task("completed"),
        ]
    )

    wait(driver, Attention(on_event=lambda event: seen.append(event["seq"])))

    assert seen == [3, 4, 5, 6]


def test_a_further_run_begun_meanwhile_is_waited_for_too() -> None:
    driver = Driver(
        [
            task("running"),
            Stream([frame(3, "task.finished")]),
            task("queued"),
            Stream([frame(4), frame(5, "task.finished")]),
            task("completed"),
        ]
    )

    assert wait(driver)["status"] == "completed"
    assert driver.resumed_after == ["2", "3"]


@pytest.mark.parametrize("status", [404, 405, 429, 501])
def test_a_server_that_streams_nothing_is_asked_now_and_then(status: int) -> None:
    refused = answer(status, {"detail": "no"})
    driver = Driver(
        [task("running"), refused, task("running"), refused, task("running"), refused, task("completed")]
        if status != 429
        else [task("running"), *[refused] * 3, task("completed")]
    )

    assert wait(driver)["status"] == "completed"
    assert driver.slept[-1] == pytest.approx(2.0) if status != 429 else len(driver.slept) == 2


def test_a_task_that_is_gone_is_not_found() -> None:
    gone = answer(404, {"detail": "no"})
    driver = Driver([task("running"), gone, gone])

    with pytest.raises(NotFoundError):
        wait(driver)


def test_a_login_that_ended_is_told() -> None:
    driver = Driver([task("running"), answer(401, {"detail": "no"})])

    with pytest.raises(AuthenticationError):
        wait(driver)


# The time given


def test_time_that_is_over_is_told_and_the_task_goes_on() -> None:
    class Slow(Driver):
        now = 0.0

        def _do(self, effect: Any) -> Any:
            if isinstance(effect, Read):
                self.now += 2.0
            return super()._do(effect)

    driver = Slow([task("running"), Stream([HEARTBEAT], RequestTimeout("silent"))])

    with pytest.raises(WaitTimeout, match="Task 7 has not ended") as error:
        wait(driver, Attention(timeout=4.0), clock=lambda: driver.now)

    assert error.value.task_id == 7
    assert "wait_for_task(7)" in str(error.value)
    assert [send.call.method for send in driver.sent] == ["GET", "GET"], "nothing is stopped"


def test_each_read_ends_with_the_time_given() -> None:
    reads: list[float | None] = []

    class Reading(Driver):
        def _do(self, effect: Any) -> Any:
            if isinstance(effect, Read):
                reads.append(effect.deadline)
            return super()._do(effect)

    wait(
        Reading([task("running"), Stream([frame(3, "task.finished")]), task("completed")]),
        Attention(timeout=4.0),
    )

    assert reads == [4.0, 4.0]


@pytest.mark.parametrize("timeout", [-1, "5", float("nan")])
def test_a_time_that_cannot_be_right_is_refused(timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout must be"):
        wait(Driver([]), Attention(timeout=timeout))


# Questions


QUESTION = {"question_id": "q1", "question": "Which?", "choices": ["a", "b"]}


def asked(seq: int) -> bytes:
    return frame(seq, "input.requested", **QUESTION)


def test_a_question_is_answered_by_the_callers_function() -> None:
    driver = Driver(
        [task("running"), Stream([asked(3), frame(4), frame(5, "task.finished")]), task("running"), task("completed")]
    )

    wait(driver, Attention(on_question=lambda question: question["choices"][1]))

    sent = driver.sent[2].call
    assert (sent.method, sent.path) == ("POST", "/api/v1/tasks/7/messages")
    assert sent.body == b'{"content":"b","question_id":"q1"}'


def test_a_question_that_is_open_already_is_asked_first() -> None:
    driver = Driver(
        [
            task("waiting", question=QUESTION),
            task("running"),
            Stream([frame(3, "task.finished")]),
            task("completed"),
        ]
    )

    wait(driver, Attention(on_question=lambda question: "a"))

    assert driver.sent[1].call.method == "POST"


def test_a_question_may_be_left_to_somebody_else() -> None:
    driver = Driver([task("running"), Stream([asked(3), frame(4, "task.finished")]), task("completed")])

    wait(driver, Attention(on_question=lambda question: None))

    assert all(send.call.method == "GET" for send in driver.sent)


def test_an_answer_that_comes_too_late_is_no_error() -> None:
    late = answer(409, {"detail": "late", "code": "question_closed"})
    driver = Driver([task("running"), Stream([asked(3), frame(4, "task.finished")]), late, task("completed")])

    assert wait(driver, Attention(on_question=lambda question: "a"))["status"] == "completed"


# What ends a wait from outside


def test_an_error_of_a_callback_is_the_callers_own() -> None:
    driver = Driver([task("running"), Stream([frame(3), frame(4)])])

    with pytest.raises(ZeroDivisionError):
        wait(driver, Attention(on_event=lambda event: 1 / 0))


def test_a_refusal_within_a_callback_is_no_word_about_the_stream() -> None:
    driver = Driver([task("running"), Stream([frame(3), frame(4, "task.finished")]), task("completed")])

    def look_for_a_file(event: Any) -> None:
        raise NotFoundError(404, "No such file.")

    with pytest.raises(NotFoundError, match="No such file"):
        wait(driver, Attention(on_event=look_for_a_file))

    assert len(driver.script) == 1, "it was not asked how the task is"


@pytest.mark.parametrize("content", [[], {}, {"status": 7}, "x"])
def test_an_answer_that_is_no_task_is_told(content: Any) -> None:
    with pytest.raises(ProtocolError, match="no task"):
        wait(Driver([answer(200, content)]))


def test_a_silent_server_is_asked_no_longer_than_the_time_given() -> None:
    class Slow(Driver):
        now = 0.0

        def _do(self, effect: Any) -> Any:
            if isinstance(effect, Send):
                self.now = effect.deadline or 1000.0
            return super()._do(effect)

    driver = Slow([task("running"), Stream([frame(3, "task.finished")]), RequestTimeout("silent")])

    with pytest.raises(WaitTimeout):
        wait(driver, Attention(timeout=60.0), clock=lambda: driver.now)

    assert [send.deadline for send in driver.sent] == [60.0, 60.0, 65.0], "the last one asks how it ended"


def test_ctrl_c_leaves_the_task_running_and_says_how_to_come_back() -> None:
    def interrupt(event: Any) -> None:
        raise KeyboardInterrupt

    driver = Driver([task("running"), Stream([frame(3)])])

    with pytest.raises(KeyboardInterrupt) as error:
        wait(driver, Attention(on_event=interrupt))

    assert "wait_for_task(7)" in error.value.__notes__[0]
    assert all(send.call.method == "GET" for send in driver.sent)
