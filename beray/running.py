"""From a goal to its result in one flow: make the task, upload its files, start it, follow it to its end."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from beray.exceptions import BeRayException
from beray.protocol import calls
from beray.protocol.calls import Call
from beray.protocol.effects import Conditions, Do, Flow
from beray.protocol.flows import request
from beray.protocol.responses import no_task, value_of
from beray.protocol.types import Task
from beray.protocol.waiting import Attention, deadline_of, follow
from beray.transfers.folders import upload_dir
from beray.transfers.meter import Meter
from beray.transfers.uploads import Content, Progress, upload_file

Files = Mapping[str, Content] | Sequence[str | os.PathLike[str]]
"""Paths of the work_dir with what they shall hold; or local files and folders, each under its own name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What shall be done.

    Attributes:
        create: Makes the task; held, if there are files.
        files: What it shall find in its work_dir.
        attention: What the caller wants to be told.
        progress: Told how far the upload is, of all files together.
    """

    create: Call[Task]
    files: Files | None
    attention: Attention
    progress: Progress | None = None


def run(job: Job, conditions: Conditions) -> Flow[Task]:
    """The task, once it has ended.

    Raises:
        WaitTimeout: It has not in the time given; it goes on.
    """
    deadline = deadline_of(job.attention.timeout, conditions)
    attachments = list(_attachments(job.files))
    sizes = yield Do(partial(_sizes, attachments))
    answer = yield from request(job.create, conditions)
    task = value_of(answer)
    if not isinstance(task, dict) or type(task.get("id")) is not int:
        raise no_task(answer)
    task_id = task["id"]
    if attachments:
        meter = Meter(job.progress, sum(sizes))
        yield from _start_with(list(zip(attachments, sizes, strict=True)), meter, task_id, conditions)
    return (yield from follow(task_id, conditions, job.attention, after=0, deadline=deadline))


@dataclass(frozen=True, slots=True)
class _Attachment:
    """Something local, and its place in the work_dir."""

    path: str
    content: Content


def _attachments(files: Files | None) -> Iterator[_Attachment]:
    """What to upload.

    Raises:
        TypeError: `files` is a single text: was a list meant?
        ValueError: Two have the same name.
    """
    if isinstance(files, str | bytes):
        raise TypeError("files is a list of local paths, or a mapping from paths of the work_dir to content")
    if isinstance(files, Mapping):
        yield from (_Attachment(path, content) for path, content in files.items())
        return
    taken: set[str] = set()
    for place in files or ():
        local = Path(place)
        name = local.resolve().name  # `.` and `data/..` have names too
        if name in taken:
            raise ValueError(f"two files are named {name!r}; give a mapping from paths of the work_dir to paths")
        taken.add(name)
        yield _Attachment(name, local)


def _sizes(attachments: Sequence[_Attachment]) -> list[int]:
    """The bytes of each, 0 where they are not known yet (a folder, an open file); blocking.

    Raises:
        OSError: A local file is not there: that is told before a task is made.
    """
    return [_size(attachment.content) for attachment in attachments]


def _size(content: Content) -> int:
    if isinstance(content, os.PathLike):
        status = Path(content).stat()
        return status.st_size if stat.S_ISREG(status.st_mode) else 0
    if isinstance(content, str):
        return len(content.encode("utf-8"))
    return len(content) if isinstance(content, bytes | bytearray | memoryview) else 0


def _start_with(
    attachments: Sequence[tuple[_Attachment, int]], meter: Meter, task_id: int, conditions: Conditions
) -> Flow[None]:
    """Upload and start; a task that can't have its files is deleted, since nobody would ever start it.

    A start whose answer was lost may have happened; a task that is still held ends by itself.
    """
    try:
        for attachment, size in attachments:
            yield from _upload(attachment, meter, task_id, conditions)
            meter.next_file(size)
    except GeneratorExit:
        raise
    except BaseException:
        yield from _discard(task_id, conditions)
        raise
    yield from request(calls.start_task(task_id), conditions)


def _upload(attachment: _Attachment, meter: Meter, task_id: int, conditions: Conditions) -> Flow[None]:
    content = attachment.content
    if isinstance(content, os.PathLike) and (yield Do(Path(content).is_dir)):
        yield from upload_dir(task_id, content, attachment.path, conditions, progress=meter.of_file)
    else:
        yield from upload_file(task_id, attachment.path, content, conditions, progress=meter.of_file)


def _discard(task_id: int, conditions: Conditions) -> Flow[None]:
    try:
        yield from request(calls.delete_task(task_id), conditions)
    except BeRayException:
        return  # held tasks end by themselves; what went wrong before is what matters
