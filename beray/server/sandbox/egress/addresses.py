"""Which addresses belong to the public internet.

Sources: the IANA special-purpose address registries for IPv4 and IPv6 (RFC 6890) and what has been deprecated since.
`ipaddress.is_global` is asked too but not enough: its answer differs between Python versions, and it takes multicast,
6to4 and NAT64 for global, through which an address of this network can be reached in disguise.
"""

import ipaddress
import socket

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_NOT_PUBLIC_4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network; 0.0.0.0 reaches this machine
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' NAT, and overlay networks
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local, where clouds answer for metadata
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocol assignments; a cloud's metadata service too
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)

# Whatever is not global unicast is refused whole: loopback, IPv4-mapped, NAT64 (64:ff9b::/96), unique local,
# link-local, site-local, multicast.
_GLOBAL_UNICAST_6 = ipaddress.IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments: Teredo, ORCHID
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)


def why_refused(address: Address) -> str | None:
    """Why nothing may be connected to there; None if it may."""
    if not is_public(address):
        return "is not an address of the public internet"
    if is_of_this_machine(address):
        return "is an address of this machine"
    return None


def is_public(address: Address) -> bool:
    """Everybody on the internet means the same by it."""
    if not address.is_global:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    return address in _GLOBAL_UNICAST_6 and not any(address in network for network in _NOT_PUBLIC_6)


def is_of_this_machine(address: Address) -> bool:
    """This machine has it: no firewall before the machine would see the connection. Asks the routes, sends nothing.

    Raises:
        OSError: There is no descriptor to ask with.
    """
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect((str(address), 9))
        except OSError:  # no route to it: connecting will say so
            return False
        return ipaddress.ip_address(asking.getsockname()[0]) == address
