"""Plug-in packages as an installer leaves them: modules and a .dist-info, in a folder of the test's."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

GROUP = "beray.tools"


def install(site: Path, name: str, *, module: str, source: str, tools: Mapping[str, str], version: str = "1.0") -> None:
    """Put a package with one module into the folder `site`; `tools` are its entry points: name and value."""
    (site / f"{module}.py").write_text(source, encoding="utf-8")
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{tool} = {value}" for tool, value in tools.items()]
    (folder / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines, ""]))


def install_project(site: Path, project: Path, *, module: str) -> None:
    """Put a project with one module into the folder `site`, by what its pyproject.toml says."""
    about = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    source = (project / f"{module}.py").read_text(encoding="utf-8")
    install(
        site,
        about["name"],
        module=module,
        source=source,
        tools=about["entry-points"][GROUP],
        version=about["version"],
    )
