"""The server is killed again and again, at random points of its work: nothing that was accepted or seen is lost."""

import random
import sqlite3
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest
import requests

from tests.support.rounds import rounds, seeded
from tests.support.server import ServerProcess
from tests.support.witness import STALLED_SECONDS, Witness, event_of, read_frames, seq_of

ROUNDS = rounds(short=4)
MOST_EVENTS = 60  # a round ends after at most so many; 0: as soon as the server is ready again
TASKS_AT_ONCE = 4
STEPS = 4
ENDED = {"completed", "failed", "stopped"}


@dataclass
class TaskStory:
    """What the test knows of one task it asked for.

    Attributes:
        task_id: None while the request that makes it has not been answered.
        uploads: Contents sent as its file `up`, and how many of them were confirmed.
        is_stopped: A stop was answered so.
        is_doomed: Its deletion was asked for.
        is_gone: Its deletion was confirmed.
    """

    number: int
    task_id: int | None = None
    answer: bytes = b""
    uploads: list[bytes] = field(default_factory=list)
    confirmed: int = 0
    is_stopped: bool = False
    is_doomed: bool = False
    is_gone: bool = False

    @property
    def goal(self) -> str:
        slow = "for i in 1 2 3; do echo $i; sleep 0.03; done"
        blocks = (f"```bash\necho {self.number}-{step} >> log; {slow}\n```" for step in range(STEPS))
        return "\n".join(blocks)

    @property
    def lines(self) -> list[str]:
        return [f"{self.number}-{step}" for step in range(STEPS)]


class KilledError(Exception):
    """The server was killed under the request."""


class User:
    """Makes, uploads to, stops and deletes tasks as chance has it, until the server is killed under them."""

    def __init__(self, token: str, chance: random.Random) -> None:
        self.stories: list[TaskStory] = []
        self.witness = Witness()
        self.is_killed = threading.Event()
        self.token = token
        self.url = ""
        self.faults: list[str] = []
        self._chance = chance

    @property
    def active(self) -> list[TaskStory]:
        return [
            story
            for story in self.stories
            if story.task_id is not None and not story.is_doomed and story.task_id not in self.witness.ended
        ]

    def begin(self, url: str) -> None:
        """A server is there again: watch what goes on."""
        self.url = url
        self.is_killed.clear()
        for story in self.active:
            self._watch(story, from_start=self._chance.random() < 0.5)

    def work(self) -> None:
        """Until the server is killed."""
        try:
            self.settle()
            while not self.is_killed.is_set():
                while len(self.active) < TASKS_AT_ONCE:
                    self._create(TaskStory(len(self.stories)))
                self._act()
                self._look_on(events=self._chance.randrange(12))
        except KilledError:
            pass
        except Exception as error:  # the test's main thread tells
            self.faults.append(repr(error))

    def settle(self) -> None:
        """Ask again for what was not answered."""
        for story in self.stories:
            if story.task_id is None:
                self._create(story)
            elif story.is_doomed and not story.is_gone:
                self._delete(story)

    def _look_on(self, *, events: int) -> None:
        seen = self.witness.count + events
        self.witness.wait_for(
            lambda: self.witness.count >= seen or len(self.active) < TASKS_AT_ONCE or self.is_killed.is_set(),
            what="events, or the end of a task",
        )

    def _act(self) -> None:
        story = self._chance.choice(self.active)
        match self._chance.randrange(6):
            case 0:
                self._stop(story)
            case 1:
                self._delete(story)
            case 2 | 3:
                self._upload(story)
            case _:
                self._create(TaskStory(len(self.stories)))

    def _create(self, story: TaskStory) -> None:
        if story not in self.stories:
            self.stories.append(story)
        answer = self.request_creation(story)
        story.task_id = answer.json()["id"]
        story.answer = answer.content
        self._watch(story)

    def request_creation(self, story: TaskStory) -> requests.Response:
        headers = {"Idempotency-Key": f"story-{story.number}"}
        return self.ask("POST", "/tasks/", expected={201}, json={"goal": story.goal}, headers=headers)

    def _watch(self, story: TaskStory, *, from_start: bool = False) -> None:
        assert story.task_id is not None
        self.witness.watch(self.url, self.token, story.task_id, from_start=from_start)

    def _stop(self, story: TaskStory) -> None:
        answer = self.ask("POST", f"/tasks/{story.task_id}/stop", expected={200, 409})
        story.is_stopped = answer.json()["status"] == "stopped"

    def _delete(self, story: TaskStory) -> None:
        asked_before, story.is_doomed = story.is_doomed, True
        answer = self.ask("DELETE", f"/tasks/{story.task_id}", expected={200, 503} | ({404} if asked_before else set()))
        story.is_gone = answer.status_code != 503

    def _upload(self, story: TaskStory) -> None:
        content = f"{story.number}: upload {len(story.uploads)}\n".encode() * self._chance.randrange(1, 5000)
        story.uploads.append(content)
        path = f"/tasks/{story.task_id}/files/content?path=up"
        self.ask("PUT", path, expected={200, 201}, data=content)
        story.confirmed = len(story.uploads)

    def ask(self, method: str, path: str, *, expected: set[int], **options: Any) -> requests.Response:
        """The answer; anything unexpected is a failure, and no answer is one unless the server was killed."""
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        try:
            answer = requests.request(
                method, f"{self.url}/api/v1{path}", headers=headers, timeout=STALLED_SECONDS, **options
            )
        except requests.RequestException as error:
            if self.is_killed.wait(STALLED_SECONDS):
                raise KilledError from error
            raise
        assert answer.status_code in expected, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer


@pytest.mark.timeout(60 + 30 * ROUNDS)
def test_server_killed_in_many_rounds_loses_nothing(make_server):
    seed, chance = seeded()
    print(f"BERAY_TEST_SEED={seed}")
    server: ServerProcess = make_server(max_running_tasks_per_user=TASKS_AT_ONCE, max_streams_per_user=100).start()
    user = User(server.register("a@example.com"), chance)

    for _ in range(ROUNDS):
        play_round(server, user, kills_after=chance.randrange(MOST_EVENTS))
        server.start()
    user.begin(server.base_url)
    user.settle()
    user.witness.join()

    assert (user.faults, user.witness.faults) == ([], [])
    print(f"{len(user.stories)} tasks, {user.witness.count} events seen, {user.witness.repeated} times one again")
    assert user.witness.count > ROUNDS * STEPS, "there was something to lose"
    kept = [story for story in user.stories if not story.is_gone]
    listed = user.ask("GET", "/tasks/", expected={200}).json()
    assert sorted(task["id"] for task in listed) == sorted(story.task_id for story in kept)
    assert len({story.task_id for story in user.stories}) == len(user.stories), "no id is used twice"
    for story in user.stories:
        if story.is_gone:
            user.ask("GET", f"/tasks/{story.task_id}", expected={404})
            assert not (server.data_dir / "tasks" / str(story.task_id)).exists()
        else:
            check_story(user, story)
    assert server.stop() == 0
    assert integrity_of(server) == "ok"


def play_round(server: ServerProcess, user: User, *, kills_after: int) -> None:
    """Kill the server in the middle of its work, once so many further events have been seen."""
    witness = user.witness
    until = witness.count + kills_after
    user.begin(server.base_url)
    working = threading.Thread(target=user.work, daemon=True)
    working.start()
    witness.wait_for(lambda: witness.count >= until or bool(user.faults), what=f"{kills_after} events")
    server.kill()
    user.is_killed.set()
    witness.note()
    working.join(STALLED_SECONDS)
    assert not working.is_alive(), "the user did not notice that the server was killed"
    witness.join()
    assert (user.faults, witness.faults) == ([], [])


def check_story(user: User, story: TaskStory) -> None:
    """The task ended once, its log has no gap, and is what was seen; no step ran twice; uploads are there."""
    assert story.task_id is not None
    frames = list(read_frames(user.url, user.token, story.task_id))
    events = [event_of(frame) for frame in frames]
    assert [seq_of(frame) for frame in frames] == list(range(1, len(frames) + 1))
    seen = {seq: frame for (task_id, seq), frame in user.witness.frames.items() if task_id == story.task_id}
    assert {seq: frame for seq, frame in enumerate(frames, start=1) if seq in seen} == seen
    types = [event["type"] for event in events]
    assert (types.count("task.created"), types.count("task.finished"), types[-1]) == (1, 1, "task.finished")

    task = user.ask("GET", f"/tasks/{story.task_id}", expected={200}).json()
    assert task["status"] in ENDED
    for name in ("status", "result", "error"):
        assert events[-1][name] == task[name]
    assert task["status"] == "stopped" or not story.is_stopped
    assert task["error"] is None or task["error"]["code"] == "rules_step_failed", (
        "a command that was cut, no fault of ours"
    )
    assert user.request_creation(story).content == story.answer, "its key is still known"

    found = user.ask("GET", f"/tasks/{story.task_id}/files/content?path=log", expected={200, 404})
    lines = found.text.split() if found.status_code == 200 else []
    assert lines == story.lines[: len(lines)], "each step at most once, and in order"
    if task["status"] == "completed":
        assert lines == story.lines
    if story.uploads:
        check_upload(user, story)


def check_upload(user: User, story: TaskStory) -> None:
    """The last confirmed content, or one sent after it and cut by a kill; never a part of one."""
    possible = story.uploads[max(story.confirmed - 1, 0) :]
    found = user.ask("GET", f"/tasks/{story.task_id}/files/content?path=up", expected={200, 404})
    if found.status_code == 404:
        assert story.confirmed == 0
    else:
        assert found.content in possible


def integrity_of(server: ServerProcess) -> str:
    database = sqlite3.connect(server.data_dir / "beray.db")
    try:
        answer: str = database.execute("PRAGMA integrity_check").fetchone()[0]
        return answer
    finally:
        database.close()
