"""Limits on codes, registrations and logins: over HTTP as they come, and the counters below them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from sqlalchemy import URL, Engine, text

from beray.server.auth.rates import RULES, Hit, Rates
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


def test_mailbox_gets_five_codes_an_hour(limited_server):
    answers = []
    for _ in range(7):
        answers.append(limited_server.request_code(EMAIL))
        limited_server.clock.advance(minutes=2)

    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    assert answers[-1].headers["Retry-After"] == str((60 - 6 * 2) * 60)


def test_asking_about_a_registered_address_is_limited_too(limited_server):
    """The 409 tells who has an account; how often it may be asked is limited like a code."""
    limited_server.register(EMAIL)

    answers = []
    for _ in range(2):
        limited_server.clock.advance(minutes=1)
        answers += [limited_server.request_code(EMAIL).status_code for _ in range(2)]

    assert answers == [409, 429, 409, 429]


def test_one_client_gets_twenty_codes_an_hour_whatever_it_claims(limited_server):
    """`X-Forwarded-For` buys no new quota where no proxy is trusted."""
    answers = [
        limited_server.request_code(f"user{index}@example.com", headers={"X-Forwarded-For": f"198.51.100.{index}"})
        for index in range(22)
    ]

    assert [answer.status_code for answer in answers] == [200] * 20 + [429] * 2


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
        return rates.take(connection, hit)


def counters(engine: Engine) -> list[str]:
    with engine.begin() as connection:
        return list(connection.execute(text("SELECT key FROM rate_counter")).scalars())


def test_flood_of_one_client_uses_up_nothing_of_others(engine):
    rates = Rates(FakeClock(), is_on=True)
    with engine.begin() as connection:
        hits = [Hit("code", address="192.0.2.1", email=f"{n}@example.com") for n in range(600)]
        flood = [rates.take(connection, hit) for hit in hits]

    others = take(engine, rates, Hit("code", address="192.0.2.2", email="599@example.com"))

    assert flood == [None] * 20 + [3600] * 580
    assert others is None


def test_everyone_together_gets_five_hundred_codes_an_hour(engine):
    rates = Rates(FakeClock(), is_on=True)

    with engine.begin() as connection:
        hits = [Hit("code", address=f"client{n}", email=f"{n}@example.com") for n in range(501)]
        taken = [rates.take(connection, hit) for hit in hits]

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
