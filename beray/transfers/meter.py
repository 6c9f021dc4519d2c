"""Progress of a transfer."""

from beray.transfers.uploads import Progress


class Meter:
    """Progress of many files as that of one."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._before = 0
        self._of_this = 0

    def of_file(self, done: int, total: int | None) -> None:
        """How far the present file is."""
        self._of_this = done
        if self._progress is not None:
            so_far = self._before + done
            self._progress(so_far, max(self._total, so_far))

    def next_file(self, announced: int) -> None:
        """A file is done; what it had more or less than was announced changes the total."""
        self._total += self._of_this - announced
        self._before += self._of_this
        self._of_this = 0
