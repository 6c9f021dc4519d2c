"""What holds for every route: one error shape, request ids, languages, and an OpenAPI document that names them all."""

import re
import socket
from urllib.parse import urlsplit

import jsonschema
import pytest
import requests

WIRE_ROUTES = {
    ("post", "/api/v1/auth/request-verification-code"),
    ("post", "/api/v1/auth/register"),
    ("post", "/api/v1/auth/login"),
    ("post", "/api/v1/auth/token"),
    ("post", "/api/v1/auth/logout"),
    ("post", "/api/v1/auth/reset-password"),
    ("get", "/api/v1/auth/session"),
    ("get", "/api/v1/users/me"),
    ("delete", "/api/v1/users/me"),
    ("put", "/api/v1/users/me/password"),
    ("get", "/api/v1/users/me/sessions"),
    ("delete", "/api/v1/users/me/sessions"),
    ("delete", "/api/v1/users/me/sessions/{session_id}"),
    ("get", "/api/v1/users/me/tokens"),
    ("post", "/api/v1/users/me/tokens"),
    ("delete", "/api/v1/users/me/tokens/{token_id}"),
    ("get", "/api/v1/users/me/usage"),
    ("get", "/api/v1/users/me/webhook"),
    ("put", "/api/v1/users/me/webhook"),
    ("post", "/api/v1/tasks"),
    ("get", "/api/v1/tasks"),
    ("get", "/api/v1/tasks/{task_id}"),
    ("post", "/api/v1/tasks/{task_id}/start"),
    ("post", "/api/v1/tasks/{task_id}/messages"),
    ("get", "/api/v1/tasks/{task_id}/stream"),
    ("post", "/api/v1/tasks/{task_id}/stop"),
    ("delete", "/api/v1/tasks/{task_id}"),
    ("get", "/api/v1/tasks/{task_id}/output/{call_id}"),
    ("get", "/api/v1/tasks/{task_id}/files/tree"),
    ("get", "/api/v1/tasks/{task_id}/files/content"),
    ("put", "/api/v1/tasks/{task_id}/files/content"),
    ("delete", "/api/v1/tasks/{task_id}/files/content"),
    ("post", "/api/v1/tasks/{task_id}/files/download"),
    ("get", "/api/v1/tasks/{task_id}/files/download"),
    ("get", "/api/v1/admin/overview"),
    ("get", "/api/v1/admin/users"),
    ("put", "/api/v1/admin/users/{user_id}"),
    ("get", "/api/v1/admin/tasks"),
    ("post", "/api/v1/admin/tasks/{task_id}/stop"),
    ("get", "/api/v1/admin/audit"),
    ("get", "/api/v1/info"),
    ("post", "/api/v1/model/check"),
    ("get", "/health"),
    ("get", "/ready"),
}
OPEN = {"/api/v1/info", "/health", "/ready"} | {
    f"/api/v1/auth/{name}"
    for name in ("request-verification-code", "register", "login", "token", "reset-password", "session")
}


def openapi_routes(server) -> set[tuple[str, str]]:
    document = requests.get(f"{server.base_url}/openapi.json", timeout=10).json()
    return {(method, path) for path, methods in document["paths"].items() for method in methods if method != "head"}


def test_openapi_names_the_routes_of_the_contract(server):
    assert openapi_routes(server) == WIRE_ROUTES


def test_every_other_route_needs_a_login(server):
    for method, path in sorted(WIRE_ROUTES):
        if path not in OPEN:
            url = server.base_url + re.sub(r"{\w+}", "1", path)
            named = dict.fromkeys(("goal", "content", "name", "password", "current_password", "new_password"), "x")
            body = {**named, "url": None, "is_admin": False}
            answer = requests.request(method, url, params={"path": "x"}, json=body, timeout=10)
            assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated"), (method, path)
            assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/api/v1/nowhere/", 404, "not_found"),
        ("GET", "/api/v2/tasks", 404, "not_found"),
        ("PATCH", "/api/v1/tasks/1", 405, "method_not_allowed"),
        ("GET", "/api/v1/auth/login", 405, "method_not_allowed"),
        ("GET", "/api/v1/tasks/abc", 422, "validation_error"),
        ("POST", "/api/v1/auth/login", 422, "validation_error"),
    ],
)
def test_errors_have_the_one_shape(server, method, path, status, code):
    answer = requests.request(method, server.base_url + path, timeout=10, allow_redirects=False)

    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    problem = answer.json()
    assert {"detail", "code", "status", "title", "request_id"} <= set(problem)
    assert (problem["code"], problem["status"]) == (code, status)
    assert (status == 422) == ("errors" in problem)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/v1/tasks", ["GET", "POST"]),
        ("/api/v1/tasks/1/", ["DELETE", "GET"]),
        ("/api/v1/tasks/1/files/content", ["DELETE", "GET", "HEAD", "PUT"]),
        ("/api/v1/auth/login", ["POST"]),
        ("/health", ["GET", "HEAD"]),
    ],
)
def test_a_refused_method_is_answered_with_all_that_the_path_takes(server, path, allowed):
    answer = requests.patch(server.base_url + path, timeout=10)

    assert answer.status_code == 405
    assert answer.headers["allow"] == ", ".join(allowed)
    assert ", ".join(allowed) in answer.json()["detail"]


def test_a_body_that_is_no_json_is_told_as_such(server):
    answer = requests.post(
        f"{server.base_url}/api/v1/auth/login",
        data=b"{bad",
        headers={"Content-Type": "application/json", "Accept-Language": "en"},
        timeout=10,
    )

    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")
    assert answer.json()["detail"] == "The request is not valid: This is not valid JSON."
    assert answer.json()["errors"] == [{"loc": ["body"], "msg": "This is not valid JSON.", "type": "json_invalid"}]


def test_request_id_is_the_clients_if_it_is_sane(server):
    def answered(sent: str) -> str:
        return requests.get(f"{server.base_url}/health", headers={"X-Request-ID": sent}, timeout=10).headers[
            "x-request-id"
        ]

    assert answered("my-id.1") == "my-id.1"
    for odd in ("", "a b", "x" * 200, "é", "<script>"):
        assert re.fullmatch(r"req_[0-9a-f]{24}", answered(odd))


@pytest.mark.parametrize(
    ("accepted", "is_chinese"),
    [
        (None, True),
        ("", True),
        ("en", False),
        ("en-US,en;q=0.9,zh;q=0.8", False),
        ("fr, zh;q=0.5, en;q=0.4", True),
        ("zh;q=0, en;q=0.1", False),
        ("de", True),
        (";;;,q=,en;q=x", True),
    ],
)
def test_messages_are_chinese_unless_english_is_preferred(server, accepted, is_chinese):
    headers = {} if accepted is None else {"Accept-Language": accepted}

    detail = requests.get(f"{server.base_url}/api/v1/users/me", headers=headers, timeout=10).json()["detail"]

    assert bool(re.search(r"[\u4e00-\u9fff]", detail)) is is_chinese


def test_info_says_what_works_and_what_confines_it(server):
    info = requests.get(f"{server.base_url}/api/v1/info", timeout=10).json()

    assert (info["model"], info["model_kind"]) == ("beray:rules", "rules")
    assert "AI" in info["model_notice"]["en"]
    assert info["sandbox"]["backend"] in {"bubblewrap", "landlock"}
    assert {row["name"] for row in info["sandbox"]["confinements"]} >= {"files", "network", "processes"}
    assert all(row["is_confined"] or row["note"] for row in info["sandbox"]["confinements"])


def test_info_says_what_a_person_needs_before_logging_in(server):
    """Where the code is to be found, what a password may be, how to set a first model; nothing of it is secret."""
    info = requests.get(f"{server.base_url}/api/v1/info", timeout=10).json()

    assert (info["mail"], info["retention_days"]) == ("outbox", 0)
    assert info["password"] == {"least_characters": 8, "most_characters": 256}
    assert info["model_keys"][0] == {"variable": "OPENAI_API_KEY", "model": "openai:gpt-5"}
    assert all(entry["variable"].endswith("_API_KEY") for entry in info["model_keys"])


def test_info_lists_the_tools_a_task_may_ask_for(server):
    url = f"{server.base_url}/api/v1/info"

    tools = requests.get(url, headers={"Accept-Language": "en"}, timeout=10).json()["tools"]

    asked = requests.get(f"{server.base_url}/openapi.json", timeout=10).json()["components"]["schemas"]["CreateTask"]
    assert asked["properties"]["tools"]["anyOf"][0]["items"] == {"enum": [tool["name"] for tool in tools]}
    assert tools[0] == {"name": "shell", "description": "runs a bash command", "is_default": True}
    in_chinese = requests.get(url, timeout=10).json()["tools"]
    assert in_chinese[0]["description"] == "运行 bash 命令"


def test_ready_names_every_part(server):
    answer = requests.get(f"{server.base_url}/ready", timeout=10)

    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert set(answer.json()["checks"]) == {"database", "engine", "sandbox", "model"}


def test_ready_says_what_confines_the_commands_and_what_not(server):
    info = requests.get(f"{server.base_url}/api/v1/info", timeout=10).json()

    ready = requests.get(f"{server.base_url}/ready", timeout=10).json()

    assert (ready["model"], ready["model_kind"]) == ("beray:rules", "rules")
    assert ready["sandbox"] == info["sandbox"]


def test_the_page_of_the_api_names_every_route_and_loads_nothing(server):
    answer = requests.get(f"{server.base_url}/docs", timeout=10)

    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    for method, path in WIRE_ROUTES:
        assert f"<b>{method.upper()}</b> <code>{path}</code>" in answer.text
    assert re.findall(r"""(?:src|href)\s*=\s*["']?([^"' >]+)""", answer.text) == ["/openapi.json"]
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_health_can_be_asked_without_a_body(server):
    answer = requests.head(f"{server.base_url}/health", timeout=10)

    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize("query", ["path=%ff", "path=a%ED%A0%80", "q=%C3", "x=%e4%b8"])
def test_query_that_is_not_utf8_is_refused(server, query):
    """Read leniently, `%ff` and `%fe` would be one file."""
    answer = requests.get(f"{server.base_url}/api/v1/info?{query}", timeout=10)

    assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")
    assert answer.json()["errors"][0]["loc"] == ["query"]
    assert requests.get(f"{server.base_url}/api/v1/info?x=%E4%B8%AD%25ff", timeout=10).status_code == 200


def test_asking_for_a_websocket_gets_the_answer_in_the_one_shape(server):
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "x", "Sec-WebSocket-Version": "13"}

    answer = requests.get(f"{server.base_url}/api/v1/users/me", headers=headers, timeout=10)

    assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")


def test_server_set_to_english_refuses_in_english_what_asks_for_no_language(make_server):
    server = make_server(language="en").start()

    plain = requests.get(f"{server.base_url}/nowhere", timeout=10)
    parts = urlsplit(server.base_url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as client:
        client.sendall(b"no http\r\n\r\n")
        broken = client.recv(65536)

    assert plain.json()["detail"].startswith("There is nothing at")
    assert b"This is not a valid HTTP request." in broken


def test_answers_are_what_openapi_says(server):
    """The routes that the framework does not answer are described by its models all the same."""
    token = server.register("schema@example.com")
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {token}"
    api = f"{server.base_url}/api/v1/tasks"
    document = session.get(f"{server.base_url}/openapi.json", timeout=10).json()
    task_id = session.post(api, json={"goal": "Stay", "hold": True, "tools": ["shell"]}, timeout=10).json()["id"]
    content = f"/api/v1/tasks/{task_id}/files/content"

    def check(method: str, path: str, described: str, **request: object) -> None:
        answer = session.request(method, server.base_url + path, timeout=10, **request)
        told = document["paths"][described][method.lower()]["responses"][str(answer.status_code)]
        [(media_type, body)] = told["content"].items()
        assert answer.headers["content-type"] == media_type
        jsonschema.validate(answer.json(), {**body["schema"], "components": document["components"]})
        schema = document["components"]["schemas"].get(body["schema"].get("$ref", "").rpartition("/")[2])
        if schema is not None:
            assert set(answer.json()) <= set(schema["properties"])

    for path in (f"/api/v1/tasks/{task_id}", f"/api/v1/tasks/{task_id}?events=none", "/api/v1/tasks/999999999"):
        check("GET", path, "/api/v1/tasks/{task_id}")
    check("GET", "/api/v1/info", "/api/v1/info")
    check("GET", "/ready", "/ready")
    check("GET", "/api/v1/tasks", "/api/v1/tasks")
    check("GET", "/api/v1/tasks?limit=1", "/api/v1/tasks")
    check("PUT", f"{content}?path=a", "/api/v1/tasks/{task_id}/files/content", data=b"x")
    check("PUT", f"{content}?path=a", "/api/v1/tasks/{task_id}/files/content", data=b"x")
    check("GET", f"{content}?path=no", "/api/v1/tasks/{task_id}/files/content")
    check("GET", "/api/v1/tasks/999999999/stream", "/api/v1/tasks/{task_id}/stream")
