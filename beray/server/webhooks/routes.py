"""HTTP of the account's webhook: /users/me/webhook."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, StrictBool

from beray.protocol.types import Webhook
from beray.server.auth.service import Accounts
from beray.server.bodies import Plain
from beray.server.refusals import READING, SIGNED_IN, WRITING, refused_with
from beray.server.webhooks.reach import PUBLIC_URL, URL_MOST
from beray.server.webhooks.service import Webhooks

URL_FORM: Final[dict[str, Any]] = {"pattern": f"^{PUBLIC_URL}$", "maxLength": URL_MOST}
"""What the service checks; said for the readers of /openapi.json. What the operator lists comes on top."""

WebhookUrl = Annotated[Plain, Field(json_schema_extra=URL_FORM)]


class SetWebhook(BaseModel):
    """The body of PUT /users/me/webhook."""

    url: WebhookUrl | None
    rotate_secret: StrictBool = False


class WebhookBody(BaseModel):
    url: str | None
    secret: str | None
    old_secret_until: str | None
    pending: int
    given_up: int
    last_attempt_at: str | None
    last_delivered_at: str | None
    last_status: int | None
    last_error: str | None


def build_router(webhooks: Webhooks, accounts: Accounts) -> APIRouter:
    """The routes of webhooks, without the `/api/v1` prefix."""
    router = APIRouter(tags=["accounts"])

    @router.get("/users/me/webhook", response_model=WebhookBody, responses=refused_with(*READING, *SIGNED_IN))
    async def get_webhook(request: Request) -> Webhook:
        """Whom the account has us call, and how the latest deliveries went."""
        return await webhooks.get(await accounts.authenticate(request))

    @router.put(
        "/users/me/webhook",
        response_model=WebhookBody,
        responses=refused_with(*WRITING, *SIGNED_IN, "login_needed", "webhook_url_invalid"),
    )
    async def set_webhook(request: Request, body: SetWebhook) -> Webhook:
        """Call that URL when a task ends, or asks; `secret` is shown for ten minutes after it was made."""
        login = await accounts.authenticate_login(request)  # what it tells outlives a token that has leaked
        return await webhooks.put(login.user, body.url, is_to_rotate=body.rotate_secret)

    return router
