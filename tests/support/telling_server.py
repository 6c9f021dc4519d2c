"""`beray`, saying on standard error how streams are written to: `wrote directly`, or `wrote otherwise`."""

import sys
from collections.abc import Iterator
from typing import Any

from beray.cli.main import main
from beray.server.tasks.stream import feed
from beray.server.tasks.stream.outlets import Chunk
from beray.server.tasks.stream.subscriber import Subscriber


def tell() -> None:
    """To watch what is done is this program's purpose."""
    write_directly, write = feed._write, Subscriber.write

    def direct(chunk: Chunk, subscribers: Iterator[Any]) -> bool:
        found = list(subscribers)
        if found:
            print("wrote directly", file=sys.stderr, flush=True)
        return write_directly(chunk, iter(found))

    def other(self: Subscriber, chunk: Chunk) -> None:
        print("wrote otherwise", file=sys.stderr, flush=True)
        write(self, chunk)

    feed._write = direct
    Subscriber.write = other  # type: ignore[method-assign]  # see above


if __name__ == "__main__":
    tell()
    sys.exit(main())
