"""Files and archives from a task's work_dir to this machine: whole, or not there.

A download goes into a part beside its target (`part_file.py`) and is moved there when its length and, where the server
tells it, its SHA-256 are right. A cut is resumed with Range and If-Range, so that the rest is never taken from another
file than the beginning; so is what an earlier call left. A server without strong entity tags, or without ranges, gets
asked for the whole again.
"""

import base64
import binascii
import errno
import hashlib
import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from beray.exceptions import APIError, ConnectionFailed, DownloadDamaged, NetworkError, ProtocolError, TLSError
from beray.protocol import calls, flows
from beray.protocol.calls import Call
from beray.protocol.effects import Conditions, Do, Flow, Read, Sleep
from beray.protocol.responses import Answer
from beray.transfers.names import own_name
from beray.transfers.part_file import HASH_BYTES, READ_BYTES, STRONG_TAG, PartFile, open_part
from beray.transfers.uploads import Progress
from beray.transfers.zip_end import is_whole_zip

Place = str | os.PathLike[str]

_SHA256: Final = re.compile(r"(?:^|,)\s*sha-256\s*=\s*:([A-Za-z0-9+/]{43}=):")
_CONTENT_RANGE: Final = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII | re.IGNORECASE)
_LENGTH: Final = re.compile(r"\d{1,19}", re.ASCII)
_AS_IT_IS: Final[Mapping[str, str]] = {"Accept-Encoding": "identity"}  # ranges, lengths and digests of the file itself
_WITH_DIGEST: Final[Mapping[str, str]] = {"Want-Repr-Digest": "sha-256=10"}


def download_file(
    task_id: int, path: str, to: Place, conditions: Conditions, *, overwrite: bool, progress: Progress | None
) -> Flow[Path]:
    """Download one file of the work_dir (`BeRayClient.download_file`)."""
    target: Path = yield Do(partial(_target, to, own_name(path, default="download")))
    yield from fetch_file(task_id, path, target, conditions, overwrite=overwrite, progress=progress)
    return target


def fetch_file(
    task_id: int, path: str, target: Path, conditions: Conditions, *, overwrite: bool, progress: Progress | None
) -> Flow[None]:
    """Download a file to exactly `target`."""
    call = calls.get_file_content(task_id, path)
    report = progress or _say_nothing
    if not overwrite and (yield Do(partial(os.path.lexists, target))):
        size = yield from _size_if_same(call, target, conditions)
        if size is None:
            raise FileExistsError(errno.EEXIST, "It is there already, with other content", str(target))
        report(size, size)
        return
    download = _Download(call=call, conditions=conditions, report=report)
    yield from _fetch(download, target, source=call.target, can_replace=overwrite)


def download_zip(
    task_id: int,
    to: Place,
    conditions: Conditions,
    *,
    paths: Sequence[str],
    overwrite: bool,
    progress: Progress | None,
) -> Flow[Path]:
    """Download files and folders as a ZIP archive (`BeRayClient.download_zip`)."""
    target: Path = yield Do(partial(_target, to, f"task-{task_id}.zip"))
    if not overwrite and (yield Do(partial(os.path.lexists, target))):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    call = calls.download_files_as_zip(task_id, paths)
    download = _Download(call=call, conditions=conditions, report=progress or _say_nothing, is_whole=is_whole_zip)
    yield from _fetch(download, target, source=None, can_replace=overwrite)
    return target


@dataclass(frozen=True, slots=True)
class _Facts:
    """What an answer says of the whole file; None for what it doesn't say."""

    etag: str | None
    total: int | None
    sha256: bytes | None


@dataclass(slots=True, kw_only=True)
class _Download:
    """One download.

    Attributes:
        call: What gives the whole.
        conditions: The client's.
        report: Told of the bytes that are there.
        is_whole: A further proof, by the file's own form.
        facts: Of the file whose beginning the part is; None until this call has heard of them.
        furthest: Most bytes that were ever there.
        failures: Cuts in a row that brought nothing new.
    """

    call: Call[bytes]
    conditions: Conditions
    report: Progress
    is_whole: Callable[[Path], bool] | None = None
    facts: _Facts | None = None
    furthest: int = 0
    failures: int = 0


def _fetch(download: _Download, target: Path, *, source: str | None, can_replace: bool) -> Flow[None]:
    part: PartFile = yield Do(partial(open_part, target, source))
    try:
        damage = yield from _fill_and_prove(download, part)
        if damage is not None:
            download.facts = None
            yield Do(partial(part.restart, None))
            damage = yield from _fill_and_prove(download, part)
        if damage is not None:
            yield Do(partial(part.restart, None))
            raise DownloadDamaged(f"{download.call.target} came damaged twice: {damage}. Nothing of it was kept.")
        yield Do(partial(part.move_to, target, can_replace=can_replace))
    finally:
        part.close()


def _fill_and_prove(download: _Download, part: PartFile) -> Flow[str | None]:
    """Download until the part has its length; what is wrong with it then, None if nothing is."""
    yield from _fill(download, part)
    facts = download.facts
    assert facts is not None
    if facts.total is not None and part.size != facts.total:
        return f"it has {part.size} bytes instead of {facts.total}"
    if facts.sha256 is not None:
        while not (yield Do(part.hash_some)):
            pass
        if part.sha256 != facts.sha256:
            return f"its SHA-256 is {part.sha256.hex()} instead of {facts.sha256.hex()}"
    if download.is_whole is not None and not (yield Do(partial(download.is_whole, part.path))):
        return "it is no whole ZIP archive"
    if part.size == 0:
        download.report(0, 0)  # no piece has told that this is the end
    return None


def _fill(download: _Download, part: PartFile) -> Flow[None]:
    """Receive, resuming through cuts for as long as something new comes, else as often as the client's policy says."""
    has_begun = False
    while True:
        try:
            cut = yield from _receive(download, part)
        except NetworkError as error:
            if not has_begun:  # it has been tried as often as any call
                raise
            cut = error
        has_begun = True
        if cut is None:
            return
        if part.etag is None:
            download.facts = None  # what comes next may be another file
        elif part.size > download.furthest:
            download.failures = 0
            download.furthest = part.size
        delay = download.conditions.policy.delay_seconds(
            download.failures, retry_after=None, elapsed_seconds=0.0, random=download.conditions.random
        )
        if delay is None or isinstance(cut, TLSError):
            raise cut
        download.failures += 1
        yield Sleep(delay)


def _receive(download: _Download, part: PartFile) -> Flow[NetworkError | None]:
    """Ask for what is missing and take it in; what cut it, None at its clean end."""
    problem = yield from _open(download, part)
    if problem is not None:
        return problem
    total = download.facts.total if download.facts is not None else None
    download.report(part.size, total)
    while True:
        data = yield Read()
        if isinstance(data, NetworkError) or not data:
            break
        if part.add(data):
            yield Do(part.flush)
        download.report(part.size, total)
    yield Do(part.flush)
    if total is not None and part.size >= total:
        return None
    if isinstance(data, NetworkError):
        return data
    if total is not None:
        return ConnectionFailed(f"{download.call.target} ended after {part.size} of {total} bytes.")
    return None


def _open(download: _Download, part: PartFile) -> Flow[NetworkError | None]:
    """Open the answer with what comes after the part; else tell why the whole has to be asked for again."""
    call = _ranged(download, part)
    try:
        answer = yield from flows.request(call, download.conditions, is_streamed=True)
    except APIError as error:
        if error.status_code != 416 or part.size == 0:
            raise
        return (yield from _begin_again(download, part, "the file has become shorter"))
    facts = _facts_of(answer)
    if answer.status == 206 and part.size:
        if not _continues(answer, facts, part):
            return (yield from _begin_again(download, part, "another part came than was asked for"))
        download.facts = download.facts or facts
        return None
    if answer.status != 200:
        raise ProtocolError(f"{answer.method} {answer.url} answered {answer.status}; 200 was expected.")
    if download.facts is not None and facts.etag != download.facts.etag:
        return (yield from _begin_again(download, part, "the file has changed"))  # its digest was not asked for
    download.facts = download.facts or facts
    yield Do(partial(part.restart, facts.etag))
    return None


def _begin_again(download: _Download, part: PartFile, why: str) -> Flow[NetworkError]:
    download.facts = None
    yield Do(partial(part.restart, None))
    return ConnectionFailed(f"{download.call.target}: {why} while it was downloaded.")


def _ranged(download: _Download, part: PartFile) -> Call[bytes]:
    """The call for what the part lacks. The digest costs the server a reading of the whole, so it is asked for once."""
    headers = {**download.call.headers, **_AS_IT_IS}
    if download.facts is None and download.call.method == "GET":
        headers |= _WITH_DIGEST
    if part.size and part.etag is not None:
        headers |= {"Range": f"bytes={part.size}-", "If-Range": part.etag}
    return download.call._replace(headers=headers)


def _facts_of(answer: Answer) -> _Facts:
    headers = answer.headers
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        return _Facts(None, None, None)  # tag, length and digest are those of the encoded bytes
    etag = headers.get("ETag", "").strip()
    if answer.status == 206:
        found = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
        total = found[3] if found is not None else ""
    else:
        total = headers.get("Content-Length", "").strip()
    digest = _SHA256.search(headers.get("Repr-Digest", ""))
    return _Facts(
        etag=etag
        if STRONG_TAG.fullmatch(etag) and answer.method != "POST"
        else None,  # an archive is made anew each time
        total=int(total) if _LENGTH.fullmatch(total) else None,
        sha256=_bytes_of(digest[1]) if digest is not None else None,
    )


def _bytes_of(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return None


def _continues(answer: Answer, facts: _Facts, part: PartFile) -> bool:
    """Whether a 206 goes on exactly where the part ends, in the same file."""
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
    if found is None or int(found[1]) != part.size:
        return False
    return facts.etag in {None, part.etag} and (facts.total is None or int(found[2]) == facts.total - 1)


# what is there already


def _size_if_same(call: Call[bytes], target: Path, conditions: Conditions) -> Flow[int | None]:
    """The size of the file at `target` if it is what the server has; None if it isn't, or that can't be known."""
    size: int | None = yield Do(partial(_size_of_regular, target))
    if size is None:
        return None
    head: Call[Any] = call._replace(method="HEAD", headers={**call.headers, **_AS_IT_IS, **_WITH_DIGEST})
    try:
        answer = yield from flows.request(head, conditions)
    except APIError:  # HEAD tells no reason, and not every server knows it
        asked = head._replace(method=call.method)
        answer = yield from flows.request(asked, conditions, is_streamed=True)
    facts = _facts_of(answer)
    if facts.sha256 is None or facts.total != size:
        return None
    hashed = yield from _sha256_of(target)
    return size if hashed == facts.sha256 else None


def _size_of_regular(path: Path) -> int | None:
    status = path.lstat()
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _sha256_of(path: Path) -> Flow[bytes]:
    file = yield Do(partial(path.open, "rb"))
    digest = hashlib.sha256()

    def add() -> bool:
        for _ in range(HASH_BYTES // READ_BYTES):
            data = file.read(READ_BYTES)
            if not data:
                return False
            digest.update(data)
        return True

    try:
        while (yield Do(add)):
            pass
    finally:
        file.close()
    return digest.digest()


def _target(to: Place, name: str) -> Path:
    """The file to write: `to`, or `name` in it where it is a folder."""
    place = os.fspath(to)
    target = Path(place)
    if target.is_dir() or place.endswith(("/", os.sep)):
        target = target / name
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "There is a folder where the file would go", str(target))
    return target


def _say_nothing(done: int, total: int | None) -> None:
    """Where the caller wants no progress."""
