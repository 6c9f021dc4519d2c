"""HTTP of the models: /model/check."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from beray.protocol.types import ModelCheck, ModelKind
from beray.server.agent.models.checking import ModelChecks
from beray.server.auth.service import Accounts
from beray.server.bodies import Plain
from beray.server.refusals import SIGNED_IN, WRITING, refused_with


class CheckModel(BaseModel):
    """The body of POST /model/check; without one the default model is asked."""

    model: Plain | None = None


class CheckErrorBody(BaseModel):
    code: str
    message: str
    hint: str | None
    retryable: bool


class CheckBody(BaseModel):
    model_config = ConfigDict(protected_namespaces=())  # `model_kind` is the wire's name

    model: str
    model_kind: ModelKind
    ok: bool
    answered: str | None
    latency_ms: int | None
    error: CheckErrorBody | None


def build_router(checks: ModelChecks, accounts: Accounts) -> APIRouter:
    """The routes of the models."""
    router = APIRouter(tags=["service"])

    @router.post(
        "/model/check",
        response_model=CheckBody,
        responses=refused_with(*WRITING, *SIGNED_IN, "unknown_model", "day_limit_reached"),
    )
    async def check_model(request: Request, body: CheckModel | None = None) -> ModelCheck:
        """Ask a model for one word, to see whether it works; costs what that costs, at most once a minute."""
        user = await accounts.authenticate(request)
        return await checks.check(None if body is None else body.model, user_id=user.id)

    return router
