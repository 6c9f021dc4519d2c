"""Whole folders between this machine and a task's work_dir, file by file.

What is to be transferred is listed and judged first, all of it, so that a name or link that could do harm stops the
work before its first byte. What was transferred stays when a later file fails: a repeated `download_dir` goes on there,
a repeated `upload_dir` writes the same files again.
"""

import os
import stat
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from beray.exceptions import FolderRefused, ProtocolError
from beray.protocol import calls, flows
from beray.protocol.calls import Call
from beray.protocol.effects import Conditions, Do, Flow
from beray.protocol.responses import value_of
from beray.protocol.types import UploadAnswer
from beray.transfers.downloads import Place, fetch_file
from beray.transfers.meter import Meter
from beray.transfers.names import flaw_of, folded
from beray.transfers.uploads import Progress, upload_file

MAX_ENTRIES: Final = 100_000
"""Most files and folders of one transfer; a ZIP takes more."""

_LISTED_AT_ONCE: Final = 100_000  # what a server gives at most of one folder
_REPARSE_POINT: Final = 0x400  # a link of Windows


@dataclass(frozen=True, slots=True)
class FolderEntry:
    """A file or folder below the one that is transferred; `path` is relative to that and `/`-separated."""

    path: str
    size: int = 0
    is_folder: bool = False


# up


def upload_dir(
    task_id: int, local_dir: Place, path: str, conditions: Conditions, *, progress: Progress | None
) -> Flow[list[UploadAnswer]]:
    """Upload the files below a folder (`BeRayClient.upload_dir`)."""
    root = Path(local_dir)
    files: list[FolderEntry] = yield Do(partial(files_below, root))
    meter = Meter(progress, sum(file.size for file in files))
    answers = []
    for file in files:
        answer = yield from upload_file(
            task_id, _joined(path, file.path), root / file.path, conditions, progress=meter.of_file
        )
        meter.next_file(file.size)
        answers.append(answer)
    return answers


def files_below(root: Path) -> list[FolderEntry]:
    """The regular files below a folder, by path; blocking.

    A link to a file within the folder counts as that file, one to a folder within is left out (what is in it is there
    under its own name), and so are sockets, devices and empty folders, which a work_dir can't be given.

    Raises:
        FolderRefused: A link leads out of the folder or nowhere, a name could not be written there, or there are more
            than `MAX_ENTRIES`.
        OSError: A folder can't be read.
    """
    files = []
    for count, (path, entry) in enumerate(_entries_below(root)):
        if count >= MAX_ENTRIES:
            raise _too_many()
        if entry.is_symlink():
            _check_leads_inside(root, path)
        if not entry.is_file():
            continue
        flaw = flaw_of(path, path.split("/"))
        if flaw is not None:
            raise _refused(path, flaw, "name")
        files.append(FolderEntry(path, entry.stat().st_size))
    return sorted(files, key=lambda file: file.path)


def _entries_below(root: Path) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
    waiting = [""]
    while waiting:
        above = waiting.pop()
        with os.scandir(root / above) as entries:
            for entry in entries:
                path = f"{above}/{entry.name}" if above else entry.name
                yield path, entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)


def _check_leads_inside(root: Path, path: str) -> None:
    try:
        place = (root / path).resolve(strict=True)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise _refused(path, "is a link that leads nowhere", "link") from error
    if not place.is_relative_to(root.resolve()):
        raise _refused(path, "is a link that leads out of the folder", "link")


# down


def download_dir(
    task_id: int, path: str, to: Place, conditions: Conditions, *, overwrite: bool, progress: Progress | None
) -> Flow[list[Path]]:
    """Download all that is below a folder of the work_dir (`BeRayClient.download_dir`)."""
    entries = yield from _listed(task_id, path, conditions)
    root: Path = yield Do(partial(_made_root, Path(to)))
    meter = Meter(progress, sum(entry.size for entry in entries))
    files = []
    for entry in entries:
        target: Path = yield Do(partial(place_below, root, entry.path, is_folder=entry.is_folder))
        if entry.is_folder:
            continue
        yield from fetch_file(
            task_id, _joined(path, entry.path), target, conditions, overwrite=overwrite, progress=meter.of_file
        )
        meter.next_file(entry.size)
        files.append(target)
    return files


@dataclass(slots=True)
class _Listing:
    """What a server says is below a folder, judged as it comes in."""

    entries: list[FolderEntry] = field(default_factory=list)
    _spelling_of: dict[str, str] = field(default_factory=dict)

    def take(self, entry: FolderEntry) -> None:
        if len(self.entries) >= MAX_ENTRIES:
            raise _too_many()
        flaw = flaw_of(entry.path, entry.path.split("/"))
        if flaw is not None:
            raise _refused(entry.path, flaw, "name")
        spelling = folded(entry.path)
        if spelling in self._spelling_of:
            other = self._spelling_of[spelling]
            raise _refused(entry.path, f"is on some systems the same as {other!r}", "duplicate")
        self._spelling_of[spelling] = entry.path
        self.entries.append(entry)


def _listed(task_id: int, path: str, conditions: Conditions) -> Flow[list[FolderEntry]]:
    """Every file and folder below `path`, by path. A server's list may be cut anywhere; what it left out is asked for.

    A node's own `path` is not believed: where a file goes, and what is asked for, follows from where it was listed.
    """
    listing = _Listing()
    waiting = deque([""])
    while waiting:
        above = waiting.popleft()
        nodes = yield from _nodes(calls.list_files_tree(task_id, _joined(path, above)), conditions)
        if nodes is None:
            alone = calls.list_files_tree(task_id, _joined(path, above), depth=1, limit=_LISTED_AT_ONCE)
            nodes = yield from _nodes(alone, conditions)
        if nodes is None:
            raise _too_many()
        waiting.extend(_take_nodes(nodes, above, listing))
    return sorted(listing.entries, key=lambda entry: entry.path.split("/"))


def _nodes(call: Call[Any], conditions: Conditions) -> Flow[Any | None]:
    """The nodes of a listing; None if there are more of its own folder than are shown."""
    answer = yield from flows.request(call, conditions)
    return None if answer.headers.get("BeRay-Truncated", "").lower() == "true" else value_of(answer)


def _take_nodes(nodes: Any, above: str, listing: _Listing) -> list[str]:
    """Take nodes in with all below them; the folders of which more has to be asked."""
    cut = []
    levels: list[tuple[str, Any]] = [(above, nodes)]
    while levels:
        folder, level = levels.pop()
        for path, node in _checked(level, folder):
            if node.get("type") == "file":
                listing.take(FolderEntry(path, node["size"]))
            elif node.get("type") == "directory":
                listing.take(FolderEntry(path, is_folder=True))
                children = node.get("children")
                if children is None or node.get("truncated"):
                    cut.append(path)
                else:
                    levels.append((path, children))
    return cut


def _checked(nodes: Any, above: str) -> Iterator[tuple[str, Any]]:
    """The nodes with their paths, if they have the form of the contract."""
    if not isinstance(nodes, list):
        raise ProtocolError("A list of files is no JSON array. Does base_url point at a BeRay server?")
    for node in nodes:
        name, size = (node.get("name"), node.get("size")) if isinstance(node, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(size, int) or size < 0:
            raise ProtocolError("A list of files holds what is no file. Does base_url point at a BeRay server?")
        if "/" in name:
            raise _refused(name, "has a slash in its name", "name")
        yield (f"{above}/{name}" if above else name), node


def _made_root(to: Path) -> Path:
    to.mkdir(parents=True, exist_ok=True)
    return to.resolve()


def place_below(root: Path, path: str, *, is_folder: bool = False) -> Path:
    """Where `path` goes below the folder `root`, with the folders on the way made; blocking.

    Raises:
        FolderRefused: The name could do harm, or something else than a folder is on the way, such as a link.
    """
    parts = path.split("/")
    flaw = flaw_of(path, parts)
    if flaw is not None:
        raise _refused(path, flaw, "name")
    place = root
    for part in parts if is_folder else parts[:-1]:
        place = place / part
        if not os.path.lexists(place):
            place.mkdir(exist_ok=True)
        _check_is_folder(place, root)
    return root.joinpath(*parts)


def _check_is_folder(place: Path, root: Path) -> None:
    status = place.lstat()
    name = place.relative_to(root).as_posix()
    if stat.S_ISLNK(status.st_mode) or getattr(status, "st_file_attributes", 0) & _REPARSE_POINT:
        raise _refused(name, "is a link in the folder to write to", "link")
    if not stat.S_ISDIR(status.st_mode):
        raise _refused(name, "is no folder in the folder to write to", "exists")


def _joined(above: str, path: str) -> str:
    """A path of the work_dir below another; `.` is the work_dir itself."""
    parts = [part for part in (*above.split("/"), *path.split("/")) if part not in {"", "."}]
    joined = "/".join(parts)
    return f"/{joined}" if above.startswith("/") else joined or "."  # an absolute one is for the server to refuse


def _refused(path: str, what: str, reason: str) -> FolderRefused:
    return FolderRefused(f"{path!r} {what}.", reason=reason, path=path)


def _too_many() -> FolderRefused:
    return FolderRefused(
        f"It holds more than {MAX_ENTRIES} files and folders. Take a part of it, or a ZIP.", reason="too_many_files"
    )
