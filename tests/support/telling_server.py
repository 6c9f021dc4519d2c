"""`beray`, saying on standard error by which way a stream has been written to: `wrote by TransportOutlet`."""

import sys
from collections.abc import Callable
from typing import Any

from beray.cli.main import main
from beray.server.tasks.stream import outlets
from beray.server.tasks.stream.outlets import Chunk, SteppedOutlet, Taken


def telling(name: str, write: Callable[..., Taken]) -> Callable[..., Taken]:
    def told(*args: Any) -> Taken:
        print(f"wrote by {name}", file=sys.stderr, flush=True)
        return write(*args)

    return told


def tell() -> None:
    """To watch what is done is this program's purpose."""
    make_writer = outlets._writer

    def make_telling_writer(transport: Any) -> Callable[[Chunk], Taken]:
        return telling("TransportOutlet", make_writer(transport))

    outlets._writer = make_telling_writer
    SteppedOutlet.write = telling("SteppedOutlet", SteppedOutlet.write)  # type: ignore[method-assign]  # see above


if __name__ == "__main__":
    tell()
    sys.exit(main())
