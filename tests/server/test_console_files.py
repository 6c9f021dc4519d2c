"""The console's files, and what is left to the API."""

import gzip
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from fastapi import FastAPI

from beray.server.app import install_error_handlers
from beray.server.console_files import OTHERS, POLICY, ConsoleFiles, is_others
from beray.server.edge import Edge
from tests.support.asgi import served
from tests.support.server import ServerProcess

INDEX = b'<!doctype html><title>BeRay</title><script type="module" src="/console.js"></script>'
SCRIPT = b"export const answer = 42;\n" * 100
PAGE_WANTED = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
PLAIN = {"Accept-Encoding": "identity"}


def app(folder: Path) -> Edge:
    web = FastAPI(docs_url=None, openapi_url=None)

    @web.get("/health")
    async def health() -> str:
        return "alive"

    install_error_handlers(web)
    return Edge(ConsoleFiles(web, folder), default_language="zh", max_body_bytes=1000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build as small as can be, and what no build holds."""
    folder = tmp_path_factory.mktemp("console")
    (folder / "chunks").mkdir()
    (folder / "index.html").write_bytes(INDEX)
    (folder / "console.js").write_bytes(SCRIPT)
    (folder / "chunks" / "admin.js").write_bytes(b"1")
    (folder / "favicon.svg").write_bytes(b"<svg/>" * 1000)
    (folder / "favicon.ico").write_bytes(b"\0" * 2000)
    (folder / "notes.py").write_bytes(b"secret")
    return folder


@pytest.fixture(scope="module")
def url(folder: Path) -> Iterator[str]:
    with served(app(folder)) as url:
        yield url


def test_file_is_sent_with_its_type_and_a_tag_of_its_content(url: str) -> None:
    answer = requests.get(f"{url}/console.js", headers=PLAIN, timeout=10)

    assert (answer.status_code, answer.content) == (200, SCRIPT)
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["etag"] == f'"{hashlib.sha256(SCRIPT).hexdigest()[:32]}"'
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-request-id"]


def test_policy_lets_in_nothing_of_others_and_nothing_written_into_the_page() -> None:
    """A script or style from outside, or within the page, would be an attacker's; so would be a frame around it."""
    assert "'unsafe" not in POLICY
    assert "http" not in POLICY
    assert "*" not in POLICY
    assert {"default-src 'self'", "object-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"} <= set(
        POLICY.split("; ")
    )


def test_unchanged_file_is_not_sent_again(url: str) -> None:
    for encoding in ("identity", "gzip"):
        got = requests.get(f"{url}/console.js", headers={"Accept-Encoding": encoding}, timeout=10)
        asked = {"Accept-Encoding": encoding, "If-None-Match": got.headers["etag"]}
        again = requests.get(f"{url}/console.js", headers=asked, timeout=10)

        assert (again.status_code, again.content) == (304, b"")
        for name in ("etag", "cache-control", "vary", "content-security-policy"):
            assert again.headers[name] == got.headers[name]
        assert requests.get(f"{url}/console.js", headers=asked | {"If-None-Match": '"x"'}, timeout=10).content == SCRIPT


@pytest.mark.parametrize(
    ("accepted", "is_packed"),
    [("gzip", True), ("br, GZip;q=0.5", True), ("identity", False), ("gzip;q=0", False), ("gzip; q=0.000", False)],
)
def test_text_is_packed_for_who_takes_it(url: str, accepted: str, is_packed: bool) -> None:
    with requests.get(f"{url}/console.js", headers={"Accept-Encoding": accepted}, stream=True, timeout=10) as answer:
        sent = answer.raw.read(decode_content=False)

    assert answer.headers["vary"] == "Accept-Encoding"
    assert int(answer.headers["content-length"]) == len(sent)
    assert ("content-encoding" in answer.headers) is is_packed
    assert ("gzip" in answer.headers["etag"]) is is_packed
    assert (gzip.decompress(sent) if is_packed else sent) == SCRIPT


@pytest.mark.parametrize("name", ["favicon.ico", "chunks/admin.js"])
def test_what_gains_nothing_is_sent_as_it_is(url: str, name: str) -> None:
    answer = requests.get(f"{url}/{name}", headers={"Accept-Encoding": "gzip"}, timeout=10)

    assert answer.status_code == 200
    assert not {"content-encoding", "vary"} & {header.lower() for header in answer.headers}


def test_head_has_the_headers_and_no_body(url: str) -> None:
    got = requests.get(f"{url}/console.js", headers=PLAIN, timeout=10)

    head = requests.head(f"{url}/console.js", headers=PLAIN, timeout=10)

    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-length", "etag", "content-type"):
        assert head.headers[name] == got.headers[name]


@pytest.mark.parametrize("path", ["/", "/index.html", "/login", "/tasks/7", "/tasks/7/", "/tasks?q=a.b", "/apiary"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_address_of_a_person_is_the_page(url: str, method: str, path: str) -> None:
    answer = requests.request(method, url + path, headers=PAGE_WANTED, timeout=10)

    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.content == (INDEX if method == "GET" else b"")


def test_who_asks_for_no_page_gets_it_at_the_root_only(url: str) -> None:
    assert requests.get(url, timeout=10).content == INDEX
    assert is_not_found(requests.get(f"{url}/tasks/7", timeout=10))
    assert is_not_found(requests.get(f"{url}/tasks/7", headers={"Accept": "text/html;q=0, */*"}, timeout=10))


@pytest.mark.parametrize(
    "path",
    [
        "/api",
        "/api/v1",
        "/api/v1/nowhere",
        "/docs/nowhere",
        "/metrics",
        "/openapi.json",
        "/nope.png",
        "/chunks/nope.js",
        "/chunks/nope.js/",
        "/notes.py",
        "/../secret.key",
        "/%2e%2e/%2e%2e/secret.key",
        "/console.js%00",
    ],
)
def test_what_is_no_address_of_a_person_stays_a_refusal(url: str, path: str) -> None:
    prepared = requests.Request("GET", url, headers=PAGE_WANTED).prepare()
    prepared.url = url + path
    with requests.Session() as session:
        assert is_not_found(session.send(prepared, timeout=10))


def is_not_found(answer: requests.Response) -> bool:
    return (answer.status_code, answer.json()["code"]) == (404, "not_found")


def test_other_methods_and_routes_are_the_applications(url: str) -> None:
    assert is_not_found(requests.post(f"{url}/tasks/7", headers=PAGE_WANTED, timeout=10))
    assert is_not_found(requests.post(url, headers=PAGE_WANTED, timeout=10))
    assert requests.get(f"{url}/health", headers=PAGE_WANTED, timeout=10).json() == "alive"
    assert requests.post(f"{url}/health", timeout=10).status_code == 405


@pytest.mark.parametrize(("language", "sentence"), [("zh", "此安装没有网页控制台"), ("en", "has no web console")])
def test_without_files_the_page_says_how_to_build_them(tmp_path: Path, language: str, sentence: str) -> None:
    with served(app(tmp_path / "none")) as url:
        for path in ("/", "/tasks/7"):
            answer = requests.get(url + path, headers=PAGE_WANTED | {"Accept-Language": language}, timeout=10)

            assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert sentence in answer.text
            assert "make console" in answer.text
        assert is_not_found(requests.get(f"{url}/console.js", headers=PAGE_WANTED, timeout=10))


def test_no_route_of_the_server_is_hidden_by_the_page(server: ServerProcess) -> None:
    paths = requests.get(f"{server.base_url}/openapi.json", timeout=10).json()["paths"]

    assert all(is_others(path) for path in paths)
    for path in OTHERS:
        answer = requests.get(server.base_url + path, headers=PAGE_WANTED, timeout=10)
        assert answer.headers.get("content-security-policy") != POLICY
        assert path == "/docs" or "json" in answer.headers["content-type"]
