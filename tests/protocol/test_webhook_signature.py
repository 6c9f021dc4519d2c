"""Signatures of webhooks against the Standard Webhooks specification."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beray.protocol.webhook_signature import key_of, secret_of, signature, signed_headers

# The vector that the specification's own libraries test themselves with (libraries/python/tests/test_webhooks.py).
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
MESSAGE = {"message_id": "msg_p5jXN8AQM9LWM0D4loKWxJek", "timestamp": 1614265330, "body": b'{"test": 2432232314}'}
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_signature_is_that_of_the_specification():
    assert signature(key_of(SECRET), **MESSAGE) == SIGNATURE


@pytest.mark.parametrize("bare", ["MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", " whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n"])
def test_secret_may_lack_its_prefix_or_have_space_around_it(bare):
    assert key_of(bare) == key_of(SECRET)


@pytest.mark.parametrize("length", [24, 25, 26])
def test_secret_may_lack_its_padding(length):
    key = bytes(range(length))

    assert key_of(secret_of(key).rstrip("=")) == key_of(secret_of(key)) == key


@pytest.mark.parametrize("odd", ["", "whsec_", "whsec_!!!!", "whsec_abc def", "whsec_é", "a"])
def test_what_is_no_secret_is_refused_and_not_shown(odd):
    with pytest.raises(ValueError, match="no webhook secret") as error:
        key_of(odd)

    assert odd[6:] in ("", "def") or odd[6:] not in str(error.value)


def test_message_is_signed_with_each_key():
    headers = signed_headers([key_of(SECRET), b"k" * 32], **MESSAGE)

    first, second = headers["webhook-signature"].split(" ")
    assert (first, second) == (SIGNATURE, signature(b"k" * 32, **MESSAGE))
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == (MESSAGE["message_id"], "1614265330")


@pytest.mark.parametrize("odd", ["", "msg.1", "msg 1", "msg\n1"])
def test_id_that_could_be_read_as_something_else_is_not_signed(odd):
    """`a.1` with the time 2 would sign the same as `a` with the time 1.2."""
    with pytest.raises(ValueError, match="full stop"):
        signature(b"k", message_id=odd, timestamp=1, body=b"")


@given(key=st.binary(min_size=1, max_size=64), body=st.binary(max_size=200), timestamp=st.integers(0, 10**11))
def test_a_signature_is_32_bytes_and_depends_on_all_that_is_signed(key, body, timestamp):
    signed = signature(key, message_id="msg_1", timestamp=timestamp, body=body)

    assert len(base64.b64decode(signed.removeprefix("v1,"), validate=True)) == 32
    assert key_of(secret_of(key)) == key
    others = [
        signature(key + b"x", message_id="msg_1", timestamp=timestamp, body=body),
        signature(key, message_id="msg_2", timestamp=timestamp, body=body),
        signature(key, message_id="msg_1", timestamp=timestamp + 1, body=body),
        signature(key, message_id="msg_1", timestamp=timestamp, body=body + b"x"),
    ]
    assert signed not in others
