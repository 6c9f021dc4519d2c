"""What the SDK takes from its environment: the server and the login, `BERAY_LOG`, a trace that is going on."""

import json
import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from beray.base_url import normalize_base_url
from beray.credentials import LOCAL, Credentials, CredentialsError, credentials_path, read_credentials
from beray.exceptions import NotConfigured
from beray.protocol.access import Secret, header_value

LOG: Final = logging.getLogger("beray")

_LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO}


@dataclass(frozen=True, slots=True)
class Place:
    """A server, and who one is there."""

    base_url: str
    token: Secret | None


def place_from(environ: Mapping[str, str]) -> Place:
    """The server and the token that the environment and the command line's logins name.

    In this order: `BERAY_BASE_URL` (with `BERAY_TOKEN`, else the login kept for that server); the server of the last
    `beray login`; the background server of this machine, if it runs.

    Raises:
        NotConfigured: There is none.
    """
    token = _checked_token(environ.get("BERAY_TOKEN") or None)
    base_url = environ.get("BERAY_BASE_URL") or None
    if base_url is not None and token is not None:
        return Place(_checked_url(base_url), token)
    credentials = _read_credentials(environ)
    named = base_url or (credentials.server if credentials.server != LOCAL else None)
    if named is not None:
        url = _checked_url(named)
        return Place(url, token or _token_for(credentials, url))
    local = _background_server(environ)
    if local is None or token is not None:
        raise NotConfigured(
            "No server is named.",
            "Set BERAY_BASE_URL (and BERAY_TOKEN), log in with `beray login`, or start one with `beray serve`.",
        )
    return Place(local.base_url, _token_for(credentials, LOCAL) or local.token)


def _read_credentials(environ: Mapping[str, str]) -> Credentials:
    try:
        return read_credentials(credentials_path(environ))
    except RuntimeError:  # nobody has a home here, as in some containers
        return Credentials(None, {})
    except CredentialsError as error:  # its traceback may show the file
        raise NotConfigured(f"The logins can't be read: {error}.", "Mend the file, or log in again.") from None


def _checked_url(base_url: str) -> str:
    try:
        return normalize_base_url(base_url)
    except ValueError as error:
        raise NotConfigured(str(error), "See BERAY_BASE_URL.") from None


def _checked_token(token: str | None) -> Secret | None:
    try:
        return None if token is None else Secret(header_value("token", token))
    except ValueError as error:
        raise NotConfigured(str(error), "See BERAY_TOKEN.") from None


def _token_for(credentials: Credentials, server: str) -> Secret | None:
    login = credentials.logins.get(server)
    return None if login is None else _checked_token(login.token)


def default_data_dir(environ: Mapping[str, str]) -> Path:
    """Where a background server keeps its data, as the server itself has it (`BERAY_DATA_DIR`)."""
    named = environ.get("BERAY_DATA_DIR")
    if named:
        return Path(named).expanduser()
    if getattr(os, "geteuid", lambda: -1)() == 0:
        return Path("/var/lib/beray")
    return Path(environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "beray"


def _background_server(environ: Mapping[str, str]) -> Place | None:
    """What `beray run` has started, if its process is there."""
    if os.name != "posix":  # elsewhere there is no such server, and `os.kill` would end the process
        return None
    try:
        content: Any = json.loads((default_data_dir(environ) / "server.json").read_text(encoding="utf-8"))
        os.kill(int(content["pid"]), 0)
        return Place(str(content["base_url"]), _checked_token(content.get("token")))
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):  # RuntimeError: no home
        return None


def certificates(environ: Mapping[str, str]) -> str:
    """The file or folder of the authorities to trust, as requests has it."""
    import certifi  # comes with requests; only for a secure connection

    return named_certificates(environ) or certifi.where()


def named_certificates(environ: Mapping[str, str]) -> str | None:
    """The same, where the environment names one."""
    return environ.get("REQUESTS_CA_BUNDLE") or environ.get("CURL_CA_BUNDLE") or None


def start_logging(environ: Mapping[str, str]) -> None:
    """With `BERAY_LOG=debug` or `info`, print the SDK's log on stderr, unless the program has set up its own."""
    level = _LEVELS.get(environ.get("BERAY_LOG", "").strip().lower())
    if level is None or LOG.handlers:
        return
    LOG.setLevel(level)
    if LOG.hasHandlers():  # the program's own prints it
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s beray %(levelname)s %(message)s"))
    LOG.addHandler(handler)


def add_trace_context(headers: MutableMapping[str, str]) -> None:
    """Let a trace of the calling program go on in the server: W3C `traceparent`, where OpenTelemetry is in use."""
    if "opentelemetry" not in sys.modules:
        return
    try:
        from opentelemetry import propagate
    except ImportError:  # a namespace that another package has made
        return
    propagate.inject(headers)
