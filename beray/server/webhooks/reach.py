"""Whom webhooks may call: hosts of the public internet by https, and what the operator lists.

The form of a URL is checked where it is given; what its host means, at each attempt, by the one who connects: a name
can mean something else by then.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from beray.server.sandbox.egress.addresses import Address, why_refused
from beray.server.sandbox.egress.dial import WhyRefused
from beray.server.settings import SettingError, Settings

URL_MOST: Final = 2048  # characters; common servers take no more
ANYWHERE: Final = "1"

_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
# A last label that begins with a letter (RFC 3696) can't be part of an IPv4 address in any of its spellings.
_FULL_NAME: Final = rf"(?:{_LABEL}\.)+[A-Za-z](?:[A-Za-z0-9_-]{{0,61}}[A-Za-z0-9_])?"
_FIVE_DIGITS: Final = r"[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]"
_ANY_PORT: Final = rf"[1-9][0-9]{{0,3}}|{_FIVE_DIGITS}"
# Below 1024 are other services' ports: a mail server should not be made to read our greeting.
_PORT: Final = rf"443|102[4-9]|10[3-9][0-9]|1[1-9][0-9]{{2}}|[2-9][0-9]{{3}}|{_FIVE_DIGITS}"
_REST: Final = r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*)?(?:\?[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*)?"
PUBLIC_URL: Final = rf"https://{_FULL_NAME}(?::(?:{_PORT}))?{_REST}"
"""The form of a URL that needs no word of the operator's, for readers of /openapi.json too."""

_PUBLIC: Final = re.compile(PUBLIC_URL)
_LISTED: Final = re.compile(rf"https?://([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::(?:{_ANY_PORT}))?{_REST}")
_NAME: Final = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
_HOST: Final = re.compile(r"https?://(\[[^\]]*\]|[^/:?#]*)")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def host_of(url: str) -> str:
    """The host of a URL that has been checked, in lower case, an IPv6 address without its brackets."""
    found = _HOST.match(url)
    return "" if found is None else found[1].strip("[]").lower()


@dataclass(frozen=True)
class Reach:
    """Where webhooks may go.

    Attributes:
        is_anywhere: To every host there is.
        names: To these hosts, whatever they mean.
        networks: To these addresses, whatever name leads there.
    """

    is_anywhere: bool = False
    names: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()

    def takes(self, url: str) -> bool:
        """Whether a URL's form is one that is called."""
        if len(url) > URL_MOST:
            return False
        return bool(_PUBLIC.fullmatch(url) or (_LISTED.fullmatch(url) and self.lists(host_of(url))))

    def lists(self, host: str) -> bool:
        """Whether the operator has named the host, or the address that it is."""
        address = address_of(host)
        if address is None:
            return _NAME.fullmatch(host) is not None and (self.is_anywhere or host in self.names)
        return self._holds(address)

    def rule_for(self, host: str) -> WhyRefused:
        """Judges the addresses that a host turns out to mean."""

        def judge(address: Address) -> str | None:
            return None if host in self.names or self._holds(address) else why_refused(address)

        return judge

    def _holds(self, address: Address) -> bool:
        return self.is_anywhere or any(address in network for network in self.networks)


def address_of(host: str) -> Address | None:
    """The address that a host is, written as usual; None: it is a name, or an address in disguise."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def open_reach(settings: Settings) -> Reach:
    """As the operator has set it.

    Raises:
        SettingError: An entry of BERAY_WEBHOOK_ALLOW_PRIVATE can't be used.
    """
    return _parse([entry for entry in settings.webhook_allow_private if entry != "0"])


def _parse(entries: Sequence[str]) -> Reach:
    names, networks = set(), []
    for entry in entries:
        if entry == ANYWHERE:
            continue
        try:
            networks.append(ipaddress.ip_network(entry.strip("[]")))
        except ValueError as error:
            if not _NAME.fullmatch(entry) or entry.replace(".", "").isdigit():
                raise SettingError(
                    f"BERAY_WEBHOOK_ALLOW_PRIVATE cannot be used: {entry!r} is neither a host name nor an address nor a"
                    " network like 10.0.0.0/8; nor 1 (every host)."
                ) from error
            names.add(entry.lower())
    return Reach(ANYWHERE in entries, frozenset(names), tuple(networks))
