"""Who is logged in where: `~/.config/beray/credentials.toml`, readable by its owner only.

    server = "http://127.0.0.1:8000"

    [servers."http://127.0.0.1:8000"]
    token = "…"
    email = "ada@example.com"

`server` is where the last login was. The embedded server changes its port with every start and is kept as `local`.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

LOCAL: Final = "local"


class CredentialsError(Exception):
    """The credentials file can't be read or written; the text names it and says why."""


@dataclass(frozen=True)
class Login:
    """One server's token."""

    token: str = field(repr=False)
    email: str


@dataclass(frozen=True)
class Credentials:
    """All logins, and the server of the last one."""

    server: str | None
    logins: Mapping[str, Login]

    def added(self, server: str, login: Login) -> "Credentials":
        """With a login to `server`, which becomes the current one."""
        return Credentials(server, {**self.logins, server: login})

    def removed(self, server: str) -> "Credentials":
        """Without `server`'s login."""
        logins = {name: login for name, login in self.logins.items() if name != server}
        return replace(self, server=None if self.server == server else self.server, logins=logins)


def credentials_path(environ: Mapping[str, str]) -> Path:
    """Where the file lies: below `XDG_CONFIG_HOME`, else `~/.config`."""
    base = environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "beray" / "credentials.toml"


def read_credentials(path: Path) -> Credentials:
    """What the file holds; nothing if there is none.

    Raises:
        CredentialsError: It can't be read or isn't what we wrote.
    """
    import tomllib  # every client imports this module, and few read the file

    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        logins = {name: Login(entry["token"], entry["email"]) for name, entry in content.get("servers", {}).items()}
        return Credentials(content.get("server"), logins)
    except FileNotFoundError:
        return Credentials(None, {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CredentialsError(f"{path}: {error}") from error


def write_credentials(path: Path, credentials: Credentials) -> None:
    """Replace the file as a whole, mode 0600, its folder 0700.

    Raises:
        CredentialsError: It can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".credentials-")  # made 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(_as_toml(credentials))
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise CredentialsError(f"{path}: {error.strerror}") from error


def _as_toml(credentials: Credentials) -> str:
    lines = [] if credentials.server is None else [f"server = {_quoted(credentials.server)}"]
    for name, login in credentials.logins.items():
        lines += [
            "",
            f"[servers.{_quoted(name)}]",
            f"token = {_quoted(login.token)}",
            f"email = {_quoted(login.email)}",
        ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")  # a JSON string is a TOML string but for DEL
