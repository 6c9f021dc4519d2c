"""Which server a command talks to, and as whom.

In this order: `--server` or `BERAY_BASE_URL` (token: `BERAY_TOKEN`, else the login kept for it); the server of the last
login; the embedded server of the data folder, as its local user.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from beray.cli.embedded import EmbeddedServer
from beray.cli.exits import CliError, Exit
from beray.cli.language import language, say
from beray.cli.loopback import bypass_proxies, is_loopback
from beray.cli.program import program_name
from beray.cli.terminal import Terminal
from beray.credentials import LOCAL, Credentials, credentials_path, read_credentials

if TYPE_CHECKING:
    from beray.client import BeRayClient

Need = Literal["tasks", "server", "settings"]
"""What of the embedded server: its tasks (none are there where no server ever ran), any server, the settings of now."""


PATIENT_RETRIES: Final = 2


class NothingHere(CliError):
    """No server is named, nobody is logged in, and no embedded server has ever run: there are no tasks."""


@dataclass(frozen=True)
class Server:
    """Where the requests go.

    Attributes:
        base_url: Without a slash at its end.
        token: None: nobody is logged in there.
        name: Under which the login is kept: the URL, or `local`.
        data_dir: Of the embedded server; None for any other.
    """

    base_url: str
    token: str | None
    name: str
    data_dir: Path | None = None


@dataclass
class App:
    """What every command is given: the terminal, the environment, and the options that all commands share."""

    terminal: Terminal
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    server_option: str | None = None
    is_debug: bool = False

    @property
    def credentials_path(self) -> Path:
        """The file with the logins."""
        return credentials_path(self.environ)

    def find_server(self, need: Need) -> Server:
        """The server to talk to; the embedded one is started where that is needed.

        Raises:
            CliError: There is none, or it can't be started.
        """
        token = self.environ.get("BERAY_TOKEN") or None
        credentials = read_credentials(self.credentials_path)
        base_url = self.named_server()
        if base_url is not None:
            return self._known(base_url, token or _token_for(credentials, base_url))
        if token is not None and credentials.server in {None, LOCAL}:
            raise CliError(say("server.token_alone"), say("server.token_alone.remedy"), Exit.USAGE)
        if credentials.server is not None and credentials.server != LOCAL:
            return self._known(credentials.server, token or _token_for(credentials, credentials.server))
        return self._embedded(need, _token_for(credentials, LOCAL))

    def named_server(self) -> str | None:
        """The URL that the option or the environment names."""
        named = self.server_option or self.environ.get("BERAY_BASE_URL")
        return normalized(named) if named else None

    def _known(self, base_url: str, token: str | None) -> Server:
        if is_loopback(base_url):
            bypass_proxies()
        return Server(base_url, token, base_url)

    def _embedded(self, need: Need, token: str | None) -> Server:
        bypass_proxies()
        embedded = EmbeddedServer(self.data_dir(), self.environ, self.terminal.status)
        if need == "tasks" and not embedded.has_data():
            raise NothingHere(
                say("server.nothing_here"), say("server.nothing_here.remedy", program=program_name()), Exit.NOT_FOUND
            )
        file = embedded.ensure(note=self.note, has_fresh_settings=need == "settings")
        if token is None and file.token is None:  # an operator's own server, without a local user
            return Server(file.base_url, None, file.base_url)
        return Server(file.base_url, token or file.token, LOCAL, embedded.data_dir)

    def note(self, line: str) -> None:
        """One dim line of progress."""
        self.terminal.progress(self.terminal.style("dim", f"  {line}"))

    def data_dir(self) -> Path:
        """The data folder of the embedded server."""
        from beray.server.settings import default_data_dir

        named = self.environ.get("BERAY_DATA_DIR")
        return Path(named).expanduser().absolute() if named else default_data_dir()

    def connect(self, need: Need = "tasks") -> "BeRayClient":
        """A client that is logged in.

        Raises:
            CliError: There is no server, or nobody is logged in there.
        """
        return self.client_of(self.logged_in(need))

    def logged_in(self, need: Need = "tasks") -> Server:
        """The server, with a token."""
        server = self.find_server(need)
        if server.token is None:
            remedy = say("server.not_logged_in.remedy", program=program_name(), url=server.base_url)
            raise CliError(say("server.not_logged_in", url=server.base_url), remedy, Exit.AUTH)
        return server

    def client_of(self, server: Server, *, is_patient: bool = True) -> "BeRayClient":
        """A client for `server`.

        Args:
            server: Where to.
            is_patient: Repeats failed calls by itself; otherwise every failure is raised at once.
        """
        from beray.client import BeRayClient

        max_retries = PATIENT_RETRIES if is_patient else 0
        try:
            return BeRayClient(server.base_url, server.token, language=language(), max_retries=max_retries)
        except ValueError as error:  # a token that no header can carry, a URL that requests refuses
            raise CliError(str(error), say("server.bad_url.remedy"), Exit.USAGE) from error


def normalized(url: str) -> str:
    """`url` with a scheme and without what follows the server's root.

    Raises:
        CliError: It is not the URL of a server.
    """
    from urllib.parse import urlsplit

    text = url.strip() if "://" in url else f"http://{url.strip()}"
    try:
        parts = urlsplit(text)
        is_good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise CliError(say("server.bad_url", url=url), say("server.bad_url.remedy"), Exit.USAGE)
    return text.rstrip("/").removesuffix("/api/v1").rstrip("/")


def _token_for(credentials: Credentials, server: str) -> str | None:
    login = credentials.logins.get(server)
    return None if login is None else login.token
