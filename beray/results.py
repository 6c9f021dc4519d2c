"""What came of a task: `run` gives it."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

from beray.exceptions import TaskFailed
from beray.protocol.events import FileSize
from beray.protocol.types import Task, TaskError, Usage

if TYPE_CHECKING:
    from beray.async_client import AsyncBeRayClient
    from beray.client import BeRayClient
    from beray.transfers.uploads import Progress


class BaseResult:
    """A task that has ended, for reading.

    Attributes:
        task: As `get_task` gives it, with its last event.
    """

    def __init__(self, task: Task, client: Any) -> None:
        self.task = task
        self._client = client

    @property
    def id(self) -> int:
        """The task's id."""
        return self.task["id"]

    @property
    def status(self) -> str:
        """`completed`, `failed` or `stopped`."""
        return self.task["status"]

    @property
    def ok(self) -> bool:
        """Whether it has completed."""
        return self.status == "completed"

    @property
    def text(self) -> str:
        """The agent's final words; empty if there are none."""
        return _words(self.task.get("result")) or ""

    @property
    def error(self) -> TaskError | None:
        """What went wrong, or None."""
        error: object = self.task.get("error")
        return cast(TaskError, error) if isinstance(error, dict) else None

    @property
    def usage(self) -> Usage:
        """What it has used; None for what is not known."""
        usage: object = self.task.get("usage")
        return cast(Usage, usage if isinstance(usage, dict) else dict.fromkeys(Usage.__annotations__))

    @property
    def files(self) -> list[FileSize]:
        """Path and size of what is in its work_dir, at most 100; `list_files_tree` tells all."""
        events: object = self.task.get("events")
        for event in reversed(events) if isinstance(events, list) else ():
            if isinstance(event, dict) and event.get("type") == "task.finished":
                files = event.get("files")
                return list(files) if isinstance(files, list) else []
        return []

    def raise_if_failed(self) -> Self:
        """This result, if the task has completed.

        Raises:
            TaskFailed: It has failed, or was stopped.
        """
        if self.ok:
            return self
        error: Any = self.error or {}
        raise TaskFailed(
            self.id,
            self.status,
            code=_words(error.get("code")),
            detail=_words(error.get("message")),
            hint=_words(error.get("hint")),
            is_retryable=bool(error.get("retryable")),
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of task {self.id}: {self.status}, {len(self.text)} characters>"

    def _repr_html_(self) -> str | None:
        from beray.notebook import task_html  # only where a notebook asks

        return task_html(self.task)


def _words(value: object) -> str | None:
    return value if isinstance(value, str) else None


class TaskResult(BaseResult):
    """What `BeRayClient.run` gives."""

    _client: "BeRayClient"

    def download(
        self, to: "str | os.PathLike[str]", *, overwrite: bool = False, progress: "Progress | None" = None
    ) -> list[Path]:
        """Download the task's files into a folder, as `BeRayClient.download_dir`."""
        return self._client.download_dir(self.id, ".", to, overwrite=overwrite, progress=progress)


class AsyncTaskResult(BaseResult):
    """What `AsyncBeRayClient.run` gives."""

    _client: "AsyncBeRayClient"

    async def download(
        self, to: "str | os.PathLike[str]", *, overwrite: bool = False, progress: "Progress | None" = None
    ) -> list[Path]:
        """Download the task's files into a folder, as `AsyncBeRayClient.download_dir`."""
        return await self._client.download_dir(self.id, ".", to, overwrite=overwrite, progress=progress)
