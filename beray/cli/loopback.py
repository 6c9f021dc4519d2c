"""What is special about a server on this machine."""

import os
from typing import Final
from urllib.parse import urlsplit

LOOPBACK_HOSTS: Final = ("127.0.0.1", "::1", "localhost")


def is_loopback(base_url: str) -> bool:
    """Whether the URL names this machine."""
    return urlsplit(base_url).hostname in LOOPBACK_HOSTS


def bypass_proxies() -> None:
    """Talk to this machine directly, whatever proxy the environment names: none could reach our loopback."""
    for name in ("no_proxy", "NO_PROXY"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        if "*" not in hosts:
            os.environ[name] = ",".join([*hosts, *(host for host in LOOPBACK_HOSTS if host not in hosts)])
