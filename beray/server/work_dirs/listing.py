"""List a work_dir: as a tree for people, as a snapshot to see what a command changed, and in order for a ZIP.

All go by descriptor, follow no link, and are bounded. Besides files, folders and links there may be FIFOs, sockets and
devices; they have no content and are left out.
"""

import errno
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Literal

from beray.protocol.types import FileNode
from beray.server.clock import iso
from beray.server.errors import Refused
from beray.server.work_dirs.confined import LeavesWorkDir, TooDeep, locate, open_beneath
from beray.server.work_dirs.open_file import LinkRule, OpenFile, open_regular
from beray.server.work_dirs.paths import MAX_DEPTH, Parts, wire_name, wire_path
from beray.server.work_dirs.upload import TEMPORARY_PREFIX

TREE_DEPTH: Final = 64  # two levels of JSON each; parsers stop between 250 (orjson) and 1000 (Python)
TREE_ENTRIES: Final = 10_000
SNAPSHOT_ENTRIES: Final = 20_000  # lstat of each takes about 40 ms together
FOLDER_ENTRIES: Final = 100_000  # read of one folder to sort it; 100 B each
READ_ENTRIES: Final = 500_000  # read in one listing, shown or not; lstat of each takes about a second together
STEP_NAMES: Final = 1000  # some 10 ms: others' work in threads need not wait for longer
WALK_ENTRIES: Final = 500_000

_LATEST_MS: Final = 253_402_300_799_999  # the end of year 9999: a command may have set any time


@dataclass(frozen=True)
class Tree:
    """What a folder holds; `is_truncated` when it holds more than is shown (a cut folder inside says so itself)."""

    nodes: list[FileNode]
    is_truncated: bool


@dataclass(frozen=True)
class Stamp:
    """What a file looked like; another content has another stamp."""

    size: int
    modified_ns: int
    inode: int


class Snapshot(dict[str, Stamp]):
    """Every regular file by its wire path; `is_complete` is False when there were more than are kept."""

    is_complete: bool = True


@dataclass(frozen=True)
class FileChange:
    """A difference between two snapshots."""

    path: str
    change: Literal["created", "modified", "deleted"]
    size: int


@dataclass
class WalkEntry:
    """A file or folder met on a walk. It can be opened until the walk goes on.

    Attributes:
        path: Wire path, relative to the work_dir.
        is_folder: A folder; its entries follow.
        mode: Permission bits.
        modified_ns: Nanoseconds since the epoch.
    """

    path: str
    is_folder: bool
    mode: int
    modified_ns: int
    _opened: OpenFile | None = field(default=None, repr=False)

    def open(self) -> OpenFile:
        """The file's content; the walk closes it when it goes on."""
        assert self._opened is not None, "a folder has no content"
        return self._opened


def modified_at(modified_ns: int) -> str:
    """A file's time as the wire shows it, kept within what the wire can show."""
    return iso(min(max(modified_ns // 1_000_000, 0), _LATEST_MS))


def list_tree(base: int, path: Parts, *, depth: int, limit: int) -> Tree:
    """The tree below the open folder `base`, whose own path is `path`.

    It is read level by level, so that what is near the top is there when the limit cuts.
    """
    top: list[FileNode] = []
    is_truncated = False
    waiting: deque[tuple[Parts, list[FileNode], FileNode | None]] = deque([((), top, None)])
    left, unread = limit, READ_ENTRIES
    while waiting:
        parts, nodes, parent = waiting.popleft()
        most = min(FOLDER_ENTRIES, unread) if left else 0
        entries, is_cut = _entries_or_none(base, parts, most=most) if len(parts) < depth else ([], True)
        unread -= len(entries)
        shown = _shown(entries)
        is_cut = is_cut or len(shown) > left
        for name, status in shown[:left]:
            node = _node((*path, *parts, name), status)
            nodes.append(node)
            left -= 1
            if "children" in node:
                waiting.append(((*parts, name), node["children"], node))
        if is_cut and parent is not None:
            parent["truncated"] = True
        is_truncated = is_truncated or (is_cut and parent is None)
    return Tree(top, is_truncated)


def take_snapshot(base: int, *, limit: int = SNAPSHOT_ENTRIES) -> Snapshot:
    """The stamps of all regular files below the open folder `base`."""
    snapshot = Snapshot()
    unread = READ_ENTRIES
    waiting: deque[Parts] = deque([()])
    while waiting:
        parts = waiting.popleft()
        try:
            entries, is_cut = _entries(base, parts, most=min(FOLDER_ENTRIES, unread))
        except OSError:  # removed, or closed to us, meanwhile
            snapshot.is_complete = False
            continue
        unread -= len(entries)
        snapshot.is_complete = snapshot.is_complete and not is_cut
        for name, status in entries:
            if stat.S_ISDIR(status.st_mode):
                if len(parts) < MAX_DEPTH - 1:
                    waiting.append((*parts, name))
                else:
                    snapshot.is_complete = False
            elif stat.S_ISREG(status.st_mode):
                if len(snapshot) >= limit:
                    snapshot.is_complete = False
                    return snapshot
                stamp = Stamp(status.st_size, status.st_mtime_ns, status.st_ino)
                snapshot[wire_path((*parts, name))] = stamp
    return snapshot


def compare(before: Snapshot, after: Snapshot) -> list[FileChange]:
    """What changed, by path. Of incomplete snapshots only what is certain: a file not seen need not be gone, or new."""
    changes = []
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if new is None:
            if after.is_complete:
                changes.append(FileChange(path, "deleted", 0))
        elif old is None:
            if before.is_complete:
                changes.append(FileChange(path, "created", new.size))
        elif old != new:
            changes.append(FileChange(path, "modified", new.size))
    return changes


class Walk:
    """Everything at and below some paths, once each, folders before what they hold, names in byte order.

    A link to a file inside gives that file's content; a link to a folder is not descended (it may lead to where we
    are), nor is what is too deep or closed to us: `left_out` counts those. Close it, or exhaust it.
    """

    def __init__(self, root: int, starts: Iterable[Parts], rule: LinkRule) -> None:
        """Takes over the descriptor `root` of the work_dir. `starts` have been found to exist."""
        self._root = root
        self._rule = rule
        self._starts = _outermost(starts)
        self._folders: list[tuple[int, Parts, Iterator[bytes]]] = []
        self._count = 0
        self.left_out = 0

    def close(self) -> None:
        """Release every descriptor; twice is harmless."""
        while self._folders:
            os.close(self._folders.pop()[0])
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def __iter__(self) -> Iterator[WalkEntry]:
        return (entry for entry in self.steps() if entry is not None)

    def steps(self) -> Iterator[WalkEntry | None]:
        """The same, and None after every few names, so that a walk among what is left out can pause too."""
        try:
            for start in self._starts:
                yield from self._visit_start(start)
                while self._folders:
                    folder, parts, names = self._folders[-1]
                    name = next(names, None)
                    if name is None:
                        os.close(folder)
                        self._folders.pop()
                    else:
                        yield from self._visit(name, folder, (*parts, name))
                    if self._count % STEP_NAMES == 0:
                        yield None
        finally:
            self.close()

    def _visit_start(self, start: Parts) -> Iterator[WalkEntry]:
        if not start:
            self._descend(b".", self._root, ())
            return
        try:
            place = locate(self._root, start, follows_last=True)
        except (OSError, LeavesWorkDir, TooDeep):
            self.left_out += 1
            return
        with place:
            yield from self._visit(place.name, place.folder, start)

    def _visit(self, name: bytes, folder: int, parts: Parts) -> Iterator[WalkEntry]:
        self._count += 1
        if self._count > WALK_ENTRIES:
            raise Refused("too_many_files", most=WALK_ENTRIES)
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:  # vanished meanwhile
            return
        if stat.S_ISDIR(status.st_mode):
            yield WalkEntry(wire_path(parts), True, stat.S_IMODE(status.st_mode), status.st_mtime_ns)
            self._descend(name, folder, parts)
            return
        opened = self._open(name, folder, parts, status)
        if opened is None:
            return
        with opened:
            yield WalkEntry(wire_path(parts), False, opened.mode, opened.modified_ns, opened)

    def _descend(self, name: bytes, folder: int, parts: Parts) -> None:
        if len(parts) >= MAX_DEPTH:
            self.left_out += 1
            return
        try:
            inner = open_beneath(folder, (name,))
        except OSError as error:
            _raise_if_short(error)
            self.left_out += 1
            return
        self._folders.append((inner, parts, iter(sorted(islice(_names(inner), WALK_ENTRIES + 1)))))

    def _open(self, name: bytes, folder: int, parts: Parts, status: os.stat_result) -> OpenFile | None:
        try:
            if stat.S_ISREG(status.st_mode):
                return open_regular(name, folder, rule=self._rule, path=wire_path(parts))
            if stat.S_ISLNK(status.st_mode):
                with locate(self._root, parts, follows_last=True) as place:
                    return open_regular(place.name, place.folder, rule=self._rule, path=wire_path(parts))
        except FileNotFoundError:
            self.left_out += stat.S_ISLNK(status.st_mode)  # a dangling link; else vanished meanwhile
            return None
        except OSError as error:
            _raise_if_short(error)
        except (Refused, LeavesWorkDir, TooDeep):
            pass
        self.left_out += 1
        return None


def _raise_if_short(error: OSError) -> None:
    """What is left out for want of descriptors would be missing without a word."""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise error


def _outermost(starts: Iterable[Parts]) -> list[Parts]:
    """Without doubles and without what lies below another one, in order."""
    kept: list[Parts] = []
    for start in sorted(set(starts)):
        if not kept or start[: len(kept[-1])] != kept[-1]:
            kept.append(start)
    return kept


def _names(folder: int) -> Iterator[bytes]:
    with os.scandir(folder) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            if not name.startswith(TEMPORARY_PREFIX):
                yield name


def _entries(base: int, parts: Parts, *, most: int) -> tuple[list[tuple[bytes, os.stat_result]], bool]:
    """At most so many names and states in a folder, unsorted, and whether there are more."""
    found: list[tuple[bytes, os.stat_result]] = []
    folder = open_beneath(base, parts)
    try:
        for name in _names(folder):
            if len(found) >= most:
                return found, True
            try:
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except OSError:  # vanished meanwhile
                continue
            found.append((name, status))
    finally:
        os.close(folder)
    return found, False


def _entries_or_none(base: int, parts: Parts, *, most: int) -> tuple[list[tuple[bytes, os.stat_result]], bool]:
    """The same of a folder that may have been removed, or closed to us, since it was listed."""
    try:
        return _entries(base, parts, most=most)
    except OSError:
        if not parts:
            raise
        return [], True


def _shown(entries: list[tuple[bytes, os.stat_result]]) -> list[tuple[bytes, os.stat_result]]:
    """Those that a tree shows, folders first."""
    shown = [(name, status) for name, status in entries if _type(status) is not None]
    shown.sort(key=lambda entry: (not stat.S_ISDIR(entry[1].st_mode), entry[0]))
    return shown


def _node(parts: Parts, status: os.stat_result) -> FileNode:
    kind = _type(status)
    assert kind is not None
    node: FileNode = {
        "name": wire_name(parts[-1]),
        "path": wire_path(parts),
        "type": kind,
        "size": 0 if kind == "directory" else status.st_size,
        "modified_at": modified_at(status.st_mtime_ns),
    }
    if kind == "directory":
        node["children"] = []
    return node


def _type(status: os.stat_result) -> Literal["file", "directory", "symlink"] | None:
    if stat.S_ISDIR(status.st_mode):
        return "directory"
    if stat.S_ISREG(status.st_mode):
        return "file"
    if stat.S_ISLNK(status.st_mode):
        return "symlink"
    return None
