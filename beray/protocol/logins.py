"""How a client logs in and out, as flows (`effects.py`): the token is kept for the calls that follow."""

from typing import Final, cast

from beray.exceptions import AuthenticationError, ProtocolError
from beray.protocol import calls
from beray.protocol.calls import Call
from beray.protocol.effects import Conditions, Flow
from beray.protocol.flows import request
from beray.protocol.responses import value_of
from beray.protocol.types import Message, Session

_MOST_TOKEN_CHARACTERS: Final = 16 << 10  # no server takes a longer header


def log_in(call: Call[Session], conditions: Conditions) -> Flow[Session]:
    """Make the call that answers with a token, and keep that."""
    session = value_of((yield from request(call, conditions)))
    token = session.get("access_token") if isinstance(session, dict) else None
    if not isinstance(token, str) or len(token) > _MOST_TOKEN_CHARACTERS:
        raise ProtocolError(
            f"{call.method} {call.path} answered without an access_token, or with one that is too long."
        )
    expires_in = session.get("expires_in")
    assert conditions.access is not None
    is_number = isinstance(expires_in, int | float) and not isinstance(expires_in, bool)
    try:
        conditions.access.set(token, expires_in=expires_in if is_number else None)
    except ValueError:  # a line break would end the header
        raise ProtocolError(f"{call.method} {call.path} answered with an access_token that none can be.") from None
    return cast(Session, session)


def log_out(conditions: Conditions) -> Flow[Message]:
    """End the session on the server; the token is forgotten here, also if it was dead already."""
    assert conditions.access is not None
    try:
        answer = yield from request(calls.logout(), conditions)
    except AuthenticationError:
        conditions.access.set(None)
        raise
    conditions.access.set(None)
    return cast(Message, value_of(answer))
