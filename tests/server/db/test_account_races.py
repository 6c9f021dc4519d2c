"""Accounts that are deleted in one process against what is begun for them in another: whoever is second sees it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import Connection, Engine, make_url, text

from beray.server.db import accounts, auth, tasks, usage
from beray.server.db.auth import UserRow
from beray.server.db.postgres import postgres_engine
from beray.server.db.usage import UsedSums
from tests.support.databases import migrated
from tests.support.transactions import in_another, open_transaction

ANN, BOB = UserRow(1, "ann@example.com", 0), UserRow(2, "bob@example.com", 0)
TASK = {"user_id": 1, "goal": "g", "status": "queued", "created_at": 0, "updated_at": 0, "usage": "{}"}


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    """With two users, both administrators, and a third who is none."""
    migrated(make_url(postgres_url))
    engine = postgres_engine(make_url(postgres_url).set(drivername="postgresql+psycopg"), pool_size=3)
    with engine.begin() as connection:
        for email in (ANN.email, BOB.email, "c@example.com"):
            auth.insert_user(connection, email, password_hash="old", now=0)
        connection.execute(text("UPDATE user_account SET is_admin = true WHERE id IN (1, 2)"))
    yield engine
    engine.dispose()


def close(connection: Connection, user: UserRow = ANN) -> bool:
    """As the service does it; whether it was let go."""
    accounts.hold_with_admins(connection, user.id)
    if accounts.is_last_admin(connection, user.id):
        return False
    accounts.close_account(connection, user, now=5)
    return True


def make_task(connection: Connection) -> int | None:
    return tasks.insert_task(connection, TASK)


def make_task_as_before(connection: Connection) -> int:
    """As versions before did, which do not ask whether the account is there."""
    names = ", ".join(TASK)
    values = ", ".join(f":{name}" for name in TASK)
    made: int = connection.execute(
        text(f"INSERT INTO task ({names}) VALUES ({values}) RETURNING id"), TASK
    ).scalar_one()
    return made


def hidden(engine: Engine) -> list[bool]:
    """Of each task, whether it is hidden."""
    with engine.connect() as connection:
        return list(connection.execute(text("SELECT deleted_at IS NOT NULL FROM task ORDER BY id")).scalars())


def test_task_that_is_being_made_when_its_account_goes_is_hidden_with_the_others(engine):
    with ThreadPoolExecutor(1) as threads:
        with open_transaction(engine, make_task) as made:
            closing = in_another(threads, engine, close)
        assert closing.result(20)

    assert made is not None
    assert hidden(engine) == [True]


def test_task_that_waits_for_an_account_to_go_is_not_made(engine):
    with ThreadPoolExecutor(1) as threads:
        with open_transaction(engine, close):
            making = in_another(threads, engine, make_task)
        assert making.result(20) is None

    assert hidden(engine) == []


def test_run_that_counts_its_use_while_its_account_goes_does_not_wait_for_it(engine):
    """It has its task and then looks for its user: whoever has them the other way round meets it in a deadlock."""
    with engine.begin() as connection:
        task_id = make_task(connection)
    assert task_id is not None

    with ThreadPoolExecutor(1) as threads:
        with engine.connect() as running, running.begin():
            running.execute(text("UPDATE task SET last_seq = 1"))
            closing = in_another(threads, engine, close)
            usage.add_used(running, task_id=task_id, user_id=ANN.id, day=0, used=UsedSums(requests=1))
        assert closing.result(20)

    assert hidden(engine) == [True]


def test_login_that_waits_for_an_account_to_go_is_refused(engine):
    with ThreadPoolExecutor(1) as threads:
        with open_transaction(engine, close):
            looking = in_another(threads, engine, lambda connection: auth.has_password_hash(connection, 1, "old"))
        assert looking.result(20) is False


def test_address_of_an_account_that_goes_can_be_registered_when_it_has_gone(engine):
    with ThreadPoolExecutor(1) as threads:
        with open_transaction(engine, close):
            registering = in_another(
                threads,
                engine,
                lambda connection: auth.insert_user(connection, ANN.email, password_hash="new", now=6),
            )
        assert registering.result(20) == UserRow(4, ANN.email, 6)


@pytest.mark.parametrize(("first", "second"), [(ANN, BOB), (BOB, ANN)])
def test_of_two_administrators_who_go_at_once_the_second_stays(engine, first, second):
    with ThreadPoolExecutor(1) as threads:
        with open_transaction(engine, lambda connection: close(connection, first)) as is_first_gone:
            closing = in_another(threads, engine, lambda connection: close(connection, second))
        assert (is_first_gone, closing.result(20)) == (True, False)


def test_row_stays_for_a_task_that_an_older_version_is_making_and_hides_it(engine):
    with engine.begin() as connection:
        close(connection)
    with ThreadPoolExecutor(1) as threads:
        with open_transaction(engine, make_task_as_before):
            removing = in_another(
                threads, engine, lambda connection: accounts.remove_account(connection, ANN.id, now=6)
            )
        assert removing.result(20) is False

    assert hidden(engine) == [True]
    with engine.begin() as connection:
        assert accounts.list_hidden_tasks(connection, ANN.id) == [(1, 1)]
