"""Tokens and passwords stay where they belong: in no repr, log, error or traceback, not even one that shows locals."""

import logging
import pickle
import traceback
from pathlib import Path
from typing import Any

import pytest

from beray import AuthenticationError, BeRayException, NotConfigured
from beray.client import BeRayClient
from tests.support.loopback import LoopbackServer, drop, reply

TOKEN = "t0k-very-secret"


def shown(error: BaseException) -> str:
    """A traceback as monitoring tools send it: with all local variables."""
    return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())


@pytest.mark.parametrize("answer", [reply(401, {"detail": "no"}), drop, reply(200, b"<html>")])
def test_no_error_tells_the_token(
    peer: LoopbackServer, waits: list[float], new_client: Any, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    peer.always(answer)
    client = new_client(peer.url, token=TOKEN)

    with pytest.raises(BeRayException) as error:
        client.get_task(3)

    everything = shown(error.value) + repr(error.value) + str(vars(error.value)) + repr(client) + caplog.text
    assert TOKEN not in everything
    assert TOKEN.encode() not in pickle.dumps(error.value)


@pytest.mark.parametrize("base_url", ["", "localhost:8000"])
@pytest.mark.parametrize("end", ["", "= broken"])
def test_an_environment_without_a_server_does_not_tell_its_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, base_url: str, end: str
) -> None:
    (tmp_path / "beray").mkdir()
    (tmp_path / "beray" / "credentials.toml").write_text(f'[servers."http://h"]\ntoken = "{TOKEN}"\nemail = ""\n{end}')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("BERAY_BASE_URL", base_url)
    monkeypatch.setenv("BERAY_TOKEN", TOKEN)

    with pytest.raises(NotConfigured) as error:
        BeRayClient.from_env()

    assert TOKEN not in shown(error.value)


def test_no_error_tells_what_a_request_held(peer: LoopbackServer, new_client: Any) -> None:
    peer.always(reply(401, {"detail": "no"}))

    with pytest.raises(AuthenticationError) as error:
        new_client(peer.url).login_with_form("a@b.c", "pass-very-secret")

    calls = [line for line in shown(error.value).splitlines() if "Call(" in line]
    assert calls
    assert not any("pass-very-secret" in line for line in calls)


@pytest.mark.parametrize("base_url", ["ada:pa55@h", "http://h/?token=pa55", "http://ada:pa55@h:x", "ada:pa55@h://"])
def test_an_address_that_is_refused_is_shown_without_its_secrets(base_url: str) -> None:
    with pytest.raises(ValueError, match="base_url") as error:
        BeRayClient(base_url)

    assert "pa55" not in str(error.value)


def test_the_token_itself_is_plain_text_for_its_owner() -> None:
    client = BeRayClient("http://h", TOKEN)

    assert client.token == TOKEN
    assert type(client.token) is str
