"""From a mail address to a session, and to its end."""

from collections.abc import Mapping

from beray import AuthenticationError, BeRayClient, ConflictError, WebhookRefused, webhooks
from beray.types import CreatedApiToken, Message, Session, User, Webhook, WebhookEvent


def register(client: BeRayClient, email: str, code: str) -> User:
    session = client.register(email=email, verification_code=code, password="a_very_secure_password")
    return session["user"]


def log_in(client: BeRayClient, email: str, password: str) -> str:
    session: Session = client.login(email, password)
    seconds: int = session["expires_in"]
    assert client.login_with_form(email, password)["token_type"] == "bearer"
    user: User = client.get_current_user()
    return f"{user['email']} ({user['id']}) for {seconds} s"


def send_code(client: BeRayClient, email: str) -> str | None:
    try:
        answer: Message = client.request_verification_code(email)
    except ConflictError as error:
        return error.code
    return answer["message"]


def reset_password(client: BeRayClient, email: str, code: str | None) -> str:
    if code is None:
        return client.request_password_reset(email)["message"]
    return client.reset_password(email, code, "another_secure_password")["message"]


def renew_token(client: BeRayClient, name: str) -> str:
    for token in client.list_tokens():
        if token["name"] == name and token["expires_at"] is not None:
            print(client.delete_token(token["id"])["message"], token["last_used_at"] or "never")
    made: CreatedApiToken = client.create_token(name, expires_in=3600)
    return made["token"]


def log_out(client: BeRayClient) -> str:
    try:
        return client.logout()["message"]
    except AuthenticationError:
        return "was logged out"


def with_token(token: str) -> str | None:
    with BeRayClient("http://localhost:8000", token=token, timeout=(5, 30), language="en") as client:
        client.set_token(None)
        return client.token


def without_context(client: BeRayClient) -> str:
    client.close()
    return client.base_url


def call_me(client: BeRayClient, url: str) -> str:
    webhook: Webhook = client.set_webhook(url)
    secret = webhook["secret"] or client.set_webhook(url, rotate_secret=True)["secret"]
    print(client.get_webhook()["last_error"], client.delete_webhook()["pending"])
    client.create_task("goal", webhook_url=url)
    return secret or ""


def receive(headers: Mapping[str, str], body: bytes, secret: str) -> str:
    try:
        event: WebhookEvent = webhooks.verify(headers, body, [secret, "whsec_old"])
    except WebhookRefused as refused:
        return refused.reason
    return event["data"]["status"] if event["type"] == "task.finished" else event["timestamp"]
