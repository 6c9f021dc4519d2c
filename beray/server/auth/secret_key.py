"""The server's secret key: from `BERAY_SECRET_KEY`, or made once and kept in the data folder."""

import os
import secrets
from pathlib import Path
from typing import Final

from beray.server.settings import SettingError, Settings

FILE_NAME: Final = "secret.key"
LEAST_BYTES: Final = 32


def load_secret_key(settings: Settings) -> bytes:
    """The key; made (mode 0600) if there is none. Blocking.

    Raises:
        SettingError: The setting or the file holds too short a key, or PostgreSQL is used without the setting.
    """
    if settings.secret_key is not None:
        key = settings.secret_key.encode()
        if len(key) < LEAST_BYTES:
            raise SettingError(
                f"BERAY_SECRET_KEY=*** cannot be used: it has {len(key)} bytes, at least {LEAST_BYTES} are needed. "
                "Make one with: openssl rand -hex 32"
            )
        return key
    if settings.database_url is not None:
        raise SettingError(
            "BERAY_SECRET_KEY must be set with PostgreSQL, to the same value for every process: a code made by one must"
            " be good at the others. Make one with: openssl rand -hex 32"
        )
    path = settings.data_dir / FILE_NAME
    if not path.exists():
        _make(path)
    return _read(path)


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ours = path.with_name(f"{FILE_NAME}.{secrets.token_hex(8)}")
    descriptor = os.open(ours, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(LEAST_BYTES))
            file.flush()
            os.fsync(descriptor)
        os.link(ours, path)  # whole or absent, and never over the key of a process that was faster
    except FileExistsError:
        pass
    finally:
        ours.unlink()


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
        key = file.read().strip()
    if len(key) < LEAST_BYTES:
        raise SettingError(
            f"{path} holds {len(key)} bytes, at least {LEAST_BYTES} are needed. Delete the file to have a new key "
            "made; verification codes that are still open must then be requested again, and webhooks get new secrets."
        )
    return key
