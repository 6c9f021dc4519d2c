"""HTTP of accounts: `/auth/*`, `/users/me`, its sessions and API tokens (WIRE.md, "Accounts")."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from email_validator import SPECIAL_USE_DOMAIN_NAMES
from fastapi import APIRouter, Form, Header, Request, Response
from pydantic import BaseModel, BeforeValidator, Field
from pydantic.json_schema import SkipJsonSchema

from beray.protocol.types import ApiToken, CreatedApiToken, Message, Session, User
from beray.server.auth.api_tokens import LEAST_SECONDS, MOST_SECONDS
from beray.server.auth.codes import Purpose
from beray.server.auth.emails import MAX_EMAIL_CHARACTERS
from beray.server.auth.passwords import LEAST_CHARACTERS, MOST_CHARACTERS
from beray.server.auth.service import Accounts, NewSession
from beray.server.auth.session_cookie import CONSOLE_HEADER, check_origin, session_cookie
from beray.server.auth.tokens import authorization
from beray.server.bodies import Name, Text, whole
from beray.server.clock import iso, iso_or_none
from beray.server.db.api_tokens import ApiTokenRow
from beray.server.db.auth import OpenSession, UserRow
from beray.server.errors import Refused
from beray.server.messages import text
from beray.server.refusals import LOGGED_IN, OPEN, READING, SIGNED_IN, WRITING, refused_with

CODE_REFUSALS = refused_with(*WRITING, "invalid_email", "email_already_registered", "rate_limited", "mail_not_sent")
REGISTER_REFUSALS = refused_with(
    *WRITING,
    "invalid_email",
    "invalid_password",
    "invalid_verification_code",
    "email_already_registered",
    "origin_mismatch",
    "rate_limited",
)
RESET_REFUSALS = refused_with(
    *WRITING, "invalid_email", "invalid_password", "invalid_verification_code", "rate_limited"
)
LOGIN = (*WRITING, "invalid_email", "invalid_password", "invalid_credentials", "rate_limited")
LOGIN_REFUSALS = refused_with(*LOGIN, "origin_mismatch")
BY_PASSWORD = (*WRITING, *LOGGED_IN, "wrong_password", "invalid_password", "account_without_password", "rate_limited")


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
Console = Annotated[
    Literal["1"] | SkipJsonSchema[None],  # left out, never null
    Header(alias=CONSOLE_HEADER, description="Of a page of this server: the token goes into a cookie, and not here."),
]
FormPassword = Annotated[Text, Form(json_schema_extra={"minLength": 1, "maxLength": MOST_CHARACTERS})]


class CodeRequest(BaseModel):
    email: Email
    purpose: Purpose = "register"


class Registration(BaseModel):
    email: Email
    verification_code: Text
    password: NewPassword


class PasswordReset(BaseModel):
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
    is_admin: bool = False


class SessionBody(BaseModel):
    access_token: str
    token_type: Literal["bearer"]
    expires_in: int
    user: UserBody


class ConsoleSessionBody(BaseModel):
    """What the console is told; the token is in its cookie."""

    token_type: Literal["bearer"]
    expires_in: int
    user: UserBody


class OpenedSessionBody(BaseModel):
    user: UserBody | None


class MessageBody(BaseModel):
    message: str


Seconds = Annotated[int, Field(strict=True, ge=LEAST_SECONDS, le=MOST_SECONDS), BeforeValidator(whole)]


class CreateApiToken(BaseModel):
    """`expires_in` in seconds; null: never."""

    name: Name
    expires_in: Seconds | None = None


class ApiTokenBody(BaseModel):
    """`last_used_at` is at most an hour behind; null: not used yet."""

    id: int
    name: str
    created_at: str
    expires_at: str | None
    last_used_at: str | None


class CreatedApiTokenBody(ApiTokenBody):
    token: str


class PasswordChange(BaseModel):
    current_password: Password
    new_password: NewPassword


class AccountDeletion(BaseModel):
    password: Password


class OpenSessionBody(BaseModel):
    """A session that lives. `last_used_at` is at most an hour behind; `is_current`: this request bears its token."""

    id: int
    created_at: str
    expires_at: str
    last_used_at: str | None
    user_agent: str | None
    address: str | None
    is_current: bool


class SessionsEndedBody(BaseModel):
    message: str
    ended: int


def build_router(accounts: Accounts) -> APIRouter:
    """The routes of accounts, without the `/api/v1` prefix."""
    router = APIRouter(tags=["accounts"])
    _add_logins(router, accounts)
    _add_own_account(router, accounts)
    _add_sessions(router, accounts)
    _add_api_tokens(router, accounts)
    return router


def _add_logins(router: APIRouter, accounts: Accounts) -> None:
    @router.post(
        "/auth/request-verification-code", response_model=MessageBody, responses=CODE_REFUSALS, openapi_extra=OPEN
    )
    async def request_verification_code(body: CodeRequest, request: Request) -> Message:
        """A code by mail: to make an account, or (`reset`) to set another password for one.

        For `reset` an address without an account gets the same answer, and no mail.
        """
        client = accounts.clients.of(request)
        if body.purpose == "reset":
            await accounts.request_reset_code(body.email, client=client)
            return {"message": text("reset_code_sent")}
        await accounts.request_code(body.email, client=client)
        return {"message": text("verification_code_sent")}

    @router.post(
        "/auth/register",
        status_code=201,
        response_model=SessionBody | ConsoleSessionBody,
        responses=REGISTER_REFUSALS,
        openapi_extra=OPEN,
    )
    async def register(
        body: Registration, request: Request, response: Response, console: Console = None
    ) -> Mapping[str, object]:
        _check_console(accounts, request, console)
        client = accounts.clients.of(request)
        session = await accounts.register(body.email, body.verification_code, body.password, client=client)
        return _session(session) if console is None else _keep_in_browser(accounts, request, response, session)

    @router.post("/auth/reset-password", response_model=MessageBody, responses=RESET_REFUSALS, openapi_extra=OPEN)
    async def reset_password(body: PasswordReset, request: Request) -> Message:
        """Set another password; every session and API token of the account ends."""
        client = accounts.clients.of(request)
        await accounts.reset_password(body.email, body.verification_code, body.password, client=client)
        return {"message": text("password_reset")}

    @router.post(
        "/auth/login",
        response_model=SessionBody | ConsoleSessionBody,
        responses=LOGIN_REFUSALS,
        openapi_extra=OPEN,
    )
    async def login(body: Login, request: Request, response: Response, console: Console = None) -> Mapping[str, object]:
        _check_console(accounts, request, console)
        session = await accounts.login(body.email, body.password, client=accounts.clients.of(request))
        return _session(session) if console is None else _keep_in_browser(accounts, request, response, session)

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
    async def logout(request: Request, response: Response) -> Message:
        """End the token the request bears, an API token too."""
        await accounts.logout(request)
        _forget_in_browser(accounts, request, response)
        return {"message": text("logged_out")}

    @router.get(
        "/auth/session",
        response_model=OpenedSessionBody,
        responses=refused_with(*READING, "origin_mismatch"),
        openapi_extra=OPEN,
    )
    async def get_session(request: Request) -> Mapping[str, object]:
        """Whose token the request bears; null where it bears none that lives: a page can ask that without an error."""
        try:
            user = await accounts.authenticate(request)
        except Refused as refused:
            if refused.code != "not_authenticated":
                raise
            return {"user": None}
        return {"user": _user(user)}


def _add_own_account(router: APIRouter, accounts: Accounts) -> None:
    @router.get("/users/me", response_model=UserBody, responses=refused_with(*READING, *SIGNED_IN))
    async def get_current_user(request: Request) -> User:
        return _user(await accounts.authenticate(request))

    @router.put("/users/me/password", response_model=MessageBody, responses=refused_with(*BY_PASSWORD))
    async def change_password(body: PasswordChange, request: Request) -> Message:
        """Set another password; every other session ends at once, API tokens stay."""
        login = await accounts.authenticate_login(request)
        client = accounts.clients.of(request)
        await accounts.own.change_password(login, body.current_password, body.new_password, client=client)
        return {"message": text("password_changed")}

    @router.delete("/users/me", response_model=MessageBody, responses=refused_with(*BY_PASSWORD, "last_admin"))
    async def delete_account(body: AccountDeletion, request: Request, response: Response) -> Message:
        """Delete the account with all that is its: nobody's at once, gone in the background."""
        login = await accounts.authenticate_login(request)
        await accounts.own.delete(login, body.password, client=accounts.clients.of(request))
        _forget_in_browser(accounts, request, response)
        return {"message": text("account_deleted")}


def _add_sessions(router: APIRouter, accounts: Accounts) -> None:
    @router.get(
        "/users/me/sessions", response_model=list[OpenSessionBody], responses=refused_with(*READING, *LOGGED_IN)
    )
    async def list_sessions(request: Request) -> list[OpenSessionBody]:
        """Where the user is logged in, newest first."""
        login = await accounts.authenticate_login(request)
        return [_open_session(session) for session in await accounts.sessions.list_sessions(login)]

    @router.delete("/users/me/sessions", response_model=SessionsEndedBody, responses=refused_with(*WRITING, *LOGGED_IN))
    async def end_other_sessions(request: Request) -> SessionsEndedBody:
        """End every session but this one: they are dead at once."""
        login = await accounts.authenticate_login(request)
        ended = await accounts.sessions.end_others(login)
        return SessionsEndedBody(message=text("other_sessions_ended", count=ended), ended=ended)

    @router.delete(
        "/users/me/sessions/{session_id}",
        response_model=MessageBody,
        responses=refused_with(*WRITING, *LOGGED_IN, "session_not_found"),
    )
    async def end_session(session_id: int, request: Request, response: Response) -> Message:
        """End a session, this one too: it is dead at once."""
        login = await accounts.authenticate_login(request)
        if await accounts.sessions.end(login, session_id):
            _forget_in_browser(accounts, request, response)
        return {"message": text("session_ended", session_id=session_id)}


def _add_api_tokens(router: APIRouter, accounts: Accounts) -> None:
    @router.get("/users/me/tokens", response_model=list[ApiTokenBody], responses=refused_with(*READING, *LOGGED_IN))
    async def list_tokens(request: Request) -> list[ApiToken]:
        """The user's API tokens, newest first. Not for API tokens themselves, like all of this."""
        login = await accounts.authenticate_login(request)
        return [_api_token(row) for row in await accounts.api_tokens.list_tokens(login.user)]

    @router.post(
        "/users/me/tokens",
        status_code=201,
        response_model=CreatedApiTokenBody,
        responses=refused_with(*WRITING, *LOGGED_IN, "too_many_api_tokens"),
    )
    async def create_token(body: CreateApiToken, request: Request) -> CreatedApiToken:
        """Make an API token; only this answer shows it."""
        login = await accounts.authenticate_login(request)
        made = await accounts.api_tokens.create(login, body.name, expires_in_seconds=body.expires_in)
        return {**_api_token(made.row), "token": made.token}

    @router.delete(
        "/users/me/tokens/{token_id}",
        response_model=MessageBody,
        responses=refused_with(*WRITING, *LOGGED_IN, "api_token_not_found"),
    )
    async def delete_token(token_id: int, request: Request) -> Message:
        """Delete an API token: it is dead at once."""
        login = await accounts.authenticate_login(request)
        await accounts.api_tokens.delete(login.user, token_id)
        return {"message": text("api_token_deleted", token_id=token_id)}


def _check_console(accounts: Accounts, request: Request, console: str | None) -> None:
    """No other site may log a browser in, to have its user work under an account of somebody else's."""
    if console is not None:
        check_origin(request, accounts.clients)


def _keep_in_browser(
    accounts: Accounts, request: Request, response: Response, session: NewSession
) -> Mapping[str, object]:
    seconds = session.expires_in_seconds
    response.headers["set-cookie"] = session_cookie(request, accounts.clients, session.token, seconds=seconds)
    return {name: value for name, value in _session(session).items() if name != "access_token"}


def _forget_in_browser(accounts: Accounts, request: Request, response: Response) -> None:
    if not authorization(request):
        response.headers["set-cookie"] = session_cookie(request, accounts.clients, "", seconds=0)


def _session(session: NewSession) -> Session:
    return {
        "access_token": session.token,
        "token_type": "bearer",
        "expires_in": session.expires_in_seconds,
        "user": _user(session.user),
    }


def _user(user: UserRow) -> User:
    return {"id": user.id, "email": user.email, "created_at": iso(user.created_at), "is_admin": user.is_admin}


def _open_session(session: OpenSession) -> OpenSessionBody:
    return OpenSessionBody(
        id=session.id,
        created_at=iso(session.created_at),
        expires_at=iso(session.expires_at),
        last_used_at=iso_or_none(session.last_used_at),
        user_agent=session.user_agent,
        address=session.address,
        is_current=session.is_current,
    )


def _api_token(row: ApiTokenRow) -> ApiToken:
    return {
        "id": row.id,
        "name": row.name,
        "created_at": iso(row.created_at),
        "expires_at": iso_or_none(row.expires_at),
        "last_used_at": iso_or_none(row.last_used_at),
    }
