"""Build the documentation of both languages into site/: Chinese at /, English at /en/. Needs no network.

Run by `make docs`. Fails if a generated table is not up to date, a link leads nowhere, or a page would load something
from another host.
"""

import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

sys.path.insert(0, str(Path(__file__).parent))
from generate import stale_pages

ROOT: Final = Path(__file__).parent.parent
SITE: Final = ROOT / "site"
CONFIGS: Final = ("mkdocs.yml", "mkdocs.en.yml")  # in this order: the English site lies in a folder of the Chinese one
BUILD_SECONDS: Final = 120
LOADING: Final = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src", "audio": "src"}
LOADING_RELATIONS: Final = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "dns-prefetch", "manifest"}


class Page(HTMLParser):
    """What one built page loads, links to, and can be linked at."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.loads: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note the tag."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if LOADING.get(tag) in values:
            self.loads.append(values[LOADING[tag]])
        if tag == "link" and LOADING_RELATIONS & set(values.get("rel", "").split()):
            self.loads.append(values.get("href", ""))
        if tag == "a" and "href" in values:
            self.links.append(values["href"])


def build() -> None:
    """Build both sites anew."""
    shutil.rmtree(SITE, ignore_errors=True)
    for config in CONFIGS:
        command = ["zensical", "build", "--strict", "--clean", "--config-file", config]
        with_tabs = ["env", f"PYTHONPATH={ROOT / 'docs'}"]  # for tabs.py
        subprocess.run([*with_tabs, *command], cwd=ROOT, check=True, timeout=BUILD_SECONDS)


def faults(pages: dict[Path, Page]) -> list[str]:
    """What is wrong with the built pages."""
    found: list[str] = []
    for page in pages.values():
        shown = page.path.relative_to(ROOT)
        found += [f"{shown} loads {url}" for url in page.loads if urlsplit(url).netloc]
        found += [f"{shown} links to {url}, which leads nowhere" for url in page.links if not _leads(page, url, pages)]
    return found


def _leads(page: Page, url: str, pages: dict[Path, Page]) -> bool:
    """Whether a link within the site has a page, and its anchor, at the other end."""
    parts = urlsplit(url)
    if parts.scheme or parts.netloc or page.path.name == "404.html":
        return True
    path = unquote(parts.path)
    target = page.path if not path else (SITE / path.lstrip("/") if path.startswith("/") else page.path.parent / path)
    if target.is_dir():
        target = target / "index.html"
    target = target.resolve()
    if target not in pages:
        return target.is_file()
    return not parts.fragment or unquote(parts.fragment) in pages[target].anchors


def main() -> int:
    """Build, and look at what came out."""
    if stale := stale_pages():
        print("not up to date: " + ", ".join(str(page.relative_to(ROOT)) for page in stale), file=sys.stderr)
        print("run: uv run python docs/generate.py", file=sys.stderr)
        return 1
    build()
    pages = {path.resolve(): Page(path) for path in SITE.rglob("*.html")}
    found = faults(pages)
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    print(f"{len(pages)} pages in {SITE.relative_to(ROOT)}/")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
