"""Messages from the event that makes them to the receiver that takes them, whatever happens in between."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from functools import partial

import pytest
from sqlalchemy import Connection, text

from beray.protocol.webhook_signature import secret_of
from beray.server.agent.models.choice import ModelChoice
from beray.server.audit import AuditTrail
from beray.server.clock import DAY_MS
from beray.server.db import tasks as task_queries
from beray.server.db import webhooks as queries
from beray.server.db.auth import UserRow
from beray.server.db.connect import Database
from beray.server.db.webhooks import Attempted
from beray.server.errors import Refused
from beray.server.events.log import EventLog, NewEvent
from beray.server.events.wakeups import Wakeups
from beray.server.tasks.conversation import Conversation
from beray.server.tasks.view import task_view
from beray.server.webhooks import delivery as delivery_module
from beray.server.webhooks import messages as messages_module
from beray.server.webhooks.delivery import AT_ONCE_OF_USER, AT_ONCE_TO_HOST, Deliveries
from beray.server.webhooks.messages import TEXT_MOST, Announcer
from beray.server.webhooks.reach import Reach
from beray.server.webhooks.secrets import Secrets
from beray.server.webhooks.sending import Answered
from beray.server.webhooks.service import SHOWN_MS, Webhooks
from beray.webhooks import verify
from tests.server.auth.auth_server import FakeClock
from tests.support.databases import seeded_database
from tests.support.loopback import loopback_server, reply
from tests.support.waiting import until

ANN = UserRow(1, "a@example.com", 0)
ANYWHERE = Reach(is_anywhere=True)
FINISHED = NewEvent("task.finished", {"status": "completed"})


class Post:
    """A server's part that makes and sends messages, with a clock of ours."""

    def __init__(self, database: Database, clock: FakeClock | None = None) -> None:
        self.database = database
        self.clock = clock or FakeClock()
        self.secrets = Secrets(b"k" * 32)
        trail = AuditTrail(database, self.clock)
        self.webhooks = Webhooks(database, self.clock, secrets=self.secrets, reach=ANYWHERE, trail=trail)
        self.events = EventLog(database, Wakeups(), self.clock, on_stored=Announcer(task_view, self.clock))

    async def finish(self, task_id: int = 1) -> None:
        await self.events.append(task_id, [NewEvent("text.done"), FINISHED])

    @contextlib.asynccontextmanager
    async def sending(self, sender=None) -> AsyncIterator[Deliveries]:
        """Deliveries at work, by a sender of the test's or the real one."""
        make = None if sender is None else lambda reach: sender
        deliveries = Deliveries(self.database, self.clock, secrets=self.secrets, reach=ANYWHERE, make_sender=make)
        self.database.deliver = lambda notices: [deliveries.wake() for each in notices if each.kind == "webhook"]
        running = asyncio.create_task(deliveries.run())
        try:
            yield deliveries
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def pending(self, user_id: int = 1) -> int:
        return await self.database.read(lambda connection: queries.count_pending(connection, user_id))

    async def due_in(self) -> float:
        """Seconds until the one message that waits is tried again."""
        due_at = await self.database.read(
            lambda connection: connection.execute(text("SELECT due_at FROM webhook_delivery")).scalar_one()
        )
        return (due_at - self.clock()) / 1000


class FakeSender:
    """Notes what is sent, and answers as it is told; what is held is answered when it is let go."""

    def __init__(self, *answers: Answered, held: str = "") -> None:
        self.answers = list(answers)
        self.sent: list[tuple[str, str]] = []  # URL, id
        self.headers: list[dict] = []
        self.held = held
        self.flying = 0

    async def send(self, url, body, headers, *, lookups):
        self.sent.append((url, headers["webhook-id"]))
        self.headers.append({"body": body, **headers})
        self.flying += 1
        try:
            if self.held and self.held in url:
                await asyncio.Event().wait()
        finally:
            self.flying -= 1
        return self.answers.pop(0) if self.answers else Answered(200, None)

    def close(self) -> None:
        pass


@pytest.fixture
def database(tmp_path):
    with seeded_database(tmp_path / "beray.db", 1, 2, status="running") as database:
        yield database


@pytest.fixture
def post(database):
    return Post(database)


@pytest.fixture
async def both(database_url):
    """On each kind of database."""
    with seeded_database(database_url, 1, 2, status="running") as database:
        yield Post(database)


async def test_receiver_that_fails_first_gets_the_same_message_again(both):
    with loopback_server() as receiver:
        receiver.script(reply(500, {}), reply(503, {}, {"Retry-After": "900"}), reply(200, {}))
        secret = (await both.webhooks.put(ANN, receiver.url, is_to_rotate=False))["secret"]
        async with both.sending() as deliveries:
            await both.finish()
            await until(lambda: has_tried(both, 500), what="a first try")
            assert 5 <= await both.due_in() <= 6
            for status, minutes in ((503, 0.1), (200, 15)):
                both.clock.advance(minutes=minutes)
                deliveries.wake()
                await until(partial(has_tried, both, status), what=f"a try that is answered {status}")

    assert await both.pending() == 0
    told = await both.webhooks.get(ANN)
    assert (told["last_error"], told["given_up"], told["secret"]) == (None, 0, None)
    assert told["last_delivered_at"] == told["last_attempt_at"]
    first, _, last = receiver.received
    assert first.body == last.body
    assert first.headers["webhook-id"] == last.headers["webhook-id"] == "msg_1_1_2"
    assert int(last.headers["webhook-timestamp"]) == int(first.headers["webhook-timestamp"]) + 906
    event = verify(last.headers, last.body, secret, now=both.clock() / 1000)
    assert (event["type"], event["data"]["id"], event["data"]["last_seq"]) == ("task.finished", 1, 2)
    assert "events" not in event["data"]


async def has_tried(post: Post, status: int) -> bool:
    return (await post.webhooks.get(ANN))["last_status"] == status


async def test_message_is_sent_once_by_several_processes_unless_one_dies(both):
    await both.webhooks.put(ANN, "https://example.com/", is_to_rotate=False)
    await both.finish()
    [due] = await both.database.read(lambda connection: queries.list_due(connection, now=both.clock(), limit=9))

    def claim(connection: Connection):
        return queries.claim(connection, [due.id], now=both.clock(), lease_ms=30_000)

    [first] = await both.database.write(claim)
    assert await both.database.write(claim) == []
    assert await both.database.read(lambda connection: queries.list_due(connection, now=both.clock(), limit=9)) == []

    await both.database.write(
        lambda connection: connection.execute(text("UPDATE webhook_delivery SET leased_until = 1"))
    )
    [second] = await both.database.write(claim)

    assert (first.attempts, second.attempts) == (1, 2)
    late = Attempted(500, "status", due_at=None)
    assert not await both.database.write(lambda connection: queries.settle(connection, first, late, both.clock()))
    assert await both.pending() == 1, "who was thought dead settles nothing"
    done = Attempted(200, None)
    assert await both.database.write(lambda connection: queries.settle(connection, second, done, both.clock()))
    assert await both.pending() == 0


async def test_message_of_a_process_that_died_is_sent_at_the_next_start(both):
    """Between the commit and the attempt, and within the attempt."""
    await both.webhooks.put(ANN, "https://example.com/held", is_to_rotate=False)
    await both.finish(1)
    stuck = FakeSender(held="held")
    async with both.sending(stuck):
        await until(lambda: stuck.sent, what="an attempt")
    await both.finish(2)
    await both.database.write(lambda connection: lapse(connection, both.database))

    sender = FakeSender()
    async with Post(both.database, both.clock).sending(sender):
        await until(lambda: len(sender.sent) == 2, what="both messages")

    assert sorted(sender.sent) == [("https://example.com/held", f"msg_{task_id}_1_2") for task_id in (1, 2)]


def lapse(connection: Connection, database: Database) -> None:
    """Where others could have it, the dead one's lease must run out; an only process knows that there is none."""
    if database.is_shared:
        connection.execute(text("UPDATE webhook_delivery SET leased_until = 1 WHERE leased_until IS NOT NULL"))


async def test_dead_receiver_does_not_hold_up_another_users(both):
    await both.database.write(second_user)
    await both.webhooks.put(ANN, "https://dead.example.com/", is_to_rotate=False)
    await both.webhooks.put(UserRow(2, "b@example.com", 0), "https://live.example.com/", is_to_rotate=False)
    for _ in range(20):
        await both.finish(1)
    sender = FakeSender(held="dead")
    async with both.sending(sender):
        await until(lambda: sender.flying == AT_ONCE_OF_USER, what="all places of the dead one's user")
        await both.finish(2)
        await until(lambda: not sender.sent[-1][0].startswith("https://dead"), what="the other's message")

        assert sender.flying == AT_ONCE_OF_USER
        assert await both.pending(1) == 20


def second_user(connection: Connection) -> None:
    connection.execute(text("INSERT INTO user_account (id, email, created_at) VALUES (2, 'b@example.com', 0)"))
    connection.execute(text("UPDATE task SET user_id = 2 WHERE id = 2"))


async def test_host_that_many_users_call_has_few_places(post):
    await post.database.write(ten_users_who_wait)
    sender = FakeSender(held="dead")
    async with post.sending(sender):
        await until(lambda: ("https://live.example.com/", "m11_11") in sender.sent, what="the live one's message")

        assert sender.flying == AT_ONCE_TO_HOST


def ten_users_who_wait(connection: Connection) -> None:
    """The first nine have the same dead receiver."""
    for number in range(2, 12):
        url = "https://live.example.com/" if number == 11 else "https://dead.org/"
        wait_for(connection, number, url, now=number)


async def test_users_take_turns_however_old_their_messages_are(post, monkeypatch):
    """Dead receivers of many users take all places, and have old messages enough to take each that is left again."""
    monkeypatch.setattr(delivery_module, "AT_ONCE", 4)
    sender = EndingSender()
    async with post.sending(sender):
        await post.database.write(dead_users_with_old_messages)
        await until(lambda: sender.flying == 4, what="all places of the dead ones")
        await post.database.write(lambda connection: wait_for(connection, 9, "https://live.example.com/", now=9))
        for ended in range(1, 8):
            sender.end_one()
            await until(partial(has_sent, sender, 4 + ended), what="the next attempt")

    hosts = [url for url, _ in sender.sent]
    assert len(set(hosts[4:8])) == 4, "each dead one that waits, and the live one, before anybody's next"
    assert "https://live.example.com/" in hosts[4:8]


def has_sent(sender: FakeSender, count: int) -> bool:
    return len(sender.sent) == count


class EndingSender(FakeSender):
    """Whose attempts end, without an answer, one by one when it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[asyncio.Event] = []

    async def send(self, url, body, headers, *, lookups):
        self.sent.append((url, headers["webhook-id"]))
        self.ends.append(asyncio.Event())
        self.flying += 1
        await self.ends[-1].wait()
        self.flying -= 1
        return Answered(None, "timeout")

    def end_one(self) -> None:
        next(end for end in self.ends if not end.is_set()).set()


def dead_users_with_old_messages(connection: Connection) -> None:
    for user_id in range(2, 8):
        for now in range(4):
            wait_for(connection, user_id, f"https://dead{user_id}.example.com/", now=now)


def wait_for(connection: Connection, user_id: int, url: str, *, now: int) -> None:
    """A message of that user's waits since then, about a task of its own."""
    values = {"id": user_id, "email": f"{user_id}@example.com"}
    connection.execute(
        text("INSERT OR IGNORE INTO user_account (id, email, created_at) VALUES (:id, :email, 0)"), values
    )
    queries.ensure_webhook(connection, user_id, salt=b"s" * 16, now=0)
    queries.set_url(connection, user_id, url)
    row = {"user_id": user_id, "goal": "g", "status": "completed", "usage": "{}", "created_at": 0, "updated_at": 0}
    message = {"task_id": task_queries.insert_task(connection, row), "message_id": f"m{user_id}_{now}", "body": b"{}"}
    queries.enqueue(connection, user_id=user_id, now=now, most=9, **message)


async def test_nothing_is_said_of_what_is_not_stored(post):
    await post.webhooks.put(ANN, "https://example.com/", is_to_rotate=False)

    def fail(connection: Connection) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await post.events.append(1, [FINISHED], also=fail)

    assert await post.pending() == 0


async def test_question_is_said_with_the_task_as_it_waits(post):
    await post.webhooks.put(ANN, "https://example.com/", is_to_rotate=False)
    question = {"question_id": "q1", "question": "Which?", "choices": None}
    sender = FakeSender()
    async with post.sending(sender):
        await post.events.append(
            1,
            [NewEvent("input.requested", question), NewEvent("task.status", {"status": "waiting"})],
            also=lambda connection: task_queries.ask(connection, 1, json.dumps(question), post.clock()),
        )
        await until(lambda: sender.sent, what="the message")

    said = json.loads(sender.headers[0]["body"])
    assert (said["type"], said["data"]["status"], said["data"]["question"]) == ("input.requested", "waiting", question)
    assert sender.sent == [("https://example.com/", "msg_1_1_1")]


async def test_each_run_has_a_message_of_its_own(post):
    await post.webhooks.put(ANN, "https://example.com/", is_to_rotate=False)
    sender = FakeSender()
    conversation = Conversation(post.events, post.clock)

    def end_and_begin_again(connection: Connection) -> None:
        task_queries.change_status(connection, 1, "completed")
        post.events.insert(connection, 1, [FINISHED])
        row = task_queries.get_task(connection, 1, 1)
        conversation.begin_again(connection, row, "more", ModelChoice("openai:m", "model"))

    async with post.sending(sender):
        await post.database.write(end_and_begin_again)
        await post.finish()
        await until(lambda: len(sender.sent) == 2, what="two messages")

    assert [message_id for _, message_id in sender.sent] == ["msg_1_1_1", "msg_1_2_5"]


async def test_users_without_a_webhook_get_none(post):
    await post.finish()

    assert await post.pending() == 0
    assert await post.webhooks.get(ANN) == {
        "url": None,
        "secret": None,
        "old_secret_until": None,
        "pending": 0,
        "given_up": 0,
        "last_attempt_at": None,
        "last_delivered_at": None,
        "last_status": None,
        "last_error": None,
    }


async def test_tasks_own_url_counts_before_the_accounts(post):
    await post.webhooks.put(ANN, "https://account.example.com/", is_to_rotate=False)
    await post.database.write(
        lambda connection: task_queries.update_task(connection, 1, webhook_url="https://own.org/")
    )
    sender = FakeSender()
    async with post.sending(sender):
        await post.finish(1)
        await post.finish(2)
        await until(lambda: len(sender.sent) == 2, what="two messages")

    assert sorted(url for url, _ in sender.sent) == ["https://account.example.com/", "https://own.org/"]


async def test_new_url_gets_what_waits_and_none_gets_nothing(post):
    await post.webhooks.put(ANN, "https://wrong.example.com/", is_to_rotate=False)
    await post.finish(1)
    await post.webhooks.put(ANN, "https://right.example.com/", is_to_rotate=False)
    sender = FakeSender(Answered(500, "status"))
    async with post.sending(sender):
        await until(lambda: sender.sent, what="a try")
    assert sender.sent[0][0] == "https://right.example.com/"

    await post.database.write(
        lambda connection: task_queries.update_task(connection, 2, webhook_url="https://own.org/")
    )
    await post.finish(2)
    assert await post.pending() == 2
    told = await post.webhooks.put(ANN, None, is_to_rotate=False)

    assert (told["url"], told["pending"]) == (None, 1), "the task's own URL is still called"


async def test_task_that_is_deleted_is_not_spoken_of(post):
    await post.webhooks.put(ANN, "https://example.com/", is_to_rotate=False)
    await post.finish(1)
    await post.finish(2)
    await post.database.write(lambda connection: task_queries.hide_task(connection, 1, 1, 0))
    sender = FakeSender()
    async with post.sending(sender):
        await until(partial(has_pending, post, 0), what="nothing to wait")

    assert [message_id for _, message_id in sender.sent] == ["msg_2_1_2"]


async def has_pending(post: Post, number: int) -> bool:
    return await post.pending() == number


async def test_deleted_row_takes_its_messages_along(both):
    await both.webhooks.put(ANN, "https://example.com/", is_to_rotate=False)
    await both.finish(1)

    await both.database.write(lambda connection: task_queries.delete_task(connection, 1))

    assert await both.pending() == 0


async def test_receiver_that_is_gone_is_given_up(post, caplog):
    await post.webhooks.put(ANN, "https://example.com/secret-path", is_to_rotate=False)
    with caplog.at_level(logging.INFO, logger="beray.webhooks"):
        async with post.sending(FakeSender(Answered(410, "status"))):
            await post.finish()
            await until(partial(has_pending, post, 0), what="the end")

    told = await post.webhooks.get(ANN)
    assert (told["given_up"], told["last_status"], told["last_delivered_at"]) == (1, 410, None)
    assert told["last_error"].startswith("接收方返回了 410")
    assert caplog.messages == ["webhook given up: 410"]
    assert "secret-path" not in caplog.text


async def test_receiver_that_never_takes_it_is_given_up_in_the_end(post):
    await post.webhooks.put(ANN, "https://example.com/", is_to_rotate=False)
    sender = FakeSender(*[Answered(None, "timeout")] * 99)
    async with post.sending(sender) as deliveries:
        await post.finish()
        for tries in range(1, 8):
            await until(partial(has_tried_times, post, sender, tries), what=f"try {tries}")
            post.clock.advance(days=1)
            deliveries.wake()
        await until(partial(has_pending, post, 0), what="the end")

    assert len(sender.sent) == 7
    assert len({headers["webhook-id"] for headers in sender.headers}) == 1
    told = await post.webhooks.get(ANN)
    assert (told["given_up"], told["last_status"]) == (1, None)


async def has_tried_times(post: Post, sender: FakeSender, tries: int) -> bool:
    """So often, and what came of it is kept."""
    leased = await post.database.read(
        lambda connection: connection.execute(text("SELECT max(leased_until) FROM webhook_delivery")).scalar()
    )
    return len(sender.sent) == tries and sender.flying == 0 and leased is None


async def test_messages_that_wait_are_bounded_and_the_oldest_make_room(both, monkeypatch):
    monkeypatch.setattr(messages_module, "PENDING_MOST", 3)
    await both.webhooks.put(ANN, "https://example.com/", is_to_rotate=False)
    for _ in range(5):
        await both.finish()

    assert await both.pending() == 3
    assert (await both.webhooks.get(ANN))["given_up"] == 2
    sender = FakeSender()
    async with both.sending(sender):
        await until(lambda: len(sender.sent) == 3, what="those that were kept")
    assert sorted(message_id for _, message_id in sender.sent) == ["msg_1_1_10", "msg_1_1_6", "msg_1_1_8"]


async def test_long_texts_are_cut_and_that_is_said(post):
    await post.webhooks.put(ANN, "https://example.com/", is_to_rotate=False)
    await post.database.write(
        lambda connection: task_queries.update_task(connection, 1, result="长" * (TEXT_MOST + 1), goal="g" * TEXT_MOST)
    )
    sender = FakeSender()
    async with post.sending(sender):
        await post.finish()
        await until(lambda: sender.sent, what="the message")

    body = sender.headers[0]["body"]
    data = json.loads(body)["data"]
    assert data["truncated"] == ["result"]
    assert data["result"] == "长" * TEXT_MOST
    assert len(body) < 100_000


async def test_fault_of_ours_in_one_delivery_ends_no_other(post, monkeypatch, caplog):
    await post.webhooks.put(ANN, "https://example.com/", is_to_rotate=False)
    sender = FakeSender()
    monkeypatch.setattr(delivery_module, "next_try_ms", None)
    sender.answers = [Answered(500, "status")]
    async with post.sending(sender):
        await post.finish(1)
        await until(lambda: "could not be kept" in caplog.text, what="the fault")
        await post.finish(2)
        await until(lambda: len(sender.sent) == 2, what="the other message")


async def test_next_look_is_when_the_next_message_is_due(post):
    await post.webhooks.put(ANN, "https://example.com/", is_to_rotate=False)
    deliveries = Deliveries(post.database, post.clock, secrets=post.secrets, reach=ANYWHERE)
    assert await deliveries._pause_seconds(post.clock()) == 5.0

    await post.finish()
    now = post.clock()
    pauses = [await deliveries._pause_seconds(now - ms) for ms in (0, 1)]  # looked for before it was due
    post.clock.now -= 2_000
    pauses.append(await deliveries._pause_seconds(post.clock()))

    assert pauses == [5.0, 0.05, 2.0], "what is due already has been looked at"


# The secret


async def test_secret_is_shown_for_ten_minutes_to_who_sets_the_webhook(both):
    first = await both.webhooks.put(ANN, "https://example.com/", is_to_rotate=False)
    again = await both.webhooks.put(ANN, "https://example.com/", is_to_rotate=False)
    both.clock.advance(minutes=SHOWN_MS / 60_000)
    late = await both.webhooks.put(ANN, "https://example.com/", is_to_rotate=False)

    assert first["secret"] == again["secret"] is not None
    assert first["secret"].startswith("whsec_")
    assert late["secret"] is None
    assert (await both.webhooks.get(ANN))["secret"] is None


async def test_changed_secret_and_the_one_before_sign_for_a_day(both):
    old = (await both.webhooks.put(ANN, "https://example.com/", is_to_rotate=False))["secret"]
    both.clock.advance(days=3)
    told = await both.webhooks.put(ANN, "https://example.com/", is_to_rotate=True)
    sender = FakeSender()
    async with both.sending(sender):
        await both.finish(1)
        await until(lambda: len(sender.sent) == 1, what="a message")
        both.clock.advance(days=1)
        await both.finish(2)
        await until(lambda: len(sender.sent) == 2, what="another")

    during, after = sender.headers
    assert told["secret"] not in (old, None)
    assert told["old_secret_until"] is not None
    for secret in (old, told["secret"]):
        verify(during, during["body"], secret, now=(both.clock() - DAY_MS) / 1000)
    verify(after, after["body"], told["secret"], now=both.clock() / 1000)
    assert len(after["webhook-signature"].split(" ")) == 1
    assert (await both.webhooks.get(ANN))["old_secret_until"] is None


async def test_database_holds_no_secret(post):
    """It is made of the server's key, and a salt that is useless alone."""
    told = await post.webhooks.put(ANN, "https://example.com/", is_to_rotate=False)
    [row] = await post.database.read(lambda connection: connection.execute(text("SELECT * FROM webhook")).all())

    assert told["secret"] not in {secret_of(value) for value in row if isinstance(value, bytes)}
    assert Secrets(b"another key, of 32 bytes or more").shown(1, row.salt) != told["secret"]
    assert post.secrets.shown(2, row.salt) != told["secret"]


async def test_change_is_in_the_audit_log_without_the_url(post):
    await post.webhooks.put(ANN, "https://hooks.example.com/token-in-the-path", is_to_rotate=True)
    await post.webhooks.put(ANN, None, is_to_rotate=False)

    rows = await post.database.read(
        lambda connection: connection.execute(text("SELECT action, who, resource FROM audit ORDER BY id")).all()
    )
    assert [tuple(row) for row in rows] == [
        ("webhook.changed", "a@example.com", "hooks.example.com"),
        ("webhook.secret", "a@example.com", None),
        ("webhook.changed", "a@example.com", "nobody"),
    ]


async def test_url_that_is_not_called_is_refused(post):
    post.webhooks = Webhooks(
        post.database, post.clock, secrets=post.secrets, reach=Reach(), trail=AuditTrail(post.database, post.clock)
    )

    with pytest.raises(Refused) as refused:
        await post.webhooks.put(ANN, "https://127.0.0.1/", is_to_rotate=False)

    assert refused.value.code == "webhook_url_invalid"
    assert refused.value.errors[0]["loc"] == ["body", "url"]
    assert (await post.webhooks.get(ANN))["url"] is None
