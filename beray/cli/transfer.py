"""Files between this machine and a task's work_dir: whole or not at all, and never outside the chosen folder."""

import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Final

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
        """Where the work_dir's folder `path` goes; it is made.

        Raises:
            CliError: It would leave the folder, or something is there already.
        """
        from beray.transfers.folders import place_below

        with explained(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            return place_below(self.folder.resolve(), path, is_folder=True)


@contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Say what is in the way of a download below `folder`, and what to do."""
    from beray.exceptions import FolderRefused

    try:
        yield
    except IsADirectoryError as error:
        what = say("files.is_folder", path=error.filename)
        raise CliError(what, say("files.is_folder.remedy"), Exit.CONFLICT) from error
    except FileExistsError as error:
        what = say("files.exists", path=error.filename)
        raise CliError(what, say("files.exists.remedy"), Exit.CONFLICT) from error
    except FolderRefused as error:
        path = one_line(error.path or "")
        if error.reason == "name":
            raise CliError(say("files.bad_name", path=path), "", Exit.ERROR) from error
        if error.reason == "link":
            raise CliError(say("files.leaves_folder", path=path, folder=folder), "", Exit.ERROR) from error
        raise


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
        from beray.transfers.folders import files_below

        for file in files_below(path):
            yield LocalFile(path / file.path, PurePosixPath(name, file.path).as_posix())
    elif stat.S_ISREG(path.stat().st_mode):
        yield LocalFile(path, name)
    else:
        raise CliError(say("attach.no_file", path=path), say("attach.no_file.remedy"), Exit.USAGE)


def upload(terminal: Terminal, client: "BeRayClient", task_id: int, file: LocalFile) -> None:
    """Upload one file."""
    with _bar_on(terminal, say("files.sending", path=one_line(file.path)), from_bytes=0) as progress:
        client.upload_file(task_id, file.path, file.source, progress=progress)


# downloads


def download_folder(terminal: Terminal, client: "BeRayClient", task_id: int, path: str, target: Target) -> int:
    """Download all that is below a folder of the work_dir, to the same path below the target; returns how many files.

    Raises:
        CliError: One could not be placed; those before it are there.
    """
    path = "/".join(part for part in path.split("/") if part not in {"", "."})
    folder = target.place(path) if path else target.folder
    with explained(target.folder), _bar_on(terminal, one_line(path or str(target.folder))) as progress:
        written = client.download_dir(task_id, path or ".", folder, overwrite=target.can_overwrite, progress=progress)
    for place in written:
        name = PurePosixPath(path, place.relative_to(folder.resolve()).as_posix())
        say_downloaded(terminal, str(name), place)
    return len(written)


@contextmanager
def _bar_on(
    terminal: Terminal, label: str, *, from_bytes: int = PROGRESS_FROM_BYTES
) -> Iterator[Callable[[int, int | None], None]]:
    """Gives what the SDK tells its progress to; shows it as a bar where there is that much."""

    def show(done: int, total: int | None) -> None:
        if total is None or total >= from_bytes:
            terminal.status(partial(_bar, label, done, total))

    try:
        yield show
    finally:
        terminal.status(None)


def download(
    terminal: Terminal, client: "BeRayClient", task_id: int, path: str, to: str, *, can_overwrite: bool
) -> Path:
    """Download one file to the place, or into the folder, `to`."""
    name = path.rstrip("/").rsplit("/", 1)[-1]
    with explained(Path(to)), _bar_on(terminal, one_line(name)) as progress:
        return client.download_file(task_id, path, to, overwrite=can_overwrite, progress=progress)


def download_archive(
    terminal: Terminal, client: "BeRayClient", task_id: int, to: Path, paths: Sequence[str], *, can_overwrite: bool
) -> Path:
    """Download a ZIP of the paths to the place, or into the folder, `to`."""
    with explained(to), _bar_on(terminal, one_line(to.name)) as progress:
        return client.download_zip(task_id, to, paths, overwrite=can_overwrite, progress=progress)


def say_downloaded(terminal: Terminal, path: str, place: Path) -> None:
    """The line that says where a file is now."""
    terminal.progress(f"{terminal.style('good', '✓')} {one_line(path)} → {one_line(str(place))}")


def copy(terminal: Terminal, response: "requests.Response", file: IO[bytes], *, label: str) -> None:
    """Copy a response's body into `file`.

    Raises:
        CliError: The connection was cut before the end.
    """
    announced = response.headers.get("Content-Length", "")
    total = int(announced) if announced.isdigit() else None
    done = 0
    with _bar_on(terminal, one_line(label)) as progress:
        for chunk in _chunks(response):
            file.write(chunk)
            done += len(chunk)
            progress(done, total)
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
