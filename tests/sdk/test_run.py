"""`run`: from a goal to its result in one call, on both clients."""

import json
from pathlib import Path
from typing import Any

import pytest

from beray import BeRayClient, ConnectionFailed, TaskFailed, UnprocessableEntityError, WaitTimeout
from beray.protocol.sse import encode_event
from tests.support.loopback import Answer, Exchange, LoopbackServer, drop, reply

USAGE = {"requests": 1, "tool_calls": 1, "input_tokens": None, "output_tokens": None, "cost_usd": None}
FILES = [{"path": "out.txt", "size": 3}]


def task(status: str, **more: Any) -> dict[str, Any]:
    return {
        "id": 7,
        "goal": "sort",
        "status": status,
        "last_seq": 2,
        "result": None,
        "error": None,
        "usage": USAGE,
        **more,
    }


def event(seq: int, type: str, **fields: Any) -> dict[str, Any]:
    return {"seq": seq, "type": type, **fields}


def stream(*events: dict[str, Any]) -> Answer:
    body = b"".join(encode_event(one["seq"], one["type"], json.dumps(one).encode()) for one in events)

    def answer(exchange: Exchange) -> None:
        exchange.begin(200, {"Content-Type": "text/event-stream", "Content-Length": str(len(body))})
        exchange.wfile.write(body)

    return answer


def finished(status: str = "completed", **more: Any) -> tuple[Answer, Answer]:
    """A stream to its end, and the task then."""
    end = event(2, "task.finished", status=status, files=FILES, files_total=1)
    return stream(event(1, "task.started"), end), reply(200, task(status, events=[end], **more))


def asked(peer: LoopbackServer) -> list[str]:
    return [f"{one.method} {one.path.removeprefix('/api/v1/tasks')}" for one in peer.received]


def test_a_goal_becomes_a_result(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    seen: list[str] = []
    peer.script(reply(201, task("queued")), *finished(result="all sorted"))

    result = peer_client.run("sort", ["shell"], model="m", on_event=lambda one: seen.append(one["type"]))

    assert (result.id, result.status, result.ok, result.text) == (7, "completed", True, "all sorted")
    assert result.files == FILES
    assert result.usage == USAGE
    assert result.error is None
    assert result.raise_if_failed() is result
    assert "task 7: completed" in repr(result)
    assert "all sorted" in (result._repr_html_() or "")
    assert seen == ["task.started", "task.finished"]
    assert peer.received[0].json == {"goal": "sort", "tools": ["shell"], "model": "m"}
    assert asked(peer) == ["POST /", "GET /7/stream", "GET /7"]


def test_files_are_there_before_it_begins(peer: LoopbackServer, peer_client: BeRayClient, tmp_path: Path) -> None:
    (tmp_path / "data" / "more").mkdir(parents=True)
    (tmp_path / "data" / "a.txt").write_text("a")
    (tmp_path / "data" / "more" / "b.txt").write_text("b")
    (tmp_path / "notes.md").write_text("n")
    peer.script(reply(201, task("queued")), *[reply(201, {})] * 3, reply(200, task("queued")), *finished())

    told: list[tuple[int, int | None]] = []

    peer_client.run(
        "sort",
        files=[tmp_path / "data", str(tmp_path / "notes.md")],
        progress=lambda done, total: told.append((done, total)),
    )

    assert told[-1] == (3, 3)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert peer.received[0].json["hold"] is True
    assert [one.query.get("path") for one in peer.received[1:4]] == [["data/a.txt"], ["data/more/b.txt"], ["notes.md"]]
    assert [one.body for one in peer.received[1:4]] == [b"a", b"b", b"n"]
    assert asked(peer)[4] == "POST /7/start"


def test_files_may_be_named_by_their_place_in_the_work_dir(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(201, task("queued")), *[reply(201, {})] * 2, reply(200, task("queued")), *finished())

    peer_client.run("sort", files={"in/a.txt": "text", "in/b.bin": b"\xff"})

    assert [(one.query["path"], one.body) for one in peer.received[1:3]] == [
        (["in/a.txt"], b"text"),
        (["in/b.bin"], b"\xff"),
    ]


def test_a_task_that_cannot_have_its_files_is_deleted(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    refused = reply(422, {"detail": "no", "code": "invalid_path"})
    peer.script(reply(201, task("queued")), refused, reply(200, {"message": "gone"}))

    with pytest.raises(UnprocessableEntityError):
        peer_client.run("sort", files={"../a": "x"})

    assert asked(peer) == ["POST /", "PUT /7/files/content", "DELETE /7"]


def test_a_start_whose_answer_was_lost_deletes_nothing(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    """The task may be at work."""
    peer.script(reply(201, task("queued")), reply(201, {}), drop)

    with pytest.raises(ConnectionFailed):
        peer_client.run("sort", files={"a": "x"})

    assert asked(peer)[-1] == "POST /7/start"


def test_a_file_that_is_not_there_is_the_callers_own_error(
    peer: LoopbackServer, peer_client: BeRayClient, tmp_path: Path
) -> None:
    """It is told before a task is made."""
    with pytest.raises(FileNotFoundError):
        peer_client.run("sort", files=[tmp_path / "missing"])

    assert peer.received == []


@pytest.mark.parametrize(("files", "kind"), [("a.txt", TypeError), (["x/a", "y/a"], ValueError)])
def test_files_that_cannot_be_meant_are_refused_before_a_task_is_made(
    peer: LoopbackServer, peer_client: BeRayClient, files: Any, kind: type[Exception]
) -> None:
    with pytest.raises(kind, match="files"):
        peer_client.run("sort", files=files)

    assert peer.received == []


def test_a_failed_task_is_a_result_and_can_be_an_exception(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    error = {"code": "model_failed", "message": "It broke.", "hint": "Try again.", "retryable": True}
    peer.script(reply(201, task("queued")), *finished("failed", error=error))

    result = peer_client.run("sort")

    assert (result.ok, result.text, result.error) == (False, "", error)
    with pytest.raises(TaskFailed, match=r"Task 7 failed \(model_failed\): It broke\. Try again\.") as failure:
        result.raise_if_failed()
    assert (failure.value.task_id, failure.value.code, failure.value.is_retryable) == (7, "model_failed", True)


def test_a_run_that_takes_too_long_goes_on(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    peer.script(reply(201, task("queued")), stream(event(1, "task.started")), reply(200, task("running")))

    with pytest.raises(WaitTimeout) as error:
        peer_client.run("sort", timeout=0)

    assert error.value.task_id == 7
    assert not [one for one in asked(peer) if one.startswith(("DELETE", "POST /7"))]


def test_a_question_is_answered_while_it_runs(peer: LoopbackServer, peer_client: BeRayClient) -> None:
    question = event(1, "input.requested", question_id="q1", question="Which?", choices=["up", "down"])
    end = event(2, "task.finished", status="completed", files=[], files_total=0)
    ended = reply(200, task("completed", events=[end]))
    peer.script(reply(201, task("queued")), stream(question, end), reply(201, task("running")), ended)

    peer_client.run("sort", on_question=lambda one: one["choices"][-1])

    assert peer.received[2].json == {"content": "down", "question_id": "q1"}
