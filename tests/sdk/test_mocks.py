"""What people test their own programs with goes on working: `responses`, `requests_mock`, `unittest.mock`."""

from collections.abc import Iterator
from unittest.mock import patch

import pytest
import requests
import requests_mock
import responses

from beray.client import BeRayClient
from beray.exceptions import ConnectionFailed, NotFoundError, RequestTimeout
from beray.protocol.sse import encode_event

API = "http://beray.test/api/v1"
STREAM = encode_event(1, "text.delta", b'{"seq":1,"type":"text.delta"}') + encode_event(
    2, "task.finished", b'{"seq":2,"type":"task.finished"}'
)


@pytest.fixture
def mocked(waits: list[float]) -> Iterator[BeRayClient]:
    """A client of a server that is not there."""
    with BeRayClient("http://beray.test", "t0k") as client:
        yield client


@responses.activate
def test_responses_answers_calls_streams_and_files(mocked: BeRayClient) -> None:
    responses.get(f"{API}/tasks/3", json={"id": 3})
    responses.post(f"{API}/tasks/", json={"id": 4}, status=201)
    responses.get(f"{API}/tasks/3/stream", body=STREAM, content_type="text/event-stream")
    responses.get(f"{API}/tasks/3/files/content", body=b"content")

    assert mocked.get_task(3) == {"id": 3}
    assert mocked.create_task("g") == {"id": 4}
    assert [update["seq"] for update in mocked.stream_task_updates(3)] == [1, 2]
    assert mocked.get_file_content(3, "a").content == b"content"

    assert [call.request.headers["Authorization"] for call in responses.calls] == ["Bearer t0k"] * 4
    assert responses.calls[3].request.params == {"path": "a"}


@responses.activate
def test_responses_fails_as_a_server_would(mocked: BeRayClient, waits: list[float]) -> None:
    responses.get(f"{API}/tasks/3", status=503)
    responses.get(f"{API}/tasks/3", body=requests.ConnectionError("cut"))
    responses.get(f"{API}/tasks/3", json={"detail": "no"}, status=404)

    with pytest.raises(NotFoundError):
        mocked.get_task(3)
    with pytest.raises(ConnectionFailed):
        mocked.get_task(4)

    assert len(responses.calls) == 6
    assert len(waits) == 4


def test_requests_mock_answers_calls_streams_and_files(mocked: BeRayClient) -> None:
    with requests_mock.Mocker() as server:
        server.get(f"{API}/tasks/3", json={"id": 3})
        server.post(f"{API}/tasks/", json={"id": 4}, status_code=201)
        server.get(f"{API}/tasks/3/stream", content=STREAM, headers={"Content-Type": "text/event-stream"})
        server.get(f"{API}/tasks/3/files/content", content=b"content")

        assert mocked.get_task(3) == {"id": 3}
        assert mocked.create_task("g") == {"id": 4}
        assert [update["seq"] for update in mocked.stream_task_updates(3)] == [1, 2]
        assert mocked.get_file_content(3, "a").content == b"content"

        assert [request.headers["Authorization"] for request in server.request_history] == ["Bearer t0k"] * 4
        assert server.request_history[1].json()["goal"] == "g"


def test_requests_mock_fails_as_a_server_would(mocked: BeRayClient) -> None:
    with requests_mock.Mocker() as server:
        server.get(f"{API}/tasks/3", [{"status_code": 503}, {"status_code": 404, "json": {"detail": "no"}}])
        server.get(f"{API}/tasks/4", exc=requests.ReadTimeout)

        with pytest.raises(NotFoundError):
            mocked.get_task(3)
        with pytest.raises(RequestTimeout):
            mocked.get_task(4)

        assert server.call_count == 5


@pytest.mark.parametrize(
    "target", ["requests.Session.send", "requests.Session.request", "requests.adapters.HTTPAdapter.send"]
)
def test_what_people_patch_in_their_tests_is_still_called(target):
    response = requests.Response()
    response.status_code = 200
    response._content = b'{"patched": true}'
    response.url = "http://nowhere.invalid/"
    with patch(target, return_value=response), BeRayClient("http://nowhere.invalid") as client:
        assert client.get_info() == {"patched": True}
