"""Which address a request comes from, for limits by address, and whether its client asked by https."""

import ipaddress
from collections.abc import Sequence
from typing import Final

from starlette.requests import HTTPConnection

from beray.server.settings import SettingError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NO_ADDRESS: Final = "unix"  # the peer of a Unix socket has none
IPV6_PREFIX: Final = 64  # one customer gets a whole /64: its 2^64 addresses are one client


class ClientAddresses:
    """Tells the client's address, and of https: the connection's, or what a trusted proxy says.

    Anybody can send `X-Forwarded-For` and `-Proto`; they are believed only when the connection comes from a trusted
    proxy, and addresses then only up to the first one, read from the right, that is not one itself.

    Args:
        trusted_proxies: Addresses or networks (`10.0.0.0/8`).

    Raises:
        SettingError: One of them is neither.
    """

    def __init__(self, trusted_proxies: Sequence[str]) -> None:
        self._trusted = [_network(entry) for entry in trusted_proxies]

    def of(self, request: HTTPConnection) -> str:
        """The client's address as limits count it; an IPv6 address stands for its /64."""
        client = self._client(request)
        return NO_ADDRESS if client is None else _counted(client)

    def whole(self, request: HTTPConnection) -> str:
        """The client's address, all of it."""
        return str(self._client(request) or NO_ADDRESS)

    def is_https(self, request: HTTPConnection) -> bool:
        """Whether the client is known to have asked by https.

        That nothing is encrypted here tells nothing: a proxy may be before us that is not named as trusted.
        """
        if request.scope.get("scheme") == "https":
            return True
        said = request.headers.getlist("x-forwarded-proto")
        peer = _address(request.client.host) if said and request.client else None
        nearest = said[-1].rpartition(",")[2] if said else ""
        return peer is not None and self._is_trusted(peer) and nearest.strip().lower() == "https"

    def _client(self, request: HTTPConnection) -> Address | None:
        client = _address(request.client.host) if request.client else None
        if client is None:
            return None
        hops = ",".join(request.headers.getlist("x-forwarded-for")).split(",")
        while hops and self._is_trusted(client):
            said = _address(hops.pop().strip())
            if said is None:
                break
            client = said
        return client

    def _is_trusted(self, address: Address) -> bool:
        return any(address in network for network in self._trusted)


def _network(entry: str) -> Network:
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError as error:
        raise SettingError(
            f"BERAY_TRUSTED_PROXIES holds {entry!r}, which is not an address or a network like 10.0.0.0/8."
        ) from error


def _address(text: str) -> Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _counted(address: Address) -> str:
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((address.packed, IPV6_PREFIX), strict=False))
    return str(address)
