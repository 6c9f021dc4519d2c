"""The work_dirs: one folder a task, in which its commands may do anything. Whoever else touches it goes through here.

What is in a work_dir is hostile: links that lead out, FIFOs, names that are no text, folders swapped while we look. So
everything is opened by descriptor (`confined.py`), and every method takes wire paths (`paths.py`) and raises `Refused`
with a sentence. All of it blocks; call it in a thread. All of it may be called from several threads.

Layout: `root/<task_id>/work` is the work_dir, 0700, the task's own uid's when the server is root;
`root/<task_id>/output` holds whole tool outputs, the server's alone. The folders above let the uid through (0711).
"""

import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from beray.protocol.types import FileNode
from beray.server.errors import Refused, shown
from beray.server.work_dirs.confined import (
    DISK_FAULTS,
    OPEN_FOLDER,
    is_folder,
    locate,
    open_beneath,
    open_closed,
    refusals,
    stat_or_none,
)
from beray.server.work_dirs.listing import (
    SNAPSHOT_ENTRIES,
    TREE_DEPTH,
    TREE_ENTRIES,
    Snapshot,
    Tree,
    Walk,
    list_tree,
    take_snapshot,
)
from beray.server.work_dirs.open_file import LinkRule, OpenFile, open_regular
from beray.server.work_dirs.outputs import Outputs
from beray.server.work_dirs.paths import Parts, invalid_path, parse_new_path, parse_path, wire_path
from beray.server.work_dirs.removal import remove_entry
from beray.server.work_dirs.upload import Upload, Written
from beray.server.work_dirs.usage import freed_bytes, measure

_THROUGH: Final = 0o711
_ID_DIGITS: Final = 15  # a longer name is no id: they are counted, and stay exact in JSON (2**53)


class WorkDir:
    """One task's folder.

    Args:
        path: Where it is; its parent must not be writable by the task's commands.
        owner: Uid (and gid) that gets what is written here; None when the server is not root.
        allows_hard_links: False where nothing keeps a command from linking files of others in (sandbox `none`).
        min_free_bytes: Free disk space that writing leaves alone; of a small disk a twentieth.
    """

    def __init__(
        self, path: Path, *, owner: int | None, allows_hard_links: bool = True, min_free_bytes: int = 0
    ) -> None:
        self.path = path
        self.owner = owner
        self._min_free_bytes = min_free_bytes
        self._rule = LinkRule(os.geteuid() if owner is None else owner, allows_hard_links)

    def open_file(self, path: str) -> OpenFile:
        """Open a regular file for reading; a link is followed while it stays inside.

        Raises:
            Refused: `file_not_found`, `invalid_path`, `not_a_file`, `file_not_permitted`, `file_busy`.
        """
        parts = parse_path(path)
        with self._root(parts) as root, locate(root, parts, follows_last=True) as place:
            return open_regular(place.name, place.folder, rule=self._rule, path=wire_path(parts))

    def read_bytes(self, path: str, *, offset: int = 0, limit: int | None = None) -> bytes:
        """Up to `limit` bytes from `offset`; None reads to the end, whatever that is: give a limit to hostile files.

        Raises:
            Refused: As `open_file`.
        """
        with self.open_file(path) as file:
            return file.read_at(offset, max(file.size - offset, 0) if limit is None else limit)

    def write_bytes(self, path: str, content: bytes) -> Written:
        """Write a whole file: the old content or the new, never a part. Parents are made; a link is replaced.

        Raises:
            Refused: As `begin_write` and `Upload.commit`.
        """
        with self.begin_write(path, limit_bytes=len(content)) as upload:
            upload.write(content)
            return upload.commit()

    def begin_write(self, path: str, *, limit_bytes: int) -> Upload:
        """Start to write a file whose content comes bit by bit; nothing is seen of it until `commit`.

        Raises:
            Refused: `invalid_path`, `path_is_directory`, `not_a_directory` (a parent is a file), `disk_full`.
        """
        parts = parse_new_path(path)
        return Upload(
            self._open_root(),
            parts,
            owner=self.owner,
            limit_bytes=limit_bytes,
            min_free_bytes=self._min_free_bytes,
        )

    def remove(self, path: str) -> int | None:
        """Remove a file, a link (not what it leads to), or a folder with all that is in it.

        Returns:
            Bytes of the disk that are free again; None when it was a folder, in which nobody has counted.

        Raises:
            Refused: `file_not_found`, `invalid_path` (the work_dir itself too), `file_not_permitted`.
        """
        parts = parse_path(path)
        if not parts:
            raise invalid_path(path, "path_names_no_file")
        with self._root(parts) as root, locate(root, parts, follows_last=False) as place:
            status = stat_or_none(place.name, place.folder)
            remove_entry(place.name, place.folder)
        return None if status is None or is_folder(status) else freed_bytes(status)

    def tree(self, path: str = ".", *, depth: int | None = None, limit: int = TREE_ENTRIES) -> list[FileNode]:
        """What is in a folder, folders first, then by name; see `list_tree`."""
        return self.list_tree(path, depth=depth, limit=limit).nodes

    def list_tree(self, path: str = ".", *, depth: int | None = None, limit: int = TREE_ENTRIES) -> Tree:
        """What is in a folder and whether that is all.

        Args:
            path: The folder.
            depth: Levels to show, 1 for the folder's own entries; never more than `TREE_DEPTH`.
            limit: Entries to show; those near the top come first.

        Raises:
            Refused: `file_not_found`, `not_a_directory`, `invalid_path`, `file_not_permitted`.
        """
        parts = parse_path(path)
        levels = TREE_DEPTH if depth is None else min(depth, TREE_DEPTH)
        with self._root(parts) as root, locate(root, parts, follows_last=True) as place:
            status = stat_or_none(place.name, place.folder)
            if status is not None and not is_folder(status):
                raise Refused("not_a_directory", path=shown(path))
            base = open_beneath(place.folder, (place.name,))
            try:
                return list_tree(base, parts, depth=levels, limit=limit)
            finally:
                os.close(base)

    def snapshot(self, *, limit: int = SNAPSHOT_ENTRIES) -> Snapshot:
        """All regular files as they are now; `listing.compare` tells two snapshots apart."""
        with self._root(()) as root:
            return take_snapshot(root, limit=limit)

    def walk(self, paths: Sequence[str] = ()) -> Walk:
        """Go through everything at and below `paths` (none: the whole work_dir), once each, in a fixed order.

        Raises:
            Refused: One of them doesn't exist or can't be reached; said here, before the first entry.
        """
        starts = [parse_path(path) for path in paths] or [()]
        root = self._open_root()
        try:
            for start in starts:
                self._require(root, start)
        except BaseException:
            os.close(root)
            raise
        return Walk(root, starts, self._rule)

    def _require(self, root: int, parts: Parts) -> None:
        with refusals(parts), locate(root, parts, follows_last=True) as place:
            os.stat(place.name, dir_fd=place.folder, follow_symlinks=False)

    @contextmanager
    def _root(self, parts: Parts) -> Iterator[int]:
        """The open work_dir, and `Refused` about `parts` for what the system says."""
        with refusals(parts):
            root = self._open_root()
            try:
                yield root
            finally:
                os.close(root)

    def _open_root(self) -> int:
        with refusals(()):
            root = open_closed(os.fsencode(self.path), None)
            mode = os.fstat(root).st_mode
            if mode & stat.S_IRWXU != stat.S_IRWXU:  # by a command, which took it from the task's next ones too
                with suppress(PermissionError):  # it is another's
                    os.fchmod(root, stat.S_IMODE(mode) | stat.S_IRWXU)
            return root


class WorkDirs:
    """All work_dirs of a server, below `root`; the rest is as for `WorkDir`."""

    def __init__(self, root: Path, *, allows_hard_links: bool = True, min_free_bytes: int = 0) -> None:
        self.root = root
        self._min_free_bytes = min_free_bytes
        self._allows_hard_links = allows_hard_links

    def create(self, task_id: int, *, owner: int | None) -> WorkDir:
        """Make a task's folders; what is there already stays.

        Raises:
            Refused: `disk_full`, `disk_unavailable`.
        """
        work = self._folder(task_id) / "work"
        if not work.is_dir():
            try:
                self._build(work, owner)
            except OSError as error:
                code = DISK_FAULTS.get(error.errno or 0)
                if code is None:
                    raise
                raise Refused(code) from error
        return self._work_dir(work, owner)

    def _build(self, work: Path, owner: int | None) -> None:
        """Make the folders. The work_dir gets its name last: one that is there is complete, whenever we were killed."""
        staged = work.with_name("work.new")
        self._make(self.root, _THROUGH)
        self._make(work.parent, _THROUGH)
        self._make(work.with_name("output"), 0o700)
        with _locked(work.parent):
            if not work.is_dir():  # else another call was first
                self._make(staged, 0o700, owner=owner)
                staged.rename(work)

    def get(self, task_id: int, *, owner: int | None) -> WorkDir:
        """The task's work_dir.

        Raises:
            Refused: `task_not_found`: it has none (any more).
        """
        work = self._folder(task_id) / "work"
        if not work.is_dir():
            raise Refused("task_not_found", task_id=task_id)
        return self._work_dir(work, owner)

    def delete(self, task_id: int) -> None:
        """Remove all of a task's folders, whatever is in them; nothing there is fine.

        Raises:
            OSError: Something can't be removed, or a command still adds files faster than they go.
        """
        try:
            root = os.open(self.root, OPEN_FOLDER)
        except FileNotFoundError:
            return
        try:
            remove_entry(str(task_id).encode(), root)
        except FileNotFoundError:
            return
        finally:
            os.close(root)

    def last_id(self) -> int:
        """The highest id of a task that has a folder; 0 when none has.

        Raises:
            OSError: The folder can't be read.
        """
        try:
            names = os.listdir(self.root)  # noqa: PTH208  # names only
        except FileNotFoundError:
            return 0
        return max((int(name) for name in names if name.isdecimal() and len(name) <= _ID_DIGITS), default=0)

    def measure(self, task_id: int) -> int:
        """Bytes that all of the task's files take on the disk, kept outputs included; 0 when it has none."""
        return measure(self._folder(task_id))

    def output_dir(self, task_id: int) -> Path:
        """Where whole outputs of the task's tool calls are kept, out of its commands' reach."""
        return self._folder(task_id) / "output"

    def outputs(self, task_id: int) -> Outputs:
        """What is kept there."""
        return Outputs(self.output_dir(task_id), task_id)

    def _folder(self, task_id: int) -> Path:
        return self.root / str(int(task_id))

    def _work_dir(self, path: Path, owner: int | None) -> WorkDir:
        return WorkDir(
            path, owner=owner, allows_hard_links=self._allows_hard_links, min_free_bytes=self._min_free_bytes
        )

    def _make(self, path: Path, mode: int, *, owner: int | None = None) -> None:
        path.mkdir(parents=True, exist_ok=True)
        folder = os.open(path, OPEN_FOLDER)
        try:
            if owner is not None:
                os.fchown(folder, owner, owner)
            os.fchmod(folder, mode)  # mkdir's own mode is subject to the umask
        finally:
            os.close(folder)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone among the threads and processes of the server; a task can't open the folder above its work_dir."""
    descriptor = os.open(folder, OPEN_FOLDER)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
