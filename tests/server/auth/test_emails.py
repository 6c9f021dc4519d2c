import pytest
from hypothesis import given
from hypothesis import strategies as st

from beray.server.auth.emails import envelope_address, normalise_email
from beray.server.errors import Refused


@pytest.mark.parametrize(
    ("raw", "normal"),
    [
        ("user@example.com", "user@example.com"),
        ("  User@EXAMPLE.Com ", "user@example.com"),
        ("ｕｓｅｒ@ｅｘａｍｐｌｅ．com", "user@example.com"),
        ("\u212aate@example.com", "kate@example.com"),  # the Kelvin sign folds to k
        ("te\u0301st@example.com", "t\u00e9st@example.com"),
        ("user+tag@example.com", "user+tag@example.com"),  # another mailbox for some: not ours to fold
        ("用户@例子.广告", "用户@例子.广告"),
        ("user@xn--fsqu00a.com", "user@例子.com"),
    ],
)
def test_address_has_one_spelling(raw, normal):
    assert normalise_email(raw) == normal


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "user",
        "@example.com",
        "user@",
        "user@localhost",
        "local@localhost",
        "user@example.com, other@example.com",
        "user@example.com\r\nBcc: other@example.com",
        "user@example.com\n",
        "user\r@example.com",
        "us\x00er@example.com",
        "us\x7fer@example.com",
        "us\u202eer@example.com",
        '"us er"@example.com',
        "User <user@example.com>",
        "user@[127.0.0.1]",
        "user@@example.com",
        "x" * 400 + "@example.com",
        "user@" + "x" * 64 + ".com",
    ],
)
def test_what_is_no_address_is_refused(raw):
    with pytest.raises(Refused) as refused:
        normalise_email(raw)

    assert refused.value.code == "invalid_email"
    assert len(refused.value.detail("en")) < 600


@given(
    st.text(min_size=1, max_size=20).map(lambda local: f"{local}@example.com")
    | st.text(min_size=1, max_size=20).map(lambda domain: f"user@{domain}.com")
)
def test_spelling_does_not_change_when_normalised_again(raw):
    try:
        normal = normalise_email(raw)
    except Refused:
        return

    assert normalise_email(normal) == normal
    assert normal.isprintable()
    assert normal.count("@") == 1


def test_domain_goes_to_smtp_in_ascii():
    assert envelope_address("user@例子.com") == "user@xn--fsqu00a.com"
    assert envelope_address("用户@例子.com") == "用户@例子.com"
