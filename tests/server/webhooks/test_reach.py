"""Which URLs webhooks may have, and which addresses they may lead to."""

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from beray.server.settings import SettingError, Settings
from beray.server.webhooks.reach import PUBLIC_URL, Reach, host_of, open_reach

PUBLIC = Reach()
GOOD = [
    "https://example.com",
    "https://Example.COM/",
    "https://a.b-c.example.com:8443/hook/1?token=a%20b&c=d/e?f",
    "https://example.com:443",
    "https://example.com:65535/",
    "https://xn--fiqs8s.example/x;y@z:1",
    "https://example.com?x",
]
BAD = [
    "",
    "example.com/hook",
    "http://example.com/",
    "ftp://example.com/",
    "//example.com/",
    "https:/example.com/",
    "https:///hook",
    "https://user@example.com/",
    "https://user:password@example.com/",
    "https://example.com/#part",
    "https://example.com\\@127.0.0.1/",
    "https://example.com/a b",
    "https://example.com/\nx",
    "https://example.com/\n",
    " https://example.com/",
    "https://exämple.com/",
    "https://example.com/ä",
    "https://localhost/",
    "https://intranet/",
    "https://example.com./",
    "https://example..com/",
    "https://-x.com:0/",
    "https://example.com:",
    "https://example.com:0",
    "https://example.com:22/",
    "https://example.com:80/",
    "https://example.com:65536/",
    "https://example.com:04433/",
    "https://93.184.216.34/",
    "https://127.0.0.1/",
    "https://127.1/",
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://169.254.169.254/latest/meta-data/",
    "https://[::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[fe80::1%25eth0]/",
    "https://127.0.0.1.1/",
    "https://example.com/" + "x" * 2048,
]


@pytest.mark.parametrize("url", GOOD)
def test_https_to_a_full_name_is_taken(url):
    assert PUBLIC.takes(url)


@pytest.mark.parametrize("url", BAD)
def test_anything_else_is_not(url):
    assert not PUBLIC.takes(url)


@given(st.from_regex(PUBLIC_URL, fullmatch=True, alphabet=st.characters(max_codepoint=127)))
def test_what_the_document_describes_is_read_alike_by_who_connects(url):
    import httpx2

    if PUBLIC.takes(url):
        read = httpx2.URL(url)
        assert (read.scheme, read.raw_host.decode(), read.userinfo) == ("https", host_of(url), b"")


@pytest.mark.parametrize(
    ("entries", "url"),
    [
        (["hooks.lan"], "http://hooks.lan/x"),
        (["hooks.lan"], "https://HOOKS.lan:80/x"),
        (["hooks"], "http://hooks:8080"),
        (["localhost"], "http://localhost:9000/"),
        (["10.0.0.0/8"], "http://10.1.2.3/"),
        (["127.0.0.1"], "http://127.0.0.1:81/x"),
        (["::1"], "http://[::1]:81/x"),
        (["fd00::/8"], "http://[fd00::1]/"),
        (["1"], "http://anything/"),
        (["1"], "http://169.254.169.254/"),
    ],
)
def test_operator_can_list_what_else_is_called(entries, url):
    reach = open_reach(Settings(webhook_allow_private=tuple(entries)))

    assert reach.takes(url)
    assert not PUBLIC.takes(url)
    assert not open_reach(Settings(webhook_allow_private=("other.lan", "192.168.0.0/16", "0"))).takes(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://u@hooks.lan/",
        "http://hooks.lan/#x",
        "ftp://hooks.lan/",
        "http://hooks.lan:0/",
        "http://hooks.lan:65536/",
        "http://hooks.lan:99999/",
    ],
)
def test_listed_host_gets_no_other_forms(url):
    assert not open_reach(Settings(webhook_allow_private=("hooks.lan", "1"))).takes(url)


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1."])
def test_address_in_disguise_is_not_the_listed_one(host):
    assert not open_reach(Settings(webhook_allow_private=("127.0.0.1",))).takes(f"http://{host}/")


@pytest.mark.parametrize(
    "entry", ["http://hooks.lan", "hooks.lan:80", "10.0.0.0/33", "10.0.0.1/8", "a b", "10.0.0", "*"]
)
def test_entry_that_cannot_be_used_stops_the_start(entry):
    with pytest.raises(SettingError, match=rf"BERAY_WEBHOOK_ALLOW_PRIVATE.*{re.escape(repr(entry))}"):
        open_reach(Settings(webhook_allow_private=(entry,)))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "169.254.169.254",
        "10.0.0.1",
        "100.64.0.1",
        "0.0.0.0",
        "::1",
        "::ffff:127.0.0.1",
        "fe80::1",
        "fd00::1",
    ],
)
def test_name_that_means_an_inner_address_is_refused(address):
    judged = ipaddress.ip_address(address)

    assert PUBLIC.rule_for("example.com")(judged) is not None
    assert Reach(names=frozenset({"other.lan"})).rule_for("example.com")(judged) is not None
    assert Reach(names=frozenset({"hooks.lan"})).rule_for("hooks.lan")(judged) is None
    assert Reach(is_anywhere=True).rule_for("example.com")(judged) is None


def test_listed_network_is_reached_by_any_name():
    rule = open_reach(Settings(webhook_allow_private=("10.0.0.0/8",))).rule_for("example.com")

    assert rule(ipaddress.ip_address("10.1.1.1")) is None
    assert rule(ipaddress.ip_address("192.168.1.1")) is not None
