from collections.abc import Iterator

import pytest
from sqlalchemy import URL, Connection, text

from beray.server.auth.codes import Codes
from beray.server.db.open import make_database
from beray.server.db.tables import metadata
from tests.server.auth.auth_server import KEY, FakeClock

EMAIL = "new_user@example.com"


@pytest.fixture
def connection(database_url: URL) -> Iterator[Connection]:
    engine = make_database(database_url).make_engine()
    metadata.create_all(engine)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


@pytest.fixture
def codes() -> Codes:
    return Codes(KEY, minutes=10, clock=FakeClock())


def test_codes_are_six_digits_each_as_likely_as_the_other(codes, connection):
    made = [codes.issue(connection, EMAIL, "register") for _ in range(2000)]

    assert {len(code) for code in made} == {6}
    assert all(code.isdecimal() for code in made)
    assert {code[0] for code in made} == set("0123456789")  # a digit is missing once in 10^91 runs
    assert len(set(made)) > 1950


def test_code_replaced_while_a_password_is_hashed_cannot_be_used(codes, connection):
    old = codes.issue(connection, EMAIL, "register")
    assert codes.try_code(connection, EMAIL, "register", old)
    new = codes.issue(connection, EMAIL, "register")
    while new == old:  # one in a million
        new = codes.issue(connection, EMAIL, "register")

    assert not codes.use(connection, EMAIL, "register", old)
    assert codes.use(connection, EMAIL, "register", new)
    assert not codes.use(connection, EMAIL, "register", new)


def test_stored_code_holds_for_no_other_mailbox_and_under_no_other_key(codes, connection):
    """Whoever can write to the database can't move a code of their own to somebody's mailbox."""
    own = codes.issue(connection, "own@example.com", "register")
    codes.issue(connection, EMAIL, "register")
    connection.execute(
        text(
            "UPDATE verification_code SET code_hmac ="
            " (SELECT code_hmac FROM verification_code WHERE email = 'own@example.com')"
        )
    )

    assert not codes.try_code(connection, EMAIL, "register", own)
    other_key = Codes(b"x" * 32, minutes=10, clock=FakeClock())
    assert not other_key.try_code(connection, "own@example.com", "register", own)
    assert codes.try_code(connection, "own@example.com", "register", own)


def test_expired_codes_of_others_are_forgotten(connection):
    clock = FakeClock()
    codes = Codes(KEY, minutes=10, clock=clock)
    codes.issue(connection, "old@example.com", "register")
    clock.advance(minutes=10)

    codes.issue(connection, EMAIL, "register")

    assert list(connection.execute(text("SELECT email FROM verification_code")).scalars()) == [EMAIL]
