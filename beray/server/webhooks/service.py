"""The account's webhook: whom it has us call, its secret, and how deliveries go."""

from functools import partial
from typing import Final

from sqlalchemy import Connection

from beray.protocol.types import Webhook
from beray.server.audit import AuditTrail
from beray.server.clock import DAY_MS, Clock, iso_or_none
from beray.server.db import webhooks as queries
from beray.server.db.audit import AuditRow, insert_row
from beray.server.db.auth import UserRow
from beray.server.db.connect import Database
from beray.server.db.webhooks import Fault, WebhookRecord
from beray.server.errors import Refused, wrong_field
from beray.server.messages import text
from beray.server.webhooks.reach import URL_MOST, Reach, host_of
from beray.server.webhooks.secrets import Secrets, new_salt

OLD_SECRET_MS: Final = DAY_MS  # after a change of the secret, time for the receiver to follow
SHOWN_MS: Final = 600_000  # an answer may be lost; who asks again within ten minutes sees the new secret once more


def check_url(reach: Reach, field: str, url: str | None) -> None:
    """Whether a URL that a client gave may be called.

    Raises:
        Refused: webhook_url_invalid.
    """
    if url is not None and not reach.takes(url):
        raise Refused(
            "webhook_url_invalid", errors=[wrong_field(field, "webhook_url_invalid", most=URL_MOST)], most=URL_MOST
        )


class Webhooks:
    """The webhooks of all accounts, each seen only by its owner."""

    def __init__(self, database: Database, clock: Clock, *, secrets: Secrets, reach: Reach, trail: AuditTrail) -> None:
        self._database = database
        self._clock = clock
        self._secrets = secrets
        self._reach = reach
        self._trail = trail

    async def get(self, user: UserRow) -> Webhook:
        """The user's webhook, without its secret."""

        def look(connection: Connection) -> Webhook:
            row = queries.find_webhook(connection, user.id)
            return _NONE if row is None else self._view(row, queries.count_pending(connection, user.id))

        return await self._database.read(look)

    async def put(self, user: UserRow, url: str | None, *, is_to_rotate: bool) -> Webhook:
        """Call that URL; with its secret, if that is new.

        Raises:
            Refused: webhook_url_invalid.
        """
        check_url(self._reach, "url", url)
        about = "nobody" if url is None else host_of(url)  # the rest of a URL may be a secret
        entries = [self._trail.row("webhook.changed", user=user, resource=about)]
        if is_to_rotate:
            entries.append(self._trail.row("webhook.secret", user=user))
        return await self._database.write(
            partial(self._put, user_id=user.id, url=url, is_to_rotate=is_to_rotate, entries=entries)
        )

    def _put(
        self, connection: Connection, user_id: int, url: str | None, *, is_to_rotate: bool, entries: list[AuditRow]
    ) -> Webhook:
        now = self._clock()
        is_new = queries.ensure_webhook(connection, user_id, salt=new_salt(), now=now)
        if is_to_rotate and not is_new:
            queries.rotate_salt(connection, user_id, salt=new_salt(), old_until=now + OLD_SECRET_MS, now=now)
        queries.set_url(connection, user_id, url)
        for entry in entries:
            insert_row(connection, entry)
        row = queries.find_webhook(connection, user_id)
        assert row is not None, "made in this transaction"
        view = self._view(row, queries.count_pending(connection, user_id))
        is_shown = now - row.made_at < SHOWN_MS
        return {**view, "secret": self._secrets.shown(user_id, row.salt) if is_shown else None}

    def _view(self, row: WebhookRecord, pending: int) -> Webhook:
        is_old_good = row.old_until is not None and row.old_until > self._clock()
        return {
            "url": row.url,
            "secret": None,
            "old_secret_until": iso_or_none(row.old_until) if is_old_good else None,
            "pending": pending,
            "given_up": row.given_up,
            "last_attempt_at": iso_or_none(row.last_attempt_at),
            "last_delivered_at": iso_or_none(row.last_delivered_at),
            "last_status": row.last_status,
            "last_error": None if row.last_fault is None else _told(row.last_fault, row.last_status),
        }


def _told(fault: Fault, status: int | None) -> str:
    return text(_SENTENCES[fault], status=status)


_SENTENCES: Final[dict[Fault, str]] = {
    "status": "webhook_fault_status",
    "redirect": "webhook_fault_redirect",
    "timeout": "webhook_fault_timeout",
    "unreachable": "webhook_fault_unreachable",
    "tls": "webhook_fault_tls",
    "not_http": "webhook_fault_not_http",
    "forbidden": "webhook_fault_forbidden",
}

_NONE: Final[Webhook] = {
    "url": None,
    "secret": None,
    "old_secret_until": None,
    "pending": 0,
    "given_up": 0,
    "last_attempt_at": None,
    "last_delivered_at": None,
    "last_status": None,
    "last_error": None,
}
