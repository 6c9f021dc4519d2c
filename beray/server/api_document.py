"""/openapi.json: the framework's document, with what it cannot know: errors, login, headers, the models offered."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from fastapi import FastAPI

from beray.protocol.events import Event
from beray.protocol.types import Info, Question, Ready
from beray.server.auth.session_cookie import CONSOLE_HEADER, NAME, SECURE_NAME
from beray.server.refusals import problem_schemas
from beray.server.typed_schemas import schemas_of, tagged_union

REQUEST_ID: Final = {
    "required": True,
    "description": "The client's, if it sent a sane one; name it when you report a fault.",
    "schema": {"type": "string"},
}

SECURITY: Final = {
    "token": {"type": "http", "scheme": "bearer"},
    "console": {
        "type": "apiKey",
        "in": "cookie",
        "name": NAME,
        "description": f"Of a login with `{CONSOLE_HEADER}: 1`; what changes something needs an `Origin` of ours too."
        f" Over https it is called `{SECURE_NAME}`.",
    },
}


def describe_api(web: FastAPI, *, models: Sequence[str], tools: Sequence[str]) -> None:
    """Complete the document that `web.openapi()` gives; `models` and `tools` are the names a task may ask for."""
    make = web.openapi

    def openapi() -> dict[str, Any]:
        is_new = web.openapi_schema is None
        document = make()  # the same one each time
        if is_new:
            _complete(document, models, tools)
        return document

    web.openapi = openapi  # type: ignore[method-assign]  # the framework's own way to change its document


def _complete(document: dict[str, Any], models: Sequence[str], tools: Sequence[str]) -> None:
    components = document.setdefault("components", {})
    components["securitySchemes"] = SECURITY
    components["headers"] = {"RequestId": REQUEST_ID}
    document["security"] = [{name: []} for name in SECURITY]  # either is enough
    paths = document["paths"]
    for path, name in (("/ready", "Ready"), ("/api/v1/info", "Info")):
        if path in paths:  # a worker tells nothing of itself
            paths[path]["get"]["responses"]["200"]["content"] = {"application/json": {"schema": _named(name)}}
    for response in _responses(document):
        response.setdefault("headers", {})["X-Request-ID"] = {"$ref": "#/components/headers/RequestId"}
    schemas = components.setdefault("schemas", {})
    schemas |= problem_schemas()
    schemas |= _contract_schemas()
    for name in {"CreateTask", "CheckModel"} & set(schemas):  # a worker is asked for neither
        schemas[name]["properties"]["model"] = {"enum": [*models, None], "title": "Model"}
    if "TaskWithEventsBody" in schemas:
        question = {"anyOf": [_named("Question"), {"type": "null"}], "title": "Question"}
        for name in ("TaskBody", "TaskWithEventsBody"):
            schemas[name]["properties"]["question"] = question
        schemas["TaskWithEventsBody"]["properties"]["events"] = {"type": "array", "items": _named("Event")}
    if "CreateTask" in schemas:
        asked = schemas["CreateTask"]["properties"]
        names = {"type": "array", "items": {"enum": list(tools)}}
        asked["tools"] = {"anyOf": [names, {"type": "null"}], "title": "Tools"}


def _named(schema: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{schema}"}


def _contract_schemas() -> dict[str, Any]:
    found = schemas_of((Info, Ready, Question))
    found["Event"] = tagged_union(Event, found)
    return found


def _responses(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for operations in document["paths"].values():
        for operation in operations.values():
            yield from operation["responses"].values()
