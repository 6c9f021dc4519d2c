"""`python -m tests.fuzz.guided TARGET FOLDER LIBFUZZER-OPTION...`: one property, tried until the time is up.

Atheris rewrites the bytecode of what is imported under `instrument_imports`, to see which branches an input takes. It
ends the process itself: with 0, or another status after a finding, whose input is left in FOLDER.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["beray.protocol", "beray.unzip", "beray.server.work_dirs", "zipfile"]):
    from tests.fuzz import properties
    from tests.protocol.test_sse import STREAM_PIECES
    from tests.support.archives import archive_of

MOST_CUTS = 6

Check = Callable[[bytes], None]


def event_stream(folder: Path) -> Check:
    def check(data: bytes) -> None:
        count = data[0] % MOST_CUTS if data else 0
        properties.check_event_stream(data[1 + count :], list(data[1 : 1 + count]))

    return check


def path(folder: Path) -> Check:
    work_dir = properties.make_hostile_work_dir(folder)
    return lambda data: properties.check_path(data.decode("utf-8", "surrogateescape"), work_dir)


def archive(folder: Path) -> Check:
    return lambda data: properties.check_archive(data, folder)


TARGETS = {"event_stream": event_stream, "path": path, "archive": archive}
SEEDS = {
    "event_stream": [b"\2\7\x1f" + b"".join(STREAM_PIECES), *STREAM_PIECES],
    "path": [b"a/b/f", b"o/secret", "é/\uefff".encode(), b"./%2e%2e/..", b"c/d//l"],
    "archive": [
        archive_of(),
        archive_of(("a/b.txt", b"text" * 40), ("c/", b"")),
        archive_of(("../x", b"x"), ("x\\y", b"y")),
        archive_of(("link", b"/etc/passwd"), mode=0o120777),
    ],
}


def main() -> None:
    name, folder, *options = sys.argv[1:]
    corpus, work = Path(folder, "corpus"), Path(folder, "work")
    corpus.mkdir()
    work.mkdir()
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *options, str(corpus)], TARGETS[name](work))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
