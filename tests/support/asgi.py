"""Serves an ASGI application over loopback, in a thread of the test's process."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.types import ASGIApp


@contextmanager
def served(app: ASGIApp, *, connection: type[Any] | str = "auto") -> Iterator[str]:
    """The base URL of the application, served until the block ends."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)  # a client that comes before uvicorn is ready waits here
        runner = uvicorn.Server(uvicorn.Config(app, http=connection, log_config=None, ws="none", proxy_headers=False))
        thread = threading.Thread(target=runner.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            runner.should_exit = True
            thread.join(timeout=30)
            assert not thread.is_alive()
