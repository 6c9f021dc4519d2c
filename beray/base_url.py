"""The address of a server, checked and brought into one form. Does no I/O."""

from urllib.parse import SplitResult, quote, urlsplit

_SAFE = "!#$%&'()*+,/:;=?@[]~"  # what stays as it is in a path; `%` since it may be quoted already


def normalize_base_url(base_url: str) -> str:
    """`base_url` as HTTP libraries send it, without `/api/v1` and slashes at its end.

    Raises:
        ValueError: It is not an http or https URL of a server.
    """
    if not isinstance(base_url, str) or not base_url.strip().lower().startswith(("http://", "https://")):
        raise ValueError(
            f"base_url must begin with http:// or https://, such as http://localhost:8000; got {_shown(base_url)}"
        )
    parts = _split(base_url)
    if parts.username is not None or parts.password is not None:
        raise ValueError("base_url must hold no user name and password: the token takes the place of both.")
    if parts.query or parts.fragment:
        raise ValueError(f"base_url must have no query and no fragment; got {_shown(base_url)}")
    path = quote(parts.path, safe=_SAFE).rstrip("/").removesuffix("/api/v1").rstrip("/")
    return f"{parts.scheme.lower()}://{_host(parts)}{path}"


def _split(base_url: str) -> SplitResult:
    try:
        parts = urlsplit(base_url.strip())
        is_server = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_server = False
    if not is_server or any(character.isspace() for character in parts.netloc):
        raise ValueError(f"base_url must name a server, such as http://localhost:8000; got {_shown(base_url)}")
    return parts


def _host(parts: SplitResult) -> str:
    name = parts.hostname or ""
    if not name.isascii():
        name = _as_ascii(name)
    if ":" in name:
        name = f"[{name}]"
    return name if parts.port is None else f"{name}:{parts.port}"


def _as_ascii(name: str) -> str:
    import idna  # comes with requests; only for a name that needs it

    try:
        return idna.encode(name, uts46=True).decode("ascii")
    except idna.IDNAError as error:
        raise ValueError(f"base_url names a server that can't exist: {name!r}") from error


def _shown(base_url: object) -> str:
    """For a message: what stands before an `@`, or in a query, may be a password."""
    if not isinstance(base_url, str):
        return repr(base_url)
    _, mark, server = base_url.partition("?")[0].rpartition("@")
    return repr(f"...@{server}" if mark else server)
