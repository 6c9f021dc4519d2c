"""Each account's secret, which signs its webhooks.

No secret is stored: it is made anew, each time, of the server's secret key and a random salt in the account's row. So
the database alone signs nothing; and another secret key means other secrets.
"""

import hmac
import secrets
from typing import Final

from beray.protocol.webhook_signature import secret_of

SALT_BYTES: Final = 16


def new_salt() -> bytes:
    """What makes a secret another."""
    return secrets.token_bytes(SALT_BYTES)


class Secrets:
    """Makes secrets of salts."""

    def __init__(self, secret_key: bytes) -> None:
        self._secret_key = secret_key

    def key(self, user_id: int, salt: bytes) -> bytes:
        """What signs: 32 bytes."""
        made_of = b"\0".join((b"beray webhook secret", str(user_id).encode(), salt))
        return hmac.digest(self._secret_key, made_of, "sha256")

    def shown(self, user_id: int, salt: bytes) -> str:
        """The secret as its user is shown it."""
        return secret_of(self.key(user_id, salt))
