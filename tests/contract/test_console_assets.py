"""The built console is that of the source, as it was built, and in every package; needs no Node."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import requests
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

from beray.server.console_files import FOLDER, TYPES
from tests.support.server import ServerProcess

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"
AGAIN = "run `make console`, and commit what it changes"


def program(name: str) -> ModuleType:
    """A program of the console's source."""
    spec = importlib.util.spec_from_file_location(f"console_{name}", WEB / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


manifest = program("manifest")


def told() -> dict[str, Any]:
    """What the build says of itself."""
    read: dict[str, Any] = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
    return read


def test_console_was_built_from_its_source() -> None:
    assert told()["source"] == manifest.source_hash(WEB), f"the console is older than web/: {AGAIN}"


def test_nobody_edited_what_was_built() -> None:
    assert told()["files"] == manifest.built_hashes(FOLDER), f"the built files are others: {AGAIN}"


def test_server_sends_every_built_file() -> None:
    names = {*told()["files"], "manifest.json"}

    assert {"index.html", "console.js", "console.css", "favicon.ico"} <= names
    assert {Path(name).suffix for name in names} <= set(TYPES)


def test_types_of_the_console_are_those_of_the_server(server: ServerProcess) -> None:
    openapi = program("openapi")
    document = requests.get(f"{server.base_url}/openapi.json", timeout=10).json()

    assert openapi.portable(document) == json.loads(openapi.PATH.read_text(encoding="utf-8")), AGAIN


def test_built_files_are_in_wheel_and_sdist(tmp_path: Path) -> None:
    """Also where a .gitignore would leave them out: a wheel without them is found out by its user."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".gitignore").write_text((ROOT / ".gitignore").read_text() + "console/\n")
    package, web = tmp_path / "beray", tmp_path / "web"
    chunks = package / "server" / "console" / "chunks"
    chunks.mkdir(parents=True)
    (web / "node_modules").mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "1"\n')
    for path in (chunks / "x.js", chunks.parent / "index.html", web / "index.html", web / "node_modules" / "x.js"):
        path.touch()

    built = {"beray/server/console/index.html", "beray/server/console/chunks/x.js"}

    assert files_of(WheelBuilder(str(tmp_path))) >= built
    in_sdist = files_of(SdistBuilder(str(tmp_path)))
    assert in_sdist >= built | {"web/index.html"}
    assert not any("node_modules" in name for name in in_sdist)


def files_of(builder: Any) -> set[str]:
    with builder.config.set_build_data({"force_include": {}, "artifacts": [], "dependencies": []}):
        return {file.distribution_path for file in builder.recurse_included_files()}


# The hash of the source


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.ts").write_text("1")
    (tmp_path / "package.json").write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    "change",
    [
        lambda web: (web / "src" / "main.ts").write_text("2"),
        lambda web: (web / "src" / "main.ts").rename(web / "src" / "other.ts"),
        lambda web: (web / "src" / "main.ts").rename(web / "main.ts"),
        lambda web: (web / "src" / "more.ts").touch(),
        lambda web: (web / "package.json").unlink(),
    ],
)
def test_every_change_of_the_source_shows(source: Path, change: Any) -> None:
    before = manifest.source_hash(source)

    change(source)

    assert manifest.source_hash(source) != before


def test_what_tools_leave_there_is_no_source(source: Path) -> None:
    before = manifest.source_hash(source)

    for folder in ("node_modules", "dist", "src/__pycache__", ".vite"):
        (source / folder).mkdir()
        (source / folder / "x.js").touch()
    (source / "vite.log").touch()

    assert manifest.source_hash(source) == before


def test_manifest_says_what_was_built_of_what(source: Path, tmp_path: Path) -> None:
    console = tmp_path / "dist"
    (console / "chunks").mkdir(parents=True)
    (console / "chunks" / "x.js").write_text("x")

    for _ in range(2):
        manifest.write_manifest(source, console)

        read = json.loads((console / "manifest.json").read_text())
        assert read["source"] == manifest.source_hash(source)
        assert read["files"] == manifest.built_hashes(console)
        assert set(read["files"]) == {"chunks/x.js"}
