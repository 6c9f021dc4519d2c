"""HTTP of accounts: `/auth/*` and `/users/me` (WIRE.md, "Accounts")."""

from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request
from pydantic import BaseModel

from beray.protocol.types import Message, Session, User
from beray.server.auth.service import Accounts, NewSession
from beray.server.bodies import Text
from beray.server.clock import iso
from beray.server.db.auth import UserRow
from beray.server.errors import Refused
from beray.server.messages import text


class CodeRequest(BaseModel):
    email: Text


class Registration(BaseModel):
    email: Text
    verification_code: Text
    password: Text


class Login(BaseModel):
    email: Text
    password: Text


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

    @router.post("/auth/request-verification-code", response_model=MessageBody)
    async def request_verification_code(body: CodeRequest, request: Request) -> Message:
        await accounts.request_code(body.email, client=accounts.clients.of(request))
        return {"message": text("verification_code_sent")}

    @router.post("/auth/register", status_code=201, response_model=SessionBody)
    async def register(body: Registration, request: Request) -> Session:
        client = accounts.clients.of(request)
        return _session(await accounts.register(body.email, body.verification_code, body.password, client=client))

    @router.post("/auth/login", response_model=SessionBody)
    async def login(body: Login, request: Request) -> Session:
        return _session(await accounts.login(body.email, body.password, client=accounts.clients.of(request)))

    @router.post("/auth/token", response_model=SessionBody)
    async def login_with_form(
        request: Request,
        username: Annotated[Text, Form()],
        password: Annotated[Text, Form()],
        grant_type: Annotated[Text, Form()] = "password",
    ) -> Session:
        """OAuth2 password grant (RFC 6749, 4.3)."""
        if grant_type != "password":
            raise Refused("unsupported_grant_type", grant_type=grant_type[:40])
        return _session(await accounts.login(username, password, client=accounts.clients.of(request)))

    @router.post("/auth/logout", response_model=MessageBody)
    async def logout(request: Request) -> Message:
        await accounts.logout(request)
        return {"message": text("logged_out")}

    @router.get("/users/me", response_model=UserBody)
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
