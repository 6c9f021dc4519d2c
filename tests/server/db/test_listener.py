"""What is heard of other processes, whatever else is said on the channel."""

import asyncio
import logging
from collections.abc import AsyncIterator

import psycopg
import pytest
from sqlalchemy import make_url

from beray.server.db import listener as listener_module
from beray.server.db.notices import EVERYTHING, Notice, decode
from beray.server.db.postgres import CHANNEL
from tests.support.databases import migrated
from tests.support.waiting import until


@pytest.fixture
async def listening(postgres_url, monkeypatch) -> AsyncIterator[list[Notice]]:
    """What a process hears."""
    monkeypatch.setattr(listener_module, "RECONNECT_SECONDS", 0.02)
    database = migrated(make_url(postgres_url))
    heard: list[Notice] = []
    database.deliver = heard.extend
    database.open()
    yield heard
    await asyncio.to_thread(database.close)


def say(url: str, payload: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_notify(%s, %s)", (CHANNEL, payload))


@pytest.mark.parametrize("rubbish", ["x l" + "9" * 5000, "", " ", "x", "x l", "x l-1", "x ล๑๒", "x \x01\x7f", "x l²"])
async def test_notices_arrive_after_rubbish(listening, postgres_url, rubbish):
    say(postgres_url, rubbish)
    say(postgres_url, "x l7")

    await until(lambda: Notice("log", 7) in listening, what="the notice")


async def test_notices_arrive_after_a_fault_of_ours(listening, postgres_url, monkeypatch, caplog):
    faults = [ValueError("unforeseen"), ValueError("unforeseen")]

    def fail_at_first(payload: str) -> list[Notice]:
        if faults:
            raise faults.pop()
        return decode(payload)

    monkeypatch.setattr(listener_module, "decode", fail_at_first)
    for count in (1, 2):
        say(postgres_url, "x l6")
        await until(lambda count=count: listening.count(EVERYTHING) == count, what="a new connection")
    say(postgres_url, "x l7")

    await until(lambda: Notice("log", 7) in listening, what="the notice")
    assert len([one for one in caplog.records if one.levelno == logging.ERROR]) == 1


@pytest.mark.parametrize("digits", [19, 5000])
def test_number_that_is_no_id_means_everything(digits):
    assert decode("l" + "9" * digits) == [EVERYTHING]
    assert decode("l" + "9" * 18) == [Notice("log", 10**18 - 1)]
