"""`make fuzz`: every property for `FUZZ_SECONDS` (60) each; `python -m tests.fuzz path` only that one.

Ends with 1 after a finding, and says where its input is: that is the test to write first.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

TARGETS = ("event_stream", "path", "archive")
SECONDS = int(os.environ.get("FUZZ_SECONDS") or 60)
INPUT_SECONDS = 10  # one input that takes longer is a finding
MOST_BYTES = 4096
MOST_MEGABYTES = 2048
END_SECONDS = 120  # to start and to end


def fuzz(name: str, folder: Path) -> int:
    """The exit status."""
    options = [
        f"-max_total_time={SECONDS}",
        f"-timeout={INPUT_SECONDS}",
        f"-max_len={MOST_BYTES}",
        f"-rss_limit_mb={MOST_MEGABYTES}",
        f"-artifact_prefix={folder}/finding-",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    command = [sys.executable, "-m", "tests.fuzz.guided", name, str(folder), *options]
    return subprocess.run(command, check=False, timeout=SECONDS + END_SECONDS).returncode


def main(names: list[str]) -> int:
    if find_spec("atheris") is None:
        print("Atheris is not installed: it has wheels for Linux on x86_64 only (uv sync --group fuzz).")
        return 2
    findings = []
    for name in names:
        folder = Path(tempfile.mkdtemp(prefix=f"beray-fuzz-{name}-"))
        print(f"== {name}: {SECONDS} s", flush=True)
        if fuzz(name, folder) == 0:
            shutil.rmtree(folder)
        else:
            findings.append(f"{name}: the input is in {folder}")
    print("\n".join(findings) or "no findings")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(TARGETS)))
