"""A connection to an MCP server by streamable HTTP. Imports the protocol's library.

The URL is the operator's word: this host may be talked to, wherever it is, and no other. So neither the list of allowed
hosts nor the check for public addresses applies, and a redirect to another host is not followed.
"""

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

import httpx2
from mcp.client.streamable_http import streamable_http_client

from beray.server.agent.mcp.config import Endpoint, McpServer
from beray.server.agent.mcp.connection import MOST_MESSAGE_BYTES, Streams
from beray.server.agent.web.client import open_client
from beray.server.sandbox.egress.dial import Dialer
from beray.server.sandbox.egress.limits import EgressLimits

SESSION_LOST_STATUS: Final = 404  # by the protocol: the session has ended, and a new one must be begun

log = logging.getLogger(__name__)


@asynccontextmanager
async def endpoint_streams(
    server: McpServer, endpoint: Endpoint, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Streams]:
    """Messages to and from the server; its session there is ended at the end.

    Args:
        server: Whose name the log has.
        endpoint: Where it is.
        tls: Which certificates are believed; default those of this machine.
    """
    gone = asyncio.Event()

    def look(response: httpx2.Response) -> None:
        if response.status_code < 400 or response.request.method != "POST":  # others may be unknown to it
            return
        log.warning("MCP server %s answered with status %s", server.name, response.status_code)
        if response.status_code == SESSION_LOST_STATUS:
            gone.set()

    async with (
        open_client(
            Dialer(EgressLimits(), resolve=_look_up, why_refused=lambda address: None),
            headers=dict(endpoint.headers),
            most_body_bytes=MOST_MESSAGE_BYTES,
            timeout_seconds=server.timeout_seconds,
            tls=tls,
            seen=look,
        ) as client,
        streamable_http_client(endpoint.url, http_client=client, max_sse_event_size=MOST_MESSAGE_BYTES) as streams,
    ):
        yield Streams(*streams, gone)


async def _look_up(host: str) -> Sequence[str]:
    """A host's addresses, or the address that it is; names of one label too, as the machine knows them."""
    try:
        return [str(ipaddress.ip_address(host.strip("[]")))]
    except ValueError:
        found = await asyncio.to_thread(socket.getaddrinfo, host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
