"""Limits on codes, registrations and logins: over HTTP as they come, and the counters below them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from sqlalchemy import URL, Engine, text

from beray.server.auth.rates import RULES, Hit, Rates, TooOften
from beray.server.db.open import make_database
from beray.server.db.tables import metadata
from tests.server.auth.auth_server import PASSWORD, FakeClock, run_auth_server

EMAIL = "new_user@example.com"


def test_mailbox_gets_one_code_a_minute(limited_server):
    assert limited_server.request_code(EMAIL).status_code == 200
    limited_server.clock.advance(minutes=0.5)

    answer = limited_server.request_code(EMAIL)

    assert (answer.status_code, answer.json()["code"]) == (429, "rate_limited")
    assert answer.headers["Retry-After"] == "30"
    assert answer.json()["detail"] == "请求过于频繁，请在 30 秒后重试。"
    assert len(limited_server.mailbox(EMAIL)) == 1
    limited_server.clock.advance(minutes=0.5)
    assert limited_server.request_code(EMAIL).status_code == 200


def test_clients_behind_a_trusted_proxy_have_quotas_of_their_own(tmp_path):
    with run_auth_server(tmp_path, trusted_proxies=("127.0.0.1",)) as server:
        answers = [
            server.request_code(f"user{index}@example.com", headers={"X-Forwarded-For": f"198.51.100.{index % 2}"})
            for index in range(22)
        ]

    assert {answer.status_code for answer in answers} == {200}


def test_code_requests_at_once_send_one_mail(limited_server):
    with ThreadPoolExecutor(10) as threads:
        answers = list(threads.map(lambda _: limited_server.request_code(EMAIL).status_code, range(10)))

    assert sorted(answers) == [200] + [429] * 9
    assert len(limited_server.mailbox(EMAIL)) == 1


def test_wrong_passwords_are_limited_per_client_and_mailbox(limited_server):
    limited_server.register(EMAIL)
    limited_server.hasher.work.clear()

    answers = [limited_server.login(EMAIL, "wrong password") for _ in range(11)]

    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    assert answers[-1].headers["Retry-After"] == "300"
    assert limited_server.hasher.work == ["verify"] * 10
    assert limited_server.login(EMAIL).status_code == 429
    assert limited_server.login("other@example.com").status_code == 401
    limited_server.clock.advance(minutes=5)
    assert limited_server.login(EMAIL).status_code == 200


def test_parallel_wrong_passwords_are_limited_too(limited_server):
    limited_server.register(EMAIL)

    with ThreadPoolExecutor(20) as threads:
        answers = list(threads.map(lambda _: limited_server.login(EMAIL, "wrong password").status_code, range(20)))

    assert sorted(answers) == [401] * 10 + [429] * 10


def test_right_passwords_are_not_limited(limited_server):
    limited_server.register(EMAIL)

    form = {"username": EMAIL, "password": PASSWORD}
    answers = [requests.post(f"{limited_server.url}/auth/token", data=form, timeout=30) for _ in range(12)]

    assert {answer.status_code for answer in answers} == {200}


def test_registrations_of_one_client_are_limited(limited_server):
    body = {"verification_code": "000000", "password": PASSWORD}

    answers = [
        limited_server.post("/auth/register", body | {"email": f"user{index}@example.com"}).status_code
        for index in range(31)
    ]

    assert answers == [400] * 30 + [429]


@pytest.fixture
def engine(database_url: URL) -> Iterator[Engine]:
    engine = make_database(database_url).make_engine()
    metadata.create_all(engine)
    yield engine
    engine.dispose()


def take(engine: Engine, rates: Rates, hit: Hit) -> int | None:
    with engine.begin() as connection:
        return seconds(rates.take(connection, hit))


def seconds(limited: TooOften | None) -> int | None:
    return None if limited is None else limited.seconds


def counters(engine: Engine) -> list[str]:
    with engine.begin() as connection:
        return list(connection.execute(text("SELECT key FROM rate_counter")).scalars())


def test_flood_of_one_client_uses_up_nothing_of_others(engine):
    rates = Rates(FakeClock(), is_on=True)
    with engine.begin() as connection:
        hits = [Hit("code", address="192.0.2.1", email=f"{n}@example.com") for n in range(600)]
        flood = [seconds(rates.take(connection, hit)) for hit in hits]

    others = take(engine, rates, Hit("code", address="192.0.2.2", email="599@example.com"))

    assert flood == [None] * 20 + [3600] * 580
    assert others is None


def test_everyone_together_gets_five_hundred_codes_an_hour(engine):
    rates = Rates(FakeClock(), is_on=True)

    with engine.begin() as connection:
        hits = [Hit("code", address=f"client{n}", email=f"{n}@example.com") for n in range(501)]
        taken = [seconds(rates.take(connection, hit)) for hit in hits]

    assert taken == [None] * 500 + [3600]


def test_hit_given_back_can_be_taken_again(engine):
    rates = Rates(FakeClock(), is_on=True)
    hit = Hit("login", address="192.0.2.1", email=EMAIL)
    assert [take(engine, rates, hit) for _ in range(11)] == [None] * 10 + [300]

    with engine.begin() as connection:
        rates.give_back(connection, hit)  # the refused eleventh had counted
        rates.give_back(connection, hit)

    assert [take(engine, rates, hit) for _ in range(2)] == [None, 300]


def test_hit_given_back_after_its_window_gives_nothing_extra(engine):
    clock = FakeClock()
    rates = Rates(clock, is_on=True)
    hit = Hit("login", address="192.0.2.1", email=EMAIL)
    take(engine, rates, hit)
    clock.advance(minutes=5)

    with engine.begin() as connection:
        rates.give_back(connection, hit)

    assert [take(engine, rates, hit) for _ in range(11)] == [None] * 10 + [300]


def test_counters_are_forgotten_after_their_window_and_name_nobody(engine):
    clock = FakeClock()
    rates = Rates(clock, is_on=True)
    take(engine, rates, Hit("code", address="192.0.2.1", email=EMAIL))
    keys = counters(engine)
    assert len(keys) == len(RULES["code"])
    assert not any("192.0.2.1" in key or "new_user" in key for key in keys)
    assert max(len(key) for key in keys) <= 255

    clock.advance(minutes=60)
    take(engine, rates, Hit("login", address="192.0.2.9", email=EMAIL))

    assert not set(keys) & set(counters(engine))


def test_limits_switched_off_count_nothing(engine):
    rates = Rates(FakeClock(), is_on=False)
    hit = Hit("code", address="192.0.2.1", email=EMAIL)

    assert [take(engine, rates, hit) for _ in range(50)] == [None] * 50
    assert counters(engine) == []


def fail_logins(engine: Engine, rates: Rates, hits: list[Hit]) -> list[int | None]:
    with engine.begin() as connection:
        return [seconds(rates.take(connection, hit)) for hit in hits]


def test_flood_of_wrong_passwords_shuts_out_only_who_is_not_known(engine):
    """A crowd of addresses uses up what belongs to everyone; who has logged in from there before gets in."""
    clock = FakeClock()
    rates = Rates(clock, is_on=True)
    known = Hit("login", address="198.51.100.1", email=EMAIL)
    with engine.begin() as connection:
        rates.remember(connection, known)

    crowd = [Hit("login", address=f"client{n % 11}", email=f"{n}@example.com") for n in range(1001)]
    flood = fail_logins(engine, rates, crowd)
    strange = Hit("login", address="198.51.100.2", email=EMAIL)

    assert flood == [None] * 1000 + [600]
    assert take(engine, rates, strange) == 600
    assert [take(engine, rates, known) for _ in range(11)] == [None] * 10 + [300], "guesses are limited for it too"
    clock.advance(minutes=10)
    assert take(engine, rates, strange) is None


def test_flood_of_one_address_leaves_logins_of_others_alone(engine):
    rates = Rates(FakeClock(), is_on=True)

    flood = fail_logins(
        engine, rates, [Hit("login", address="192.0.2.1", email=f"{n}@example.com") for n in range(1500)]
    )

    assert flood == [None] * 100 + [3600] * 1400
    assert take(engine, rates, Hit("login", address="192.0.2.2", email=EMAIL)) is None


def test_mailbox_that_is_guessed_at_stays_open_to_its_owner(engine):
    """100 wrong passwords an hour from everywhere lock it for strangers only."""
    rates = Rates(FakeClock(), is_on=True)
    owner = Hit("login", address="198.51.100.1", email=EMAIL)
    with engine.begin() as connection:
        rates.remember(connection, owner)

    guesses = fail_logins(engine, rates, [Hit("login", address=f"client{n % 20}", email=EMAIL) for n in range(101)])

    assert guesses == [None] * 100 + [3600]
    assert take(engine, rates, owner) is None


def test_client_is_known_for_thirty_days_after_its_last_login(engine):
    clock = FakeClock()
    rates = Rates(clock, is_on=True)
    hit = Hit("login", address="192.0.2.1", email=EMAIL)

    def is_known() -> bool:
        with engine.begin() as connection:
            return len(rates._rules(connection, hit, clock())) < len(RULES["login"])

    seen = [is_known()]
    for days in (0, 29, 29, 30):
        clock.advance(days=days)
        seen.append(is_known())
        with engine.begin() as connection:
            rates.remember(connection, hit)

    assert seen == [False, False, True, True, False]


def test_first_refusal_of_a_window_says_that_it_is(engine):
    """So that a log tells it once, however long the flood is."""
    clock = FakeClock()
    rates = Rates(clock, is_on=True)
    told = []
    for _ in range(2):
        clock.advance(minutes=60)
        with engine.begin() as connection:
            hits = [
                rates.take(connection, Hit("code", address="192.0.2.1", email=f"{n}@example.com")) for n in range(30)
            ]
        told.append([(hit.scope, hit.is_first) for hit in hits if hit is not None])

    assert told == [[("address", True), *[("address", False)] * 9]] * 2
