"""Whole outputs of tool calls over HTTP: written as the agent writes them, read by their owner."""

from collections.abc import Iterator

import pytest
import requests

from beray.server.agent.tools import output as output_module
from beray.server.agent.tools.output import OutputLog
from tests.server.files.files_server import STRANGER, FilesServer, TaskFiles, code_of

CALL = "call_1_2_0"


@pytest.fixture
def log(files_server: FilesServer, task: TaskFiles) -> Iterator[OutputLog]:
    """Of the task's call."""
    log = OutputLog(str(files_server.work_dirs.output_dir(task.id)), CALL)
    yield log
    log.close()


def ask(task: TaskFiles, call_id: str = CALL, method: str = "GET", **headers: str) -> requests.Response:
    url = f"{task.url.removesuffix('/files')}/output/{call_id}"
    return task.session.request(method, url, headers=headers, timeout=30)


def test_output_is_a_download_of_plain_text(task: TaskFiles, log: OutputLog) -> None:
    log.write("输出\x1b[31m <script>\n".encode())

    answer = ask(task)

    assert (answer.status_code, answer.content.decode()) == (200, "输出\x1b[31m <script>\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-disposition"] == f'attachment; filename="task-{task.id}-{CALL}.log"'
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert "beray-truncated" not in answer.headers
    assert ask(task, **{"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert code_of(ask(task, **{"If-Match": '"x"'})) == "precondition_failed"


def test_part_of_an_output_is_given_and_head_has_no_body(task: TaskFiles, log: OutputLog) -> None:
    log.write(b"0123456789")

    part, head = ask(task, Range="bytes=2-4"), ask(task, method="HEAD")

    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    assert code_of(ask(task, Range="bytes=10-")) == "range_not_satisfiable"
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "10")


def test_output_grows_while_its_call_runs(task: TaskFiles, log: OutputLog) -> None:
    log.write(b"first\n")
    before = ask(task)
    log.write(b"second\n")
    after = ask(task)
    log.close()

    assert (before.content, after.content) == (b"first\n", b"first\nsecond\n")
    assert before.headers["etag"] != after.headers["etag"]
    assert ask(task, Range=f"bytes={len(before.content)}-").content == b"second\n"


@pytest.mark.parametrize(
    ("pieces", "kept", "is_cut"),
    [
        ((b"1234",), b"1234", False),
        ((b"12345",), b"1234", True),
        ((b"12", b"34"), b"1234", False),
        ((b"1234", b"5"), b"1234", True),
        ((b"123", b"45", b"6"), b"1234", True),
    ],
)
def test_output_that_was_not_kept_whole_says_so(task: TaskFiles, log: OutputLog, monkeypatch, pieces, kept, is_cut):
    monkeypatch.setattr(log, "_room", 4)
    for piece in pieces:
        log.write(piece)

    answers = [ask(task), ask(task, method="HEAD"), ask(task, Range="bytes=0-1")]

    assert answers[0].content == kept
    assert [answer.headers.get("beray-truncated") for answer in answers] == ["true" if is_cut else None] * 3


def test_output_that_the_disk_did_not_take_says_so(task: TaskFiles, log: OutputLog, monkeypatch) -> None:
    log.write(b"begun")
    monkeypatch.setattr(log, "_append", _full)

    log.write(b" and lost")

    assert (ask(task).content, ask(task).headers["beray-truncated"]) == (b"begun", "true")


def _full(pieces: list[bytes]) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    "call_id",
    [
        "call_9_9_9",
        "nothing",
        ".",
        "..",
        "%2e%2e",
        "a%00b",
        "call_1_2_0.log",
        "call_1_2_0%0a",
        "..%2fwork%2fx",
        "%2fetc%2fpasswd",
        "work",
        "x" * 300,
        "调用",
        "%ff",
    ],
)
def test_what_names_no_output_is_not_found(task: TaskFiles, log: OutputLog, call_id: str) -> None:
    log.write(b"output")
    (task.folder / "x").write_text("a file of the work_dir")

    answer = ask(task, call_id)

    assert answer.status_code == 404
    assert code_of(answer) in {"output_not_found", "not_found"}


def test_call_that_printed_nothing_has_no_output(task: TaskFiles, log: OutputLog) -> None:
    log.flush()
    log.close()

    answer = ask(task)

    assert code_of(answer) == "output_not_found"
    assert answer.json()["detail"] == f"There is no kept output of call {CALL} of task {task.id}."


def test_output_of_somebody_elses_task_is_not_found(task: TaskFiles, log: OutputLog) -> None:
    log.write(b"secret")

    assert code_of(ask(task, Authorization=f"Bearer {STRANGER.email}")) == "task_not_found"
    assert code_of(ask(task, Authorization="")) == "not_authenticated"


def test_output_goes_with_its_task(files_server: FilesServer, task: TaskFiles, log: OutputLog) -> None:
    log.write(b"output")

    files_server.work_dirs.delete(task.id)

    assert code_of(ask(task)) == "output_not_found"


def test_link_among_the_outputs_is_not_followed(files_server: FilesServer, task: TaskFiles) -> None:
    """Nothing puts one there; it would be a way out."""
    folder = files_server.work_dirs.output_dir(task.id)
    (folder / "link.log").symlink_to("/etc/passwd")

    assert code_of(ask(task, "link")) == "output_not_found"


def test_nobody_holds_what_was_read(files_server: FilesServer, task: TaskFiles, log: OutputLog) -> None:
    log.write(b"output")
    log.close()

    for headers in ({}, {"If-None-Match": "*"}, {"If-Match": '"x"'}, {"Range": "bytes=99-"}):
        ask(task, **headers)
    ask(task, method="HEAD")

    assert files_server.open_descriptors() == set()


def test_log_is_bounded() -> None:
    assert output_module.LOG_BYTES == 16 << 20
