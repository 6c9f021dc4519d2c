"""HTTP of accounts: `/auth/*` and `/users/me` (WIRE.md, "Accounts")."""

from typing import Annotated, Any, Literal

from email_validator import SPECIAL_USE_DOMAIN_NAMES
from fastapi import APIRouter, Form, Request
from pydantic import BaseModel, Field

from beray.protocol.types import Message, Session, User
from beray.server.auth.emails import MAX_EMAIL_CHARACTERS
from beray.server.auth.passwords import LEAST_CHARACTERS, MOST_CHARACTERS
from beray.server.auth.service import Accounts, NewSession
from beray.server.bodies import Text
from beray.server.clock import iso
from beray.server.db.auth import UserRow
from beray.server.errors import Refused
from beray.server.messages import text
from beray.server.refusals import OPEN, READING, SIGNED_IN, WRITING, refused_with

CODE_REFUSALS = refused_with(*WRITING, "invalid_email", "email_already_registered", "rate_limited", "mail_not_sent")
REGISTER_REFUSALS = refused_with(
    *WRITING,
    "invalid_email",
    "invalid_password",
    "invalid_verification_code",
    "email_already_registered",
    "rate_limited",
)
LOGIN = (*WRITING, "invalid_email", "invalid_password", "invalid_credentials", "rate_limited")


# What the services check; said here for the readers of /openapi.json.
_NO_MAIL = "|".join(SPECIAL_USE_DOMAIN_NAMES)  # domains that get no mail anywhere
_EMAIL: dict[str, Any] = {
    "format": "email",
    "maxLength": MAX_EMAIL_CHARACTERS,
    "not": {"pattern": rf"[@.](?:{_NO_MAIL})$"},
}
Email = Annotated[Text, Field(json_schema_extra=_EMAIL)]
Password = Annotated[Text, Field(json_schema_extra={"maxLength": MOST_CHARACTERS})]
NewPassword = Annotated[Text, Field(json_schema_extra={"minLength": LEAST_CHARACTERS, "maxLength": MOST_CHARACTERS})]
FormPassword = Annotated[Text, Form(json_schema_extra={"minLength": 1, "maxLength": MOST_CHARACTERS})]


class CodeRequest(BaseModel):
    email: Email


class Registration(BaseModel):
    email: Email
    verification_code: Text
    password: NewPassword


class Login(BaseModel):
    email: Email
    password: Password


class UserBody(BaseModel):
    id: int
    email: str
    created_at: str


class SessionBody(BaseModel):
    access_token: str
    token_type: Literal["bearer"]
    expires_in: int
    user: UserBody


class MessageBody(BaseModel):
    message: str


def build_router(accounts: Accounts) -> APIRouter:
    """The routes of accounts, without the `/api/v1` prefix."""
    router = APIRouter(tags=["accounts"])

    @router.post(
        "/auth/request-verification-code", response_model=MessageBody, responses=CODE_REFUSALS, openapi_extra=OPEN
    )
    async def request_verification_code(body: CodeRequest, request: Request) -> Message:
        await accounts.request_code(body.email, client=accounts.clients.of(request))
        return {"message": text("verification_code_sent")}

    @router.post(
        "/auth/register", status_code=201, response_model=SessionBody, responses=REGISTER_REFUSALS, openapi_extra=OPEN
    )
    async def register(body: Registration, request: Request) -> Session:
        client = accounts.clients.of(request)
        return _session(await accounts.register(body.email, body.verification_code, body.password, client=client))

    @router.post("/auth/login", response_model=SessionBody, responses=refused_with(*LOGIN), openapi_extra=OPEN)
    async def login(body: Login, request: Request) -> Session:
        return _session(await accounts.login(body.email, body.password, client=accounts.clients.of(request)))

    @router.post(
        "/auth/token",
        response_model=SessionBody,
        responses=refused_with(*LOGIN, "unsupported_grant_type"),
        openapi_extra=OPEN,
    )
    async def login_with_form(
        request: Request,
        username: Annotated[Email, Form()],
        password: FormPassword,
        grant_type: Annotated[Text, Form(json_schema_extra={"const": "password"})] = "password",
    ) -> Session:
        """OAuth2 password grant (RFC 6749, 4.3)."""
        if grant_type != "password":
            raise Refused("unsupported_grant_type", grant_type=grant_type[:40])
        return _session(await accounts.login(username, password, client=accounts.clients.of(request)))

    @router.post("/auth/logout", response_model=MessageBody, responses=refused_with(*WRITING, *SIGNED_IN))
    async def logout(request: Request) -> Message:
        await accounts.logout(request)
        return {"message": text("logged_out")}

    @router.get("/users/me", response_model=UserBody, responses=refused_with(*READING, *SIGNED_IN))
    async def get_current_user(request: Request) -> User:
        return _user(await accounts.authenticate(request))

    return router


def _session(session: NewSession) -> Session:
    return {
        "access_token": session.token,
        "token_type": "bearer",
        "expires_in": session.expires_in_seconds,
        "user": _user(session.user),
    }


def _user(user: UserRow) -> User:
    return {"id": user.id, "email": user.email, "created_at": iso(user.created_at)}
