"""Records the event logs in `tests/streams/` anew: real tasks on a real server, their model playing scripts.

uv run python -m tests.support.record_streams [NAME…]

Beside each log stands what it comes to (`told_state.py`). Look at the difference before you commit it.
"""

import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beray.client import BeRayClient
from tests.support.scripted_model import HELLO, Reply, Script, ScriptedModel, call, failure, sequence, turns
from tests.support.server import ServerProcess
from tests.support.told_state import told_state

STREAMS = Path(__file__).parents[1] / "streams"
COLOURS = r"printf '\033[31mred\033[0m and \033[1;32mgreen\033[0m\n'; echo oops >&2; exit 3"


@dataclass
class Stage:
    """A server with a scripted model, and one person's task."""

    server: ServerProcess
    client: BeRayClient
    task_id: int = 0
    events: list[Any] = field(default_factory=list)

    def begin(self, goal: str) -> None:
        self.task_id = self.client.create_task(goal)["id"]

    def until(self, type: str) -> Any:
        """Take events until one of this type has come; it."""
        after = self.events[-1]["seq"] if self.events else 0
        for event in self.client.stream_task_updates(self.task_id, after=after):
            self.events.append(event)
            if event["type"] == type:
                return event
        raise AssertionError(f"no {type} in {[event['type'] for event in self.events]}")

    def restart(self) -> None:
        """Kill the server, as a crash would, and start it again."""
        self.server.kill()
        self.server.port = int(self.server.base_url.rpartition(":")[2])
        self.server.start()


@dataclass(frozen=True)
class Recording:
    """How a log comes about."""

    script: Script
    play: Callable[[Stage], None]
    settings: dict[str, object] = field(default_factory=dict)


def plainly(goal: str) -> Callable[[Stage], None]:
    """A task that is left alone."""

    def play(stage: Stage) -> None:
        stage.begin(goal)
        stage.until("task.finished")

    return play


PLAN = ("Write the greeting", "Ask which one", "Report")


def plan(done: int) -> dict[str, Any]:
    statuses = ["done"] * done + ["doing"] + ["todo"] * 2
    return call("update_plan", items=[{"text": step, "status": statuses[at]} for at, step in enumerate(PLAN)])


TALK = turns(
    Reply(["I plan ", "first."], calls=[plan(0)]),
    Reply(calls=[call("write_file", path="./greeting.txt", content="hello\n"), {**plan(1), "id": "b"}]),
    Reply(calls=[call("ask_user", question="Which language?", choices=["中文", "English"])]),
    Reply(
        calls=[call("edit_file", path="greeting.txt", old="hello", new="你好"), call("shell", command=COLOURS, id="b")]
    ),
    Reply(calls=[plan(3)]),
    Reply(["**Done**: ", "the greeting is 你好."]),
)


def talk(stage: Stage) -> None:
    stage.begin("Greet me, and ask before you choose a language.")
    asked = stage.until("input.requested")
    stage.client.send_message(stage.task_id, "中文", question_id=asked["question_id"])
    stage.until("task.finished")


def stop(stage: Stage) -> None:
    stage.begin("Wait for long.")
    stage.until("tool.output")
    stage.client.stop_task(stage.task_id)
    stage.until("task.finished")


def two_runs(stage: Stage) -> None:
    stage.begin("Write hello.py and run it.")
    stage.until("task.finished")
    stage.client.send_message(stage.task_id, "Now delete it again.")
    stage.until("task.finished")


def takeover(stage: Stage) -> None:
    stage.begin("Go on whatever happens.")
    stage.until("tool.output")
    stage.restart()
    stage.until("task.finished")


def long_work(request: dict[str, Any], number: int) -> Reply:
    """Steps with long results, until the conversation has had to be shortened."""
    size = sum(len(str(message)) for message in request["messages"])
    usage = (size // 4, 20)
    if "record of an agent's work" in str(request["messages"][0]["content"]):
        return Reply("So far: some steps were counted.", usage=usage)
    if number >= 16:
        return Reply("All is counted.", usage=usage)
    command = f"echo step {number}; head -c 4000 /dev/zero | tr '\\0' x"
    return Reply(calls=[call("shell", command=command)], usage=usage)


RECORDINGS = {
    "hello": Recording(HELLO, plainly("Write hello.py that prints hello world, and run it.")),
    "talk": Recording(TALK, talk),
    "stop": Recording(turns(Reply(calls=[call("shell", command="echo begun; sleep 300")])), stop),
    "failure": Recording(
        turns(Reply("I begin.", calls=[call("list_files")]), failure(401, "bad key")), plainly("Fail, please.")
    ),
    "two-runs": Recording(
        turns(
            *(HELLO({"messages": [{"role": "assistant"}] * at}, at) for at in range(3)),
            Reply(calls=[call("shell", command="rm hello.py")]),
            Reply("hello.py is gone."),
        ),
        two_runs,
    ),
    "cut": Recording(
        sequence(Reply(["This ", "will ", "be ", "cut."], cuts_after=3, pause_seconds=0.1), Reply(["Whole ", "now."])),
        plainly("Say something."),
    ),
    "compaction": Recording(long_work, plainly("Count all the things."), {"model_context_tokens": 14_000}),
    "takeover": Recording(
        turns(Reply(["I ", "begin."], calls=[call("shell", command="echo begun; sleep 300")]), Reply("I went on.")),
        takeover,
    ),
}


@contextmanager
def staged(recording: Recording, folder: Path) -> Iterator[Stage]:
    with ScriptedModel(recording.script) as model:
        server = ServerProcess(
            folder / "data",
            model="openai:scripted",
            model_base_url=model.base_url,
            model_api_key="key",
            **recording.settings,
        )
        try:
            token = server.start().register("somebody@example.com")
            with BeRayClient(server.base_url, token=token) as client:
                yield Stage(server, client)
        finally:
            server.kill()


def record(name: str) -> None:
    """Write the log and what it comes to."""
    with tempfile.TemporaryDirectory(prefix="beray-record-") as folder:
        Path(folder).chmod(0o711)
        with staged(RECORDINGS[name], Path(folder)) as stage:
            RECORDINGS[name].play(stage)
            text = "".join(
                json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n" for event in stage.events
            )
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1", text)
    events = [json.loads(line) for line in text.splitlines()]
    STREAMS.mkdir(exist_ok=True)
    (STREAMS / f"{name}.jsonl").write_text(text, encoding="utf-8")
    expected = json.dumps(told_state(events), ensure_ascii=False, indent=2)
    (STREAMS / f"{name}.expected.json").write_text(expected + "\n", encoding="utf-8")
    print(f"{name}: {len(events)} events")


if __name__ == "__main__":
    for wanted in sys.argv[1:] or RECORDINGS:
        record(wanted)
