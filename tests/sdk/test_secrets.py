"""Tokens and passwords stay where they belong: in no repr, log, error or traceback, not even one that shows locals."""

import logging
import pickle
import traceback
from typing import Any

import pytest

from beray import BeRayException
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


def test_the_token_itself_is_plain_text_for_its_owner() -> None:
    client = BeRayClient("http://h", TOKEN)

    assert client.token == TOKEN
    assert type(client.token) is str
