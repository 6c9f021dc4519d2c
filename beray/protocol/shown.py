"""Answers that show themselves in a notebook: dicts and lists in everything but one method.

They are equal to plain ones, are written as JSON like them, and a copy or pickle of one is a plain one, which needs no
BeRay to be read. The HTML is made, and its code loaded, only when a notebook asks.
"""

from typing import Any


class ShownTask(dict[str, Any]):
    """A task."""

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        from beray.notebook import task_html

        return task_html(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class ShownTasks(list[Any]):
    """A list of tasks."""

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        from beray.notebook import tasks_html

        return tasks_html(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


class ShownFiles(list[Any]):
    """The files below a folder of a work_dir."""

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        from beray.notebook import files_html

        return files_html(self)

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


def shown_task(value: Any) -> Any:
    """The same task; what is no object stays as it is."""
    return ShownTask(value) if isinstance(value, dict) else value


def shown_tasks(value: Any) -> Any:
    """The same tasks, of which each shows itself too."""
    return ShownTasks(map(shown_task, value)) if isinstance(value, list) else value


def shown_files(value: Any) -> Any:
    """The same tree; what is no list stays as it is."""
    return ShownFiles(value) if isinstance(value, list) else value
