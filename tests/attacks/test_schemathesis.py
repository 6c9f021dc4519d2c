"""Attack 57: random and hostile requests, made from /openapi.json, against a running server.

Schemathesis makes them in four ways (examples, the borders of each schema, at random, and chains of calls), as two
users who log in as people do, and holds every answer against what the document says. `make soak` makes more.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.rounds import is_long, rounds, seeded
from tests.support.server import PASSWORD, ServerProcess

ROOT = Path(__file__).parents[2]
EXAMPLES = rounds(short=10)  # of each operation
SEED = seeded()[0] if is_long() else 57
SECONDS_MOST = 100 + EXAMPLES * 10
USERS = {name: f"{name}-of-schemathesis@example.com" for name in ("ann", "bob")}

# Two checks are told what they can't know, both because of WIRE.md:
# - register and reset-password refuse a code that was never mailed with 400, and no request made from the document can
#   hold a right one. As the console's, register is refused with 403: a request without `Origin` is none of a browser's.
# - download refuses with 404 where one of the files that its body names is missing. The check looks at parameters, not
#   at bodies, and takes any 404 after a task was created for a lost task.
CONFIG = """
hooks = "tests.support.schemathesis_hooks"
generation.max-examples = {examples}
phases.stateful.generation.max-examples = {chains}

[auth.wfc]
path = "{users}"
peers = ["ann", "bob"]

[[operations]]
include-path = ["/api/v1/auth/register", "/api/v1/auth/reset-password"]
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 403, 409, 429, "5xx"]

[[operations]]
include-path = "/api/v1/tasks/{{task_id}}/files/download"
include-method = "POST"
checks.ensure_resource_availability.enabled = false
"""
# Success needs a chain that happens to hold a task, or to name the file it made; the ownership model does all of it.
BY_CHANCE = {
    "POST /api/v1/tasks/{task_id}/start",
    "POST /api/v1/tasks/{task_id}/stop",
    "POST /api/v1/admin/tasks/{task_id}/stop",
    "DELETE /api/v1/tasks/{task_id}/files/content",
    "GET /api/v1/tasks/{task_id}/output/{call_id}",
    "DELETE /api/v1/users/me/sessions/{session_id}",
}
# Success needs a secret: a mailed code, or a password (the users' own logins are made beside the checked calls).
UNREACHABLE = {f"POST /api/v1/auth/{name}" for name in ("register", "login", "token", "reset-password")} | {
    "PUT /api/v1/users/me/password",
    "DELETE /api/v1/users/me",
}

CHECKS = {
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
    "missing_required_header",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
    "ensure_resource_availability",
    "ignored_auth",
    "object_level_authorization",
}


@dataclass
class Run:
    """What a run of schemathesis did."""

    status: int
    output: str
    statuses: dict[str, set[int]] = field(default_factory=dict)
    checks: set[str] = field(default_factory=set)
    failed: set[tuple[str, str]] = field(default_factory=set)
    phases: set[str] = field(default_factory=set)


def user_entry(name: str) -> dict[str, Any]:
    """How schemathesis logs in as a user, again whenever the token is refused (logging out is one of the calls)."""
    token = {
        "extractFrom": "body",
        "extractSelector": "/access_token",
        "sendIn": "header",
        "sendName": "Authorization",
        "sendTemplate": "Bearer {token}",
    }
    login = {
        "endpoint": "/api/v1/auth/login",
        "verb": "POST",
        "contentType": "application/json",
        "payloadRaw": json.dumps({"email": USERS[name], "password": PASSWORD}),
        "token": token,
    }
    return {"name": name, "loginEndpointAuth": login}


def attack(document: str, folder: Path, *options: str, examples: int) -> Run:
    """Run schemathesis with every check on what the document describes."""
    (folder / "users.json").write_text(json.dumps({"auth": [user_entry(name) for name in USERS]}))
    (folder / "st.toml").write_text(CONFIG.format(users=folder / "users.json", examples=examples, chains=8 * examples))
    events = folder / "events.ndjson"
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(folder / "st.toml"), "run", document]
    common = ["--continue-on-failure", "--request-timeout", "20", "--generation-database", "none"]
    report = ["--report-ndjson-path", str(events), "--output-sanitize", "false", "--no-color"]
    ended = subprocess.run(
        [*command, *common, "--seed", str(SEED), *report, *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},  # where its hooks are
        capture_output=True,
        text=True,
        timeout=SECONDS_MOST,
    )
    return read_run(ended.returncode, ended.stdout + ended.stderr, events)


def read_run(status: int, output: str, events: Path) -> Run:
    run = Run(status, output)
    for line in events.read_text().splitlines():
        scenario = json.loads(line).get("ScenarioFinished")
        if scenario is not None:
            run.phases.add(scenario["phase"])
            take_calls(run, scenario["recorder"])
    return run


def take_calls(run: Run, recorder: dict[str, Any]) -> None:
    cases = {key: case["value"] for key, case in recorder.get("cases", {}).items()}
    labels = {key: f"{case['method']} {case['path']}" for key, case in cases.items()}
    for key, call in recorder.get("interactions", {}).items():
        if call["response"] is not None:
            run.statuses.setdefault(labels[key], set()).add(call["response"]["status_code"])
    for key, checks in recorder.get("checks", {}).items():
        run.checks |= {check["name"] for check in checks}
        run.failed |= {(labels[key], check["name"]) for check in checks if check["status"] == "failure"}


@pytest.fixture(scope="session")
def attacked(server: ServerProcess) -> ServerProcess:
    """With the users whose addresses the hooks know, one of them an admin; a file's tests may run in several parts."""
    for address in USERS.values():
        server.register(address)
    server.promote(USERS["ann"])
    return server


def operations(document: dict[str, Any]) -> set[str]:
    return {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}


@pytest.mark.timeout(SECONDS_MOST + 30)
def test_attack_57_no_request_breaks_what_the_document_says(attacked: ServerProcess, tmp_path: Path) -> None:
    """Every check holds, by request, by chain and as the wrong user, and every operation was really reached."""
    document = requests.get(f"{attacked.base_url}/openapi.json", timeout=10).json()

    run = attack(f"{attacked.base_url}/openapi.json", tmp_path, examples=EXAMPLES)

    assert run.status == 0, run.output
    assert run.checks >= CHECKS
    assert run.phases >= {"coverage", "fuzzing", "stateful"}
    unreached = {label for label in operations(document) if not any(code < 300 for code in run.statuses[label])}
    assert unreached - BY_CHANCE == UNREACHABLE


def test_a_document_that_is_not_true_is_found_out(attacked: ServerProcess, tmp_path: Path) -> None:
    document = requests.get(f"{attacked.base_url}/openapi.json", timeout=10).json()
    wanted = {"name": "x", "in": "query", "required": True, "schema": {"type": "integer"}}
    lies = {
        "/api/v1/users/me": {"responses": {"200": {"description": "Nothing else is told."}}},
        "/api/v1/info": {"security": [{"token": []}]},
        "/health": {"parameters": [wanted]},
    }
    document["paths"] = {path: {"get": document["paths"][path]["get"] | lie} for path, lie in lies.items()}
    (tmp_path / "openapi.json").write_text(json.dumps(document))

    run = attack(str(tmp_path / "openapi.json"), tmp_path, "--url", attacked.base_url, examples=3)

    assert run.status == 1, run.output
    assert run.failed >= {
        ("GET /api/v1/users/me", "status_code_conformance"),
        ("GET /api/v1/info", "ignored_auth"),
        ("GET /health", "negative_data_rejection"),
    }
