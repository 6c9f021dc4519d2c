"""GET /docs: the API as a page to read, made from /openapi.json. No script, no style or font of another host."""

from html import escape
from typing import Any, Final

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

HEADERS: Final = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
}
STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2rem; text-transform: capitalize }
details { border-top: 1px solid #8884; padding: .4rem 0 }
summary { cursor: pointer }
code { font: .95em ui-monospace, monospace }
b { display: inline-block; min-width: 4.5rem }
dt { font-weight: 600; margin-top: .3rem }
"""


def add_api_page(web: FastAPI) -> None:
    """Serve the page at /docs."""

    @web.get("/docs", include_in_schema=False)
    async def show_api() -> HTMLResponse:
        return HTMLResponse(render(web.openapi()), headers=HEADERS)


def render(document: dict[str, Any]) -> str:
    """The page for an OpenAPI document."""
    info = document["info"]
    sections = "".join(f"<h2>{escape(tag)}</h2>{body}" for tag, body in _by_tag(document).items())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(info["title"])} API</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1>"
        '<p>For programs: <a href="/openapi.json">/openapi.json</a>. Log in with <code>POST /api/v1/auth/login</code>'
        " and send the token as <code>Authorization: Bearer …</code>. Errors are <code>application/problem+json</code>"
        " with <code>detail</code>, <code>code</code>, <code>request_id</code>.</p>"
        f"{sections}</html>"
    )


def _by_tag(document: dict[str, Any]) -> dict[str, str]:
    sections: dict[str, str] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            tag = operation.get("tags", ["other"])[0]
            sections[tag] = sections.get(tag, "") + _operation(document, method, path, operation)
    return sections


def _operation(document: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> str:
    rows = [
        _row(f"{parameter['name']} ({parameter['in']})", _type(parameter["schema"]))
        for parameter in operation.get("parameters", [])
    ]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        rows += [_row(f"{name} (body)", _type(schema)) for name, schema in _fields(document, content["schema"]).items()]
    description = escape(operation.get("description", operation.get("summary", "")))
    return (
        f"<details><summary><b>{method.upper()}</b> <code>{escape(path)}</code> {description.partition(chr(10))[0]}"
        f"</summary><p>{description}</p><dl>{''.join(rows)}</dl></details>"
    )


def _row(name: str, kind: str) -> str:
    return f"<dt><code>{escape(name)}</code></dt><dd>{escape(kind)}</dd>"


def _fields(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    name = schema.get("$ref", "").rpartition("/")[2]
    fields: dict[str, Any] = document.get("components", {}).get("schemas", {}).get(name, schema).get("properties", {})
    return fields


def _type(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if schema.get("type") == "array":
        return f"array of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "anything"))
