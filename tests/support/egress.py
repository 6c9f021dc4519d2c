"""A network for the proxy's tests: names with the addresses we give them, and two addresses of this machine's
loopback that stand for the public internet. All other addresses are what they are.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from beray.server.sandbox.bubblewrap import BubblewrapConfine
from beray.server.sandbox.choose import prepare_layout
from beray.server.sandbox.egress.addresses import Address, why_refused
from beray.server.sandbox.egress.proxy import Egress
from beray.server.sandbox.guard import landlock as kernel
from beray.server.sandbox.guarded import GuardedSandbox
from beray.server.sandbox.uids import TaskUids
from tests.support.sandbox_cases import Box

PUBLIC = "127.0.0.77"
SECOND_PUBLIC = "127.0.0.78"
RESET = b"reset"
"""Sent to an `EchoServer`, it breaks the connection off."""

LINGER_NOT = struct.pack("ii", 1, 0)  # a close sends RST, not FIN


def public_is_public(address: Address) -> str | None:
    """The proxy's own rule, but for the addresses that stand for the internet."""
    return None if str(address) in {PUBLIC, SECOND_PUBLIC} else why_refused(address)


class Names:
    """A resolver: what each name means, one answer after the other (the last one stays), and what was asked.

    Attributes:
        waits: Names that are answered when their event is set.
    """

    def __init__(self, **answers: Sequence[Sequence[str]]) -> None:
        self._answers = {name.replace("_", "."): [list(answer) for answer in given] for name, given in answers.items()}
        self.asked: list[str] = []
        self.waits: dict[str, asyncio.Event] = {}

    def add(self, host: str, answer: Sequence[str]) -> None:
        self._answers[host] = [list(answer)]

    async def __call__(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if host in self.waits:
            await self.waits[host].wait()
        answers = self._answers.get(host)
        if answers is None:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return answers.pop(0) if len(answers) > 1 else answers[0]


class EchoServer:
    """Sends back what it gets, with `echo ` before it, and counts who came.

    Args:
        answer: Sent instead, once, before it closes.
    """

    def __init__(self, *, answer: bytes | None = None) -> None:
        self._answer = answer
        self.visits = 0
        self.open = 0
        self.port = 0

    async def start(self, address: str, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self._server = await asyncio.start_server(self._serve, address, port, ssl=tls)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.visits += 1
        self.open += 1
        try:
            while chunk := await reader.read(65536):
                if chunk == RESET:
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
                    writer.transport.abort()
                    break
                writer.write(self._answer or b"echo " + chunk)
                await writer.drain()
                if self._answer is not None:
                    break
        except OSError:
            pass
        finally:
            self.open -= 1
            writer.close()

    async def close(self) -> None:
        self._server.close()
        await self._server.wait_closed()


@contextlib.asynccontextmanager
async def open_box(egress: Egress, data_dir: Path) -> AsyncIterator[Box]:
    """A bubblewrap sandbox whose commands have that way out; closed at the end, with it."""
    program = shutil.which("bwrap")
    assert program is not None
    confine = BubblewrapConfine(os.path.realpath(program), scopes_signals=kernel.abi() >= kernel.ABI_SCOPE)
    uid = TaskUids().of_probe
    sandbox = GuardedSandbox(confine, prepare_layout(data_dir, is_root=uid is not None), probe_uid=uid, egress=egress)
    try:
        yield Box(sandbox, await sandbox.probe(), data_dir)
    finally:
        await sandbox.close()
