"""`web_fetch` as a source of a tool. Imported at start: what speaks HTTP is loaded when a run needs it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from beray.server.messages import text
from beray.server.sandbox.egress.allowlist import AllowList
from beray.server.sandbox.egress.dial import Dialer, SystemResolver
from beray.server.sandbox.egress.limits import EgressLimits
from beray.server.settings import SettingError, Settings

if TYPE_CHECKING:
    from pydantic_ai.toolsets import AbstractToolset

    from beray.server.agent.tools.base import Toolbox

NAME: Final = "web_fetch"


@dataclass(frozen=True)
class WebAccess:
    """What of the web may be read.

    Attributes:
        tls: Which certificates are believed; None: those of this machine.
    """

    allowed: AllowList
    dialer: Dialer
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True)
class WebFetchSource:
    """The tool; see `ToolSource`."""

    access: WebAccess
    name: str = NAME
    is_default: bool = True

    @property
    def description(self) -> str:
        """For people."""
        return text("tool_web_fetch")

    @asynccontextmanager
    async def open(self, box: "Toolbox") -> AsyncIterator["AbstractToolset[None]"]:
        """Holds nothing open: each call connects for itself."""
        yield await asyncio.to_thread(_make_toolset, self.access, box)


def open_web_fetch(settings: Settings) -> tuple[WebFetchSource, ...]:
    """The tool, if the operator has switched it on.

    Raises:
        SettingError: No host is allowed, or the list can't be used.
    """
    if not settings.web_fetch:
        return ()
    try:
        allowed = AllowList(settings.sandbox_allow_hosts)
    except ValueError as error:
        raise SettingError(f"BERAY_SANDBOX_ALLOW_HOSTS cannot be used: {error}.") from error
    if not allowed:
        raise SettingError(
            "BERAY_WEB_FETCH=1 needs hosts that may be read: name them in BERAY_SANDBOX_ALLOW_HOSTS, for example"
            " docs.python.org, *.wikipedia.org, or unset BERAY_WEB_FETCH."
        )
    return (WebFetchSource(WebAccess(allowed, Dialer(EgressLimits(), resolve=SystemResolver()))),)


def _make_toolset(access: WebAccess, box: "Toolbox") -> "AbstractToolset[None]":
    from pydantic_ai.toolsets import FunctionToolset

    from beray.server.agent.web.fetch import build_web_fetch

    return FunctionToolset(
        [build_web_fetch(access, box)],
        max_retries=20,
        docstring_format="google",
        require_parameter_descriptions=True,
    )
