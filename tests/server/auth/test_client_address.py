import pytest
from starlette.requests import HTTPConnection

from beray.server.auth.client_address import ClientAddresses
from beray.server.settings import SettingError


def connection(peer: str | None, *forwarded: str) -> HTTPConnection:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return HTTPConnection({"type": "http", "headers": headers, "client": None if peer is None else (peer, 4000)})


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "client"),
    [
        # nobody is trusted: the connection's address, whatever is claimed
        ([], "203.0.113.7", [], "203.0.113.7"),
        ([], "203.0.113.7", ["198.51.100.1"], "203.0.113.7"),
        ([], "127.0.0.1", ["198.51.100.1"], "127.0.0.1"),
        # one proxy: its last entry; what stands left of it was sent by the client
        (["10.0.0.1"], "10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        (["10.0.0.1"], "10.0.0.1", ["192.0.2.66, 198.51.100.1"], "198.51.100.1"),
        (["10.0.0.1"], "10.0.0.1", ["192.0.2.66", "198.51.100.1"], "198.51.100.1"),
        (["10.0.0.1"], "203.0.113.7", ["198.51.100.1"], "203.0.113.7"),
        # a chain of proxies, a network of them
        (["10.0.0.0/8"], "10.0.0.1", ["192.0.2.66, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
        (["10.0.0.0/8"], "10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        # nonsense ends the walk
        (["10.0.0.1"], "10.0.0.1", [], "10.0.0.1"),
        (["10.0.0.1"], "10.0.0.1", ["unknown"], "10.0.0.1"),
        (["10.0.0.1"], "10.0.0.1", [""], "10.0.0.1"),
        # IPv6: a customer's /64 is one client; IPv4 in disguise is IPv4
        ([], "2001:db8:1:2:3:4:5:6", [], "2001:db8:1:2::/64"),
        ([], "2001:db8:1:2:ffff::1", [], "2001:db8:1:2::/64"),
        ([], "::ffff:203.0.113.7", [], "203.0.113.7"),
        (["10.0.0.1"], "::ffff:10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        # a Unix socket has no address
        ([], None, ["198.51.100.1"], "unix"),
        ([], "", [], "unix"),
    ],
)
def test_client_is_told_from_connection_and_trusted_proxies(trusted, peer, forwarded, client):
    assert ClientAddresses(trusted).of(connection(peer, *forwarded)) == client


@pytest.mark.parametrize(
    ("trusted", "peer", "said", "is_https"),
    [
        ([], "203.0.113.7", [], False),
        ([], "203.0.113.7", ["https"], False),
        (["10.0.0.1"], "10.0.0.1", ["https"], True),
        (["10.0.0.1"], "10.0.0.1", ["HTTPS "], True),
        (["10.0.0.1"], "10.0.0.1", ["http"], False),
        (["10.0.0.1"], "10.0.0.1", ["http, https"], True),
        (["10.0.0.1"], "10.0.0.1", ["https", "http"], False),
        (["10.0.0.1"], "10.0.0.1", ["gopher"], False),
        (["10.0.0.1"], "10.0.0.1", [], False),
        (["10.0.0.1"], None, ["https"], False),
    ],
)
def test_https_is_what_a_trusted_proxy_says(trusted, peer, said, is_https):
    headers = [(b"x-forwarded-proto", value.encode()) for value in said]
    scope = {"type": "http", "scheme": "http", "headers": headers, "client": peer and (peer, 4000)}

    assert ClientAddresses(trusted).is_https(HTTPConnection(scope)) is is_https
    assert ClientAddresses(trusted).is_https(HTTPConnection({**scope, "scheme": "https"}))


def test_proxy_that_is_no_address_stops_the_start():
    with pytest.raises(SettingError, match=r"BERAY_TRUSTED_PROXIES holds 'proxy\.example\.com'"):
        ClientAddresses(["10.0.0.1", "proxy.example.com"])
