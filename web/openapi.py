"""Write `web/openapi.json`, from which the console's types are made: what /openapi.json says of any server.

uv run python web/openapi.py      part of `make console`
"""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any, Final

from starlette.types import ASGIApp, Message

from beray.server.agent.models.choice import RULES, ModelChoice, Models
from beray.server.app import create_app
from beray.server.settings import Settings

PATH: Final = Path(__file__).with_name("openapi.json")
TEXT_OR_NULL: Final = {"anyOf": [{"type": "string"}, {"type": "null"}]}


def portable(document: dict[str, Any]) -> dict[str, Any]:
    """The document without what differs from server to server: models, tools, the version."""
    document = json.loads(json.dumps(document))
    document["info"]["version"] = "0"
    schemas = document["components"]["schemas"]
    for name in ("CreateTask", "CheckModel"):
        schemas[name]["properties"]["model"] = {**TEXT_OR_NULL, "title": "Model"}
    names = {"type": "array", "items": {"type": "string"}}
    schemas["CreateTask"]["properties"]["tools"] = {"anyOf": [names, {"type": "null"}], "title": "Tools"}
    return document


def written(document: dict[str, Any]) -> str:
    """The document as it stands in the file."""
    return json.dumps(document, indent=4, ensure_ascii=False) + "\n"


async def _ask(app: ASGIApp) -> dict[str, Any]:
    """What an application answers that is not open: this it does without a database."""
    body = b""

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        nonlocal body
        body += message.get("body", b"")

    scope = {"type": "http", "method": "GET", "path": "/openapi.json", "query_string": b"", "headers": []}
    await app(scope, receive, send)
    document: dict[str, Any] = json.loads(body)
    return document


def main() -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), sandbox="none")
        app = create_app(settings, Models(ModelChoice(RULES, "rules")))
        document = asyncio.run(_ask(app))
    PATH.write_text(written(portable(document)), encoding="utf-8")


if __name__ == "__main__":
    main()
