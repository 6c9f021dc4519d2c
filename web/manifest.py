"""What the built console was made of: `manifest.json` among its files, by which a test finds stale and edited ones.

    python web/manifest.py      after a build; part of `make console`

The source is every file in web/ but what tools leave there. Its hash covers names and contents, so it is the same on
every machine. Needs nothing but Python.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

WEB: Final = Path(__file__).parent
CONSOLE: Final = WEB.parent / "beray" / "server" / "console"
NAME: Final = "manifest.json"

LEFT_FOLDERS: Final = {
    "node_modules", "dist", "coverage", "test-results", "playwright-report", "__pycache__", ".svelte-kit", ".vite",
}  # fmt: skip
LEFT_FILES: Final = {".DS_Store"}
LEFT_ENDINGS: Final = (".log", ".local", ".tsbuildinfo", "~", ".swp")


def source_hash(web: Path) -> str:
    """SHA-256 over the names and contents of the source, in the order of the names."""
    whole = hashlib.sha256()
    for path in sorted(source_files(web), key=lambda path: path.relative_to(web).as_posix()):
        name, content = path.relative_to(web).as_posix().encode(), path.read_bytes()
        whole.update(b"%d %d\n%s\n" % (len(name), len(content), name))
        whole.update(content)
    return whole.hexdigest()


def source_files(web: Path) -> Iterator[Path]:
    """The files that the console is made of."""
    for path in web.iterdir():
        if path.is_dir():
            if path.name not in LEFT_FOLDERS:
                yield from source_files(path)
        elif path.name not in LEFT_FILES and not path.name.endswith(LEFT_ENDINGS):
            yield path


def built_hashes(console: Path) -> dict[str, str]:
    """SHA-256 of every built file, by its path in the folder."""
    paths = sorted(path for path in console.rglob("*") if path.is_file() and path != console / NAME)
    return {path.relative_to(console).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def write_manifest(web: Path, console: Path) -> None:
    """Say of the files that were just built what they were made of."""
    manifest = {"source": source_hash(web), "files": built_hashes(console)}
    (console / NAME).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_manifest(WEB, CONSOLE)
