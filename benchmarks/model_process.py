"""A scripted model in a process of its own, so that its processor time is nobody's."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def model_process(script: str) -> Iterator[str]:
    """Its base URL, for as long as the block lasts; the names of scripts are in `tests/support/scripted_model.py`."""
    command = [sys.executable, "-m", "tests.support.scripted_model", "--script", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()
