"""HTTP about the service itself: /health, /ready, /api/v1/info (WIRE.md, "Service")."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from beray import __version__
from beray.server.readiness import Readiness
from beray.server.refusals import ANYWHERE, HEADERS, OPEN, refused_with

SHOWN_WHEN_READY: Final = ("model", "model_kind", "sandbox")
NOT_READY: Final[dict[int | str, dict[str, Any]]] = {
    503: {
        "description": "Not every part works yet.",
        "content": {"application/json": {"schema": {"type": "object"}}},
        "headers": HEADERS[503],
    }
}


def build_routers(
    check: Callable[[], Awaitable[Readiness]], info: Callable[[], dict[str, Any]]
) -> tuple[APIRouter, APIRouter]:
    """The routes at the root, and those under /api/v1; `check` says how the parts are now."""
    root = APIRouter(tags=["service"])
    api = APIRouter(tags=["service"])

    @root.head("/health", include_in_schema=False)
    @root.get("/health", responses=refused_with(*ANYWHERE), openapi_extra=OPEN)
    async def health() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok", "version": __version__}

    @root.head("/ready", include_in_schema=False)
    @root.get("/ready", responses=refused_with(*ANYWHERE) | NOT_READY, openapi_extra=OPEN)
    async def ready() -> JSONResponse:
        """Whether tasks can be taken and run: each part with its state and how to mend it; 503 until all work.

        Model and sandbox are told as in /api/v1/info: "ok" alone would not say what confines the commands.
        """
        readiness = await check()
        is_ready = readiness.status == "ready"
        told = info()
        body = {"status": readiness.status, "checks": readiness.checks} | {
            name: told[name] for name in SHOWN_WHEN_READY
        }
        return JSONResponse(
            body, status_code=200 if is_ready else 503, headers={} if is_ready else {"retry-after": "1"}
        )

    @api.get("/info", responses=refused_with(*ANYWHERE), openapi_extra=OPEN)
    async def get_info() -> dict[str, Any]:
        """Version, model and how to set one, tools, what the sandbox confines, limits, where mailed codes go."""
        return info()

    return root, api
