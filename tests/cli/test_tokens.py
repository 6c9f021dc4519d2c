"""`tokens ls|new|rm`."""

import json

import pytest

from tests.support.command_line import CommandLine
from tests.support.fake_server import FakeServer


def test_new_token_goes_to_stdout_alone(beray: CommandLine, fake: FakeServer) -> None:
    ended = beray("tokens", "new", "nightly build")

    assert (ended.status, ended.out) == (0, "beray_1\n")
    assert f"BERAY_BASE_URL={fake.base_url}" in ended.err
    assert "beray_1" not in ended.err
    assert fake.tokens[1]["name"] == "nightly build"
    assert fake.tokens[1]["expires_at"] is None


def test_token_can_expire(beray: CommandLine, fake: FakeServer) -> None:
    made = json.loads(beray("tokens", "new", "ci", "--expires", "90s", "--json").out)

    assert made["token"] == "beray_1"
    assert fake.tokens[1]["expires_at"] == made["expires_at"] == "2026-11-24T08:00:30.000Z"


def test_tokens_are_listed_without_their_secrets(beray: CommandLine, fake: FakeServer) -> None:
    assert beray("tokens", "ls").err == "There are no API tokens.\n"
    beray("tokens", "new", "nightly build")
    beray("tokens", "new", "\x1b[2Jci", "--expires", "1s")

    ended = beray("tokens", "ls")

    assert [line.split() for line in ended.out.splitlines()] == [
        ["ID", "CREATED", "EXPIRES", "LAST", "USED", "NAME"],
        ["2", "2026-11-24T08:00:00.000Z", "2026-11-24T08:00:01.000Z", "-", "ci"],
        ["1", "2026-11-24T08:00:00.000Z", "never", "-", "nightly", "build"],
    ]
    assert [made["id"] for made in json.loads(beray("tokens", "ls", "--json").out)] == [2, 1]


def test_tokens_are_deleted_each(beray: CommandLine, fake: FakeServer) -> None:
    beray("tokens", "new", "a")
    beray("tokens", "new", "b")

    ended = beray("tokens", "rm", "1", "7", "2")

    assert (ended.status, ended.out) == (5, "1  deleted\n2  deleted\n")
    assert "There is no API token 7." in ended.err
    assert fake.tokens == {}


@pytest.mark.parametrize("arguments", [["ls"], ["new", "more"], ["rm", "1", "2"]])
def test_api_token_that_looks_after_tokens_is_told_to_log_in(
    beray: CommandLine, fake: FakeServer, arguments: list[str]
) -> None:
    refusal = {"detail": "An API token cannot be used for this.", "code": "login_needed"}
    paths = ("GET /api/v1/users/me/tokens", "POST /api/v1/users/me/tokens", "DELETE /api/v1/users/me/tokens/1")
    fake.refusals.update(dict.fromkeys(paths, (403, refusal)))

    ended = beray("tokens", *arguments)

    assert ended.status == 4
    remedy = "  Log in: beray login; and unset BERAY_TOKEN if it is set"
    assert ended.err.splitlines() == ["✗ An API token cannot be used for this.", remedy]
