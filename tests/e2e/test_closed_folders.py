"""A command may close its task's folders to its own user; the run goes on, and the files can be had."""

from tests.support.waiting import wait_until

GOAL = """```bash
mkdir inner && echo hello > inner/file && chmod 644 inner && chmod 000 . && echo closed
```
```bash
echo again
```"""


def test_run_goes_on_in_a_folder_that_a_command_has_closed(client):
    task_id = client.create_task(GOAL)["id"]

    events = list(client.stream_task_updates(task_id))

    assert events[-1]["status"] == "completed", events[-1]
    output = "".join(event["delta"] for event in events if event["type"] == "tool.output")
    assert output.split() == ["closed", "again"]
    assert [file["path"] for file in events[-1]["files"]] == ["inner/file"]
    assert client.get_file_content(task_id, "inner/file").text == "hello\n"
    client.delete_task(task_id)
    wait_until(lambda: all(task["id"] != task_id for task in client.list_tasks()))
