"""An HTTP proxy that makes tunnels (CONNECT), and knows nothing of what goes through them."""

import asyncio

from tests.support.proxy import Proxy, pump_both


class ConnectProxy(Proxy):
    """Use it as a context manager.

    Attributes:
        asked: The head of each request for a tunnel.
    """

    def __init__(self) -> None:
        super().__init__(list)
        self.asked: list[str] = []

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.asked.append(head)
        method, target, _ = head.split(" ", 2)
        if method != "CONNECT":
            writer.write(b"HTTP/1.1 405 Only CONNECT\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        server = await asyncio.open_connection("127.0.0.1", int(target.rpartition(":")[2]))
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        await pump_both((reader, writer), server)
