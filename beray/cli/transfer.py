"""Files between this machine and a task's work_dir: whole or not at all, and never outside the chosen folder."""

import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, Final

from beray.cli import formats
from beray.cli.exits import CliError, Exit
from beray.cli.language import say
from beray.cli.terminal import Terminal, one_line

if TYPE_CHECKING:
    import requests

    from beray.client import BeRayClient

CHUNK_BYTES: Final = 1 << 20
PROGRESS_FROM_BYTES: Final = 1_000_000  # smaller files are there before a bar could be read
BAR_CELLS: Final = 24


@dataclass(frozen=True)
class LocalFile:
    """A file to upload and its name in the work_dir."""

    source: Path
    path: str


@dataclass(frozen=True)
class Target:
    """Where downloads go: below `folder`, replacing files only if asked to."""

    folder: Path
    can_overwrite: bool = False

    def place(self, path: str) -> Path:
        """Where the work_dir's `path` goes.

        Raises:
            CliError: It would leave the folder (a server could send any name), or something is there already.
        """
        parts = PurePosixPath(path).parts
        if not parts or path.startswith("/") or ".." in parts or "\0" in path:
            raise CliError(say("files.bad_name", path=one_line(path)), "", Exit.ERROR)
        root = self.folder.resolve()
        place = root.joinpath(*parts)
        if not place.parent.resolve().is_relative_to(root):
            raise CliError(say("files.leaves_folder", path=one_line(path), folder=self.folder), "", Exit.ERROR)
        return self.checked(place)

    def checked(self, place: Path) -> Path:
        """`place`, if it may be written."""
        if place.is_dir():
            raise CliError(say("files.is_folder", path=place), say("files.is_folder.remedy"), Exit.CONFLICT)
        if os.path.lexists(place) and not self.can_overwrite:
            raise CliError(say("files.exists", path=place), say("files.exists.remedy"), Exit.CONFLICT)
        return place


# uploads


def attached_files(paths: Sequence[Path]) -> list[LocalFile]:
    """The files to upload for `--attach`: a file by its name, a folder with all that is in it.

    Raises:
        CliError: Two of them have the same name, or one is no file and no folder.
    """
    found: dict[str, LocalFile] = {}
    for path in paths:
        for file in _files_of(path):
            if file.path in found:
                raise CliError(say("attach.same_name", path=file.path), say("attach.same_name.remedy"), Exit.USAGE)
            found[file.path] = file
    return list(found.values())


def _files_of(path: Path) -> Iterator[LocalFile]:
    name = path.resolve().name  # `.` and `data/..` have names too
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield LocalFile(file, PurePosixPath(name, file.relative_to(path)).as_posix())
    elif stat.S_ISREG(path.stat().st_mode):
        yield LocalFile(path, name)
    else:
        raise CliError(say("attach.no_file", path=path), say("attach.no_file.remedy"), Exit.USAGE)


def upload(terminal: Terminal, client: "BeRayClient", task_id: int, file: LocalFile) -> None:
    """Upload one file."""
    with file.source.open("rb") as source:
        total = os.fstat(source.fileno()).st_size
        terminal.status(lambda: _bar(say("files.sending", path=one_line(file.path)), source.tell(), total))
        try:
            client.upload_file(task_id, file.path, source)
        finally:
            terminal.status(None)


# downloads


def download_tree(
    terminal: Terminal, client: "BeRayClient", task_id: int, nodes: Iterable[Mapping[str, Any]], target: Target
) -> int:
    """Download every file below `nodes`; returns how many.

    Raises:
        CliError: One could not be placed; those before it are there.
    """
    count = 0
    for node in nodes:
        if node["type"] == "directory":
            children = node.get("children")
            if children is None or node.get("truncated"):
                children = client.list_files_tree(task_id, node["path"])
            count += download_tree(terminal, client, task_id, children, target)
        elif node["type"] == "file":
            place = target.place(node["path"])
            with closing(client.get_file_content(task_id, node["path"], stream=True)) as response:
                save(terminal, response, place)
            say_downloaded(terminal, node["path"], place)
            count += 1
    return count


def say_downloaded(terminal: Terminal, path: str, place: Path) -> None:
    """The line that says where a file is now."""
    terminal.progress(f"{terminal.style('good', '✓')} {one_line(path)} → {one_line(str(place))}")


def save(terminal: Terminal, response: "requests.Response", place: Path) -> None:
    """Write a response's body to `place`: into a `.part` beside it first, renamed when it is whole."""
    place.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name[:100]}.", suffix=".part")
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            copy(terminal, response, file, label=place.name)
            os.fchmod(file.fileno(), 0o666 & ~_umask())  # mkstemp makes it 0600
        part.replace(place)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def copy(terminal: Terminal, response: "requests.Response", file: IO[bytes], *, label: str) -> None:
    """Copy a response's body into `file`.

    Raises:
        CliError: The connection was cut before the end.
    """
    announced = response.headers.get("Content-Length", "")
    total = int(announced) if announced.isdigit() else None
    done = 0
    try:
        for chunk in _chunks(response):
            file.write(chunk)
            done += len(chunk)
            if total is None or total >= PROGRESS_FROM_BYTES:
                terminal.status(partial(_bar, one_line(label), done, total))
    finally:
        terminal.status(None)
    if total is not None and done != total:
        raise CliError(say("files.cut", path=label), say("files.cut.remedy"), Exit.NETWORK)


def _chunks(response: "requests.Response") -> Iterator[bytes]:
    import requests

    try:
        yield from response.iter_content(CHUNK_BYTES)
    except requests.RequestException as error:
        raise CliError(say("files.cut", path=response.url), say("files.cut.remedy"), Exit.NETWORK) from error


def _bar(label: str, done: int, total: int | None) -> str:
    if not total:
        return f"{label}  {formats.size(done)}"
    filled = min(BAR_CELLS, BAR_CELLS * done // total)
    bar = "█" * filled + "░" * (BAR_CELLS - filled)
    return f"{label}  {bar} {min(100, 100 * done // total)} %  {formats.size(done)} / {formats.size(total)}"


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
