"""The operator's file of MCP servers (`BERAY_MCP_CONFIG`): read and checked once, at start.

Its form is that of most clients, `{"mcpServers": {"name": {"command", "args", "env"} | {"url", "headers"}}}`, with
some keys of our own (`_COMMON`).
"""

import ipaddress
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from beray.server.settings import SettingError

MOST_SERVERS: Final = 32
MOST_FILE_BYTES: Final = 1 << 20
MOST_TIMEOUT_SECONDS: Final = 3600
DEFAULT_TIMEOUT_SECONDS: Final = 120

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*")
_OWN_HEADERS: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "accept-encoding"})


@dataclass(frozen=True)
class Command:
    """A server that is a program, spoken with over its standard streams.

    Attributes:
        env: Its environment variables, secrets among them.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Endpoint:
    """A server that is reached by streamable HTTP.

    Attributes:
        headers: Sent with each request, secrets among them.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class McpServer:
    """One server.

    Attributes:
        name: What a task's `tools` asks for, and what its tools' names begin with.
        tools: Those of its tools that are offered; None: all.
        timeout_seconds: Of one call.
        is_default: A task that names no tools gets these too.
        description: One line for people; empty when the operator wrote none.
    """

    name: str
    target: Command | Endpoint
    tools: frozenset[str] | None = None
    timeout_seconds: int = DEFAULT_TIMEOUT_SECONDS
    is_default: bool = False
    description: str = ""


_COMMON: Final = ("default", "description", "tools", "timeout_seconds")
_OF_A_COMMAND: Final = ("command", "args", "env")
_OF_AN_ENDPOINT: Final = ("url", "headers")
_IGNORED: Final = ("type",)  # other clients write "stdio" or "http" beside what says the same


def read_mcp_config(path: Path, environ: Mapping[str, str] | None, *, taken: Collection[str]) -> tuple[McpServer, ...]:
    """The servers that the file names, by name.

    Args:
        path: The file.
        environ: Where `${VARIABLE}` in values of `env` and `headers` is looked up; None: this process starts no
            servers, and needs none of their secrets.
        taken: Names of tools that there are already.

    Raises:
        SettingError: Something in it can't be used; says where, and what would be right.
    """
    try:
        servers = _read(path)
        if len(servers) > MOST_SERVERS:
            raise ValueError(f"{len(servers)} servers are more than the {MOST_SERVERS} there may be")
        _check_apart(sorted(servers))
        return tuple(_server(name, servers[name], _Values(environ, taken)) for name in sorted(servers))
    except ValueError as error:
        raise SettingError(f"BERAY_MCP_CONFIG={str(path)!r} cannot be used: {error}.") from error


@dataclass(frozen=True)
class _Values:
    """What entries are checked against."""

    environ: Mapping[str, str] | None
    taken: Collection[str]


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(f"it can't be read ({error.strerror})") from error
    if len(raw) > MOST_FILE_BYTES:
        raise ValueError(f"it is larger than {MOST_FILE_BYTES} bytes")
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON ({error})") from error
    servers = body.get("mcpServers") if isinstance(body, dict) else None
    if not isinstance(servers, dict):
        raise ValueError('it must be an object with "mcpServers", an object of servers by name')
    _check_keys(body, ("mcpServers",), "the file")
    return servers


def _check_apart(names: list[str]) -> None:
    """Tools of two servers never have the same name: they are called `<server>_<tool>`."""
    for first in names:
        for second in names:
            if second.startswith(f"{first}_"):
                raise ValueError(f"{second!r} begins like a tool of {first!r}; give one of the servers another name")


def _server(name: str, entry: Any, values: _Values) -> McpServer:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} can't be a server's name: it begins with a small letter, and has up to 32 small letters, digits,"
            " _ and -"
        )
    if name in values.taken:
        raise ValueError(f"{name!r} is the name of a tool already; give the server another one")
    try:
        return _checked(name, _object(entry, "it"), values.environ)
    except ValueError as error:
        raise ValueError(f"server {name!r}: {error}") from error


def _checked(name: str, entry: dict[str, Any], environ: Mapping[str, str] | None) -> McpServer:
    if ("command" in entry) == ("url" in entry):
        raise ValueError('it needs either "command" (a program) or "url" (an HTTP server)')
    is_command = "command" in entry
    _check_keys(entry, (*(_OF_A_COMMAND if is_command else _OF_AN_ENDPOINT), *_COMMON, *_IGNORED), "it")
    tools = entry.get("tools")
    return McpServer(
        name,
        _command(entry, environ) if is_command else _endpoint(entry, environ),
        tools=None if tools is None else frozenset(_texts(tools, "tools")),
        timeout_seconds=_timeout(entry.get("timeout_seconds", DEFAULT_TIMEOUT_SECONDS)),
        is_default=_flag(entry.get("default", False), "default"),
        description=_line(entry.get("description", ""), "description"),
    )


def _command(entry: dict[str, Any], environ: Mapping[str, str] | None) -> Command:
    program = _text(entry["command"], "command")
    if not program:
        raise ValueError('"command" is empty; name the program')
    env = _texts_by_name(entry.get("env", {}), "env", environ)
    for name in env:
        if not _ENV_NAME.fullmatch(name):
            raise ValueError(f'"env": {name!r} can\'t be an environment variable')
    return Command((program, *_texts(entry.get("args", []), "args")), env)


def _endpoint(entry: dict[str, Any], environ: Mapping[str, str] | None) -> Endpoint:
    url = _text(entry["url"], "url")
    _check_url(url)
    headers = _texts_by_name(entry.get("headers", {}), "headers", environ)
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _OWN_HEADERS:
            raise ValueError(f'"headers": {name!r} can\'t be set')
        if not _HEADER_VALUE.fullmatch(value):  # the value itself is a secret, and not shown
            raise ValueError(f'"headers": the value of {name!r} holds characters that no header can')
    return Endpoint(url, headers)


def _check_url(url: str) -> None:
    """Secrets go there: it is https, or a place that no stranger answers for."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f'"url": {url!r} is no URL ({error})') from error
    if parts.scheme not in {"http", "https"} or not host or parts.username is not None or parts.fragment:
        raise ValueError(
            f'"url": {_without_user(url)!r} is not of the form https://host/path (what logs in belongs into "headers")'
        )
    if parts.scheme == "http" and not _is_near(host):
        raise ValueError(
            f'"url": {url!r} would send everything in clear text; use https. Without it only this machine, private'
            " addresses and names without a dot can be used"
        )


def _without_user(url: str) -> str:
    return re.sub(r"//[^/@]*@", "//***@", url)


def _is_near(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost") or "." not in host
    return address.is_private


def _check_keys(entry: Mapping[str, Any], known: Collection[str], what: str) -> None:
    unknown = [key for key in entry if key not in known]
    if unknown:
        raise ValueError(f"{what} has the unknown key {unknown[0]!r}; known: {', '.join(known)}")


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} must be an object")
    return value


def _text(value: Any, key: str) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f'"{key}" must be a text without NUL characters')
    return value


def _line(value: Any, key: str) -> str:
    line = _text(value, key)
    if len(line) > 200 or not line.isprintable():
        raise ValueError(f'"{key}" must be one line of up to 200 characters')
    return line


def _texts(value: Any, key: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f'"{key}" must be a list of texts')
    return tuple(_text(item, key) for item in value)


def _texts_by_name(value: Any, key: str, environ: Mapping[str, str] | None) -> dict[str, str]:
    found = {name: _text(item, f"{key}.{name}") for name, item in _object(value, f'"{key}"').items()}
    if environ is None:
        return {}
    return {name: _VARIABLE.sub(_looked_up(environ, f"{key}.{name}"), item) for name, item in found.items()}


def _looked_up(environ: Mapping[str, str], where: str) -> Callable[[re.Match[str]], str]:
    def look_up(match: re.Match[str]) -> str:
        name = match[1]
        if name not in environ:
            raise ValueError(f'"{where}" names ${{{name}}}, which is not in the server\'s environment; set it')
        return environ[name]

    return look_up


def _timeout(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST_TIMEOUT_SECONDS:
        raise ValueError(f'"timeout_seconds" must be a whole number from 1 to {MOST_TIMEOUT_SECONDS}')
    return value


def _flag(value: Any, key: str) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f'"{key}" must be true or false')
    return value
