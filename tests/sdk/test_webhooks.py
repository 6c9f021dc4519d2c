"""`beray.webhooks`: what a receiver believes, and what not."""

import json
import pickle
import subprocess
import sys
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

import beray
from beray.exceptions import BeRayException, WebhookRefused
from beray.webhooks import sign, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + "b3RoZXIga2V5IG9mIDMyIGJ5dGVzISEh"
NOW = 1_800_000_000
EVENT = {"type": "task.finished", "timestamp": "2027-01-15T08:00:00.000Z", "data": {"id": 3, "status": "完成"}}
BODY = json.dumps(EVENT).encode()


def signed(body=BODY, secret=SECRET, now=NOW):
    return sign(body, secret, message_id="msg_3_1_9", now=now)


def refusal(headers, body=BODY, secret=SECRET, **options) -> str:
    with pytest.raises(WebhookRefused) as refused:
        verify(headers, body, secret, now=NOW, **options)
    return refused.value.reason


def message_of(headers) -> Message:
    """Headers as `http.server` has them."""
    message = Message()
    for name, value in headers.items():
        message[name] = value
    return message


@pytest.mark.parametrize(
    "shape",
    [
        dict,
        lambda headers: {name.upper(): value for name, value in headers.items()},
        lambda headers: {name.title(): f" {value} " for name, value in headers.items()},
        lambda headers: {name.encode(): value.encode() for name, value in headers.items()},
        lambda headers: [(name.encode(), value.encode()) for name, value in headers.items()],
        lambda headers: [("Host", "h"), ("Host", "h"), *headers.items()],
        message_of,
    ],
)
@pytest.mark.parametrize("body", [BODY, BODY.decode(), bytearray(BODY)])
def test_what_the_server_signed_is_believed(shape, body):
    assert verify(shape(signed()), body, SECRET, now=NOW) == EVENT


def test_vector_of_the_specification_is_believed():
    headers = {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }

    with pytest.raises(WebhookRefused) as refused:
        verify(headers, '{"test": 2432232314}', SECRET, now=1614265330)

    assert refused.value.reason == "body", "believed, but no event of ours"


def test_while_secrets_change_both_are_good():
    during = signed(secret=[OTHER, SECRET])

    assert verify(during, BODY, SECRET, now=NOW) == EVENT
    assert verify(during, BODY, OTHER, now=NOW) == EVENT
    assert verify(signed(secret=OTHER), BODY, [SECRET, OTHER], now=NOW) == EVENT
    assert refusal(signed(secret=OTHER)) == "signature"


def test_signatures_of_other_versions_are_passed_over():
    headers = signed()
    odd = f"v1a,{'x' * 20} v2,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc= v1, v1 é  {headers['webhook-signature']}"

    assert verify({**headers, "webhook-signature": odd}, BODY, SECRET, now=NOW) == EVENT
    assert refusal({**headers, "webhook-signature": odd.rpartition(" ")[0]}) == "signature"
    assert refusal({**headers, "webhook-signature": headers["webhook-signature"].replace("v1,", "v2,")}) == "signature"


@pytest.mark.parametrize(("age", "is_good"), [(0, True), (300, True), (-300, True), (301, False), (-301, False)])
def test_message_is_believed_for_five_minutes(age, is_good):
    headers = signed(now=NOW - age)

    if is_good:
        assert verify(headers, BODY, SECRET, now=NOW) == EVENT
    else:
        assert refusal(headers) == "timestamp"
        assert verify(headers, BODY, SECRET, now=NOW, tolerance_seconds=400) == EVENT


@pytest.mark.parametrize("text", ["soon", "1e9", "-1", "1800000000.0", "９", "nan", "9" * 400, "0x10", ""])
def test_time_that_is_none_is_refused(text):
    assert refusal({**signed(), "webhook-timestamp": text}) in {"timestamp", "headers"}


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_header_that_is_missing_or_there_twice_is_refused(name):
    headers = signed()
    without = {each: value for each, value in headers.items() if each != name}

    assert refusal(without) == "headers"
    assert refusal({**without, name: " "}) == "headers"
    assert refusal([*headers.items(), (name.upper(), "other")]) == "headers"


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_bytes_that_are_no_text_are_refused(name):
    """As frameworks hand them over that decode with `surrogateescape`."""
    assert refusal({**signed(), name: "\udcff"}) in {"headers", "timestamp", "signature"}


@pytest.mark.parametrize("space", ["\xa0", "\x85", "\x0b", "\x0c", "\x1c", "\n"])
def test_message_does_not_come_again_under_an_id_that_looks_new(space):
    """HTTP takes spaces and tabs from around a value alone, so a receiver sees another id."""
    headers = signed()

    assert refusal({**headers, "webhook-id": headers["webhook-id"] + space}) == "headers"


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{}", b'{"type": 1, "data": {}}', b"\xff", b"[" * 100_000, b'{"type":"x"}']
)
def test_body_that_is_no_event_is_refused_though_it_is_signed(body):
    assert refusal(signed(body), body) == "body"


@given(position=st.integers(0, len(BODY) - 1), bit=st.integers(0, 7))
def test_body_with_one_bit_changed_is_refused(position, bit):
    changed = bytearray(BODY)
    changed[position] ^= 1 << bit

    assert refusal(signed(), bytes(changed)) == "signature"


@given(data=st.data())
def test_header_with_one_character_changed_is_refused(data):
    headers = signed()
    name = data.draw(st.sampled_from(sorted(headers)))
    position = data.draw(st.integers(0, len(headers[name]) - 1))
    new = data.draw(st.characters(min_codepoint=33, max_codepoint=255).filter(lambda c: c != headers[name][position]))
    changed = {**headers, name: headers[name][:position] + new + headers[name][position + 1 :]}

    assert refusal(changed, tolerance_seconds=10**12) in {"signature", "headers", "timestamp"}


@given(body=st.dictionaries(st.text(), st.text()), secret=st.binary(min_size=24, max_size=64))
def test_whatever_is_signed_is_believed(body, secret):
    content = json.dumps({"type": "x", "data": body}).encode()

    assert verify(sign(content, SECRET, now=NOW), content, SECRET, now=NOW)["data"] == body


def test_parsed_body_is_the_callers_mistake_and_told_as_such():
    with pytest.raises(TypeError, match="raw bytes"):
        verify(signed(), EVENT, SECRET, now=NOW)


@pytest.mark.parametrize("secret", ["", "whsec_", [], ["whsec_?"]])
def test_secret_that_is_none_is_told_whatever_comes(secret):
    with pytest.raises(ValueError, match="secret"):
        verify({}, b"", secret, now=NOW)


def test_secret_that_was_read_as_bytes_is_told():
    with pytest.raises(TypeError, match="decode them"):
        verify(signed(), BODY, SECRET.encode(), now=NOW)


def test_refusal_is_one_line_says_why_and_survives_pickling():
    with pytest.raises(BeRayException) as refused:
        verify(signed(now=NOW - 400), BODY, SECRET, now=NOW)

    again = pickle.loads(pickle.dumps(refused.value))
    assert str(again) == "The webhook was not accepted: it is 400 s old; 300 s are allowed"
    assert again.reason == "timestamp"


def test_clock_is_this_machines_by_default():
    assert verify(sign(BODY, SECRET), BODY, SECRET) == EVENT
    assert beray.webhooks.verify is verify


def test_receiver_needs_the_standard_library_alone():
    program = (
        "import sys, beray; beray.webhooks.verify; beray.WebhookRefused;"
        " print([name for name in ('requests', 'aiohttp', 'urllib3', 'pydantic') if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == "[]\n"
