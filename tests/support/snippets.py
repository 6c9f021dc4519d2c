"""Programs out of documents, run as a reader would run them."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.server import ServerProcess

SNIPPET_SECONDS = 60


def run_snippet(program: str, server: ServerProcess, folder: Path) -> str:
    """What the program prints. It must end well and warn of nothing.

    Its text is left as it is, so whatever address it names, it reaches the test's server as a proxy.
    """
    path = folder / "snippet.py"
    path.write_text(program, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {"http_proxy": server.base_url, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-W", "error", path.name],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=SNIPPET_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout
