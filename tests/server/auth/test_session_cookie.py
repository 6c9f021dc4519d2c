"""A login in a browser: its cookie, and whose pages may use it."""

import pytest
import requests
from starlette.requests import HTTPConnection

from beray.server.auth.client_address import ClientAddresses
from beray.server.auth.session_cookie import check_origin
from beray.server.errors import Refused
from tests.server.auth.auth_server import PASSWORD, AuthServer, run_auth_server

EMAIL = "new_user@example.com"
FROM_CONSOLE = {"X-BeRay-Console": "1"}
BEHIND_TLS = {"X-Forwarded-Proto": "https", "Host": "beray.example.com"}


class Browser:
    """Keeps the cookie as a browser would, and says where its page is from."""

    def __init__(self, server: AuthServer, **headers: str) -> None:
        self.url = server.url
        self.headers = {"Origin": server.url, **headers}
        self.cookies: dict[str, str] = {}

    def send(self, method: str, path: str, body: object = None, **headers: str) -> requests.Response:
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent = {**self.headers, **headers} | ({"Cookie": cookie} if cookie else {})
        answer = requests.request(method, self.url + path, json=body, headers=sent, timeout=30)
        if "set-cookie" in answer.headers:
            name, _, value = answer.headers["set-cookie"].partition(";")[0].partition("=")
            self.cookies = {name: value} if value else {}
        return answer

    def log_in(self) -> requests.Response:
        return self.send("POST", "/auth/login", {"email": EMAIL, "password": PASSWORD}, **FROM_CONSOLE)


@pytest.fixture
def browser(server: AuthServer) -> Browser:
    """One whose user has an account, and is not logged in."""
    server.register(EMAIL)
    return Browser(server)


def attributes(answer: requests.Response) -> set[str]:
    return set(answer.headers["set-cookie"].split("; ")[1:])


def test_login_of_the_console_sets_a_cookie_and_shows_no_token(browser: Browser) -> None:
    answer = browser.log_in()

    assert (answer.status_code, set(answer.json())) == (200, {"token_type", "expires_in", "user"})
    assert attributes(answer) == {"Path=/", "Max-Age=2592000", "HttpOnly", "SameSite=Strict"}
    [(name, token)] = browser.cookies.items()
    assert (name, token[:3]) == ("beray_session", "br_")
    assert token not in answer.text
    assert browser.send("GET", "/users/me").json()["email"] == EMAIL


def test_registering_in_the_console_logs_in(server: AuthServer) -> None:
    browser = Browser(server)
    body = {"email": EMAIL, "verification_code": server.code_for(EMAIL), "password": PASSWORD}

    answer = browser.send("POST", "/auth/register", body, **FROM_CONSOLE)

    assert (answer.status_code, set(answer.json())) == (201, {"token_type", "expires_in", "user"})
    assert browser.send("GET", "/users/me").json() == answer.json()["user"]


def test_logout_ends_the_session_and_takes_the_cookie_away(browser: Browser) -> None:
    browser.log_in()
    before = dict(browser.cookies)

    answer = browser.send("POST", "/auth/logout")

    assert answer.status_code == 200
    assert "Max-Age=0" in attributes(answer)
    assert browser.cookies == {}
    browser.cookies = before
    assert browser.send("GET", "/users/me").status_code == 401


def test_session_that_ends_itself_takes_its_cookie_away(browser: Browser) -> None:
    browser.log_in()
    browser.log_in()
    ended = [session for session in browser.send("GET", "/users/me/sessions").json() if not session["is_current"]]

    others = [browser.send("DELETE", f"/users/me/sessions/{session['id']}") for session in ended]
    [current] = browser.send("GET", "/users/me/sessions").json()
    answer = browser.send("DELETE", f"/users/me/sessions/{current['id']}")

    assert [other.headers.get("set-cookie") for other in others] == [None] * len(ended)
    assert (answer.status_code, "Max-Age=0" in attributes(answer)) == (200, True)
    assert browser.cookies == {}


def test_page_asks_who_is_logged_in_without_an_error(browser: Browser) -> None:
    before = browser.send("GET", "/auth/session")
    browser.log_in()
    within = browser.send("GET", "/auth/session")
    elsewhere = browser.send("GET", "/auth/session", **{"Sec-Fetch-Site": "same-site"})
    browser.send("POST", "/auth/logout")
    after = browser.send("GET", "/auth/session")

    assert [(answer.status_code, answer.json()) for answer in (before, after)] == [(200, {"user": None})] * 2
    assert (within.status_code, within.json()["user"]["email"]) == (200, EMAIL)
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (403, "origin_mismatch")


def test_who_sends_no_cookie_gets_none(server: AuthServer) -> None:
    """Nothing changes for programs, whatever origin they name."""
    token = server.register(EMAIL)

    login = server.login(EMAIL, headers={"Origin": "https://elsewhere.example"})
    out = server.bearing(token, "POST", "/auth/logout")

    assert (login.status_code, out.status_code) == (200, 200)
    assert login.json()["access_token"].startswith("br_")
    assert not {"set-cookie"} & {*login.headers, *out.headers}
    assert server.post("/auth/login", {}, headers={"X-BeRay-Console": "yes"}).status_code == 422


def test_over_tls_the_cookie_is_for_tls_alone(tmp_path) -> None:
    """The scheme is what the trusted proxy says; under the plain name nothing counts then."""
    with run_auth_server(tmp_path, rate_limits=False, trusted_proxies=("127.0.0.1",)) as server:
        server.register(EMAIL)
        browser = Browser(server, **BEHIND_TLS, Origin="https://beray.example.com")

        answer = browser.log_in()

        assert attributes(answer) == {"Path=/", "Max-Age=2592000", "HttpOnly", "SameSite=Strict", "Secure"}
        [(name, token)] = browser.cookies.items()
        assert name == "__Host-beray_session"
        assert browser.send("GET", "/users/me").status_code == 200
        assert browser.send("POST", "/auth/logout", Origin="http://beray.example.com").status_code == 403
        browser.cookies = {"beray_session": token}
        assert browser.send("GET", "/users/me").status_code == 401
        browser.cookies = {"__Host-beray_session": token}
        assert "Secure" in attributes(browser.send("POST", "/auth/logout"))
        assert browser.cookies == {}


@pytest.mark.parametrize(
    ("host", "origin", "is_ours"),
    [
        ("beray.example.com", "http://beray.example.com", True),
        ("beray.example.com", "https://beray.example.com", True),  # TLS at a proxy nobody has named
        ("BeRay.example.com:443", "https://beray.example.com", True),
        ("beray.example.com:80", "http://beray.example.com", True),
        ("beray.example.com:8443", "https://beray.example.com:8443", True),
        ("[::1]:8000", "http://[::1]:8000", True),
        ("beray.example.com:80", "https://beray.example.com", False),
        ("beray.example.com:8443", "https://beray.example.com", False),
        ("beray.example.com", "https://beray.example.com:8443", False),
        ("beray.example.com", "null", False),
        ("beray.example.com", "", False),
        ("beray.example.com", None, False),
        ("beray.example.com", "https://evil.example", False),
        ("beray.example.com", "https://sub.beray.example.com", False),
        ("beray.example.com", "https://example.com", False),
        ("beray.example.com", "https://beray.example.com.evil.example", False),
        ("beray.example.com", "https://evilberay.example.com", False),
        ("beray.example.com", "https://evil.example@beray.example.com", False),
        ("beray.example.com", "https://beray.example.com/", False),
        ("beray.example.com", "https://beray.example.com, https://evil.example", False),
        ("beray.example.com", "file://beray.example.com", False),
        ("beray.example.com", "beray.example.com", False),
    ],
)
def test_only_our_own_origin_is_ours(host: str, origin: str | None, is_ours: bool) -> None:
    headers = [(b"host", host.encode())] + ([] if origin is None else [(b"origin", origin.encode())])

    assert is_from_us(headers) is is_ours
    assert is_from_us([*headers, *headers]) is False


def is_from_us(headers: list[tuple[bytes, bytes]]) -> bool:
    try:
        check_origin(HTTPConnection({"type": "http", "headers": headers}), ClientAddresses(()))
    except Refused:
        return False
    return True
