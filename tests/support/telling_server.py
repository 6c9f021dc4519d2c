"""`beray`, saying on standard error by which way a stream is first written to: `wrote by TransportOutlet`."""

import sys
from collections.abc import Callable

from beray.cli.main import main
from beray.server.tasks.stream import outlets
from beray.server.tasks.stream.outlets import Chunk, SteppedOutlet, Taken, TransportOutlet


def tell(outlet: type[TransportOutlet] | type[SteppedOutlet]) -> None:
    write: Callable[[TransportOutlet | SteppedOutlet, Chunk], Taken] = outlet.write

    def told(self: TransportOutlet | SteppedOutlet, chunk: Chunk) -> Taken:
        print(f"wrote by {outlet.__name__}", file=sys.stderr, flush=True)
        return write(self, chunk)

    outlet.write = told  # type: ignore[method-assign]  # to watch what is done is this program's purpose


if __name__ == "__main__":
    tell(outlets.TransportOutlet)
    tell(outlets.SteppedOutlet)
    sys.exit(main())
