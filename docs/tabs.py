"""Markdown extension: on the site, a program and its twin for asyncio are two tabs; one click chooses for all pages.

In the files they simply follow each other, which reads well on GitHub, too.
"""

import re
from typing import Final

from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor

BEFORE_FENCES: Final = 30  # pymdownx.superfences takes the fences away at 25
_PAIR: Final = re.compile(
    r"^(```python\n(?:(?!^```$|AsyncBeRayClient).)*?^```\n)\n(```python\n(?:(?!^```$).)*?AsyncBeRayClient.*?^```\n)",
    re.MULTILINE | re.DOTALL,
)


class Pairs(Preprocessor):
    """Writes each pair as the two tabs that `pymdownx.tabbed` knows."""

    def run(self, lines: list[str]) -> list[str]:
        """The page with tabs."""
        return _PAIR.sub(_tabs, "\n".join(lines) + "\n").split("\n")


def _tabs(pair: re.Match[str]) -> str:
    return f'=== "Sync"\n\n{_indented(pair[1])}\n=== "asyncio"\n\n{_indented(pair[2])}'


def _indented(block: str) -> str:
    return "".join(f"    {line}" if line.strip() else line for line in block.splitlines(keepends=True))


class Tabs(Extension):
    """Registers `Pairs`."""

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802 - the name that Markdown calls
        """Add the preprocessor."""
        md.preprocessors.register(Pairs(md), "tabs", BEFORE_FENCES)


def makeExtension() -> Tabs:  # noqa: N802 - the name that Markdown looks for
    """What Markdown loads by the module's name."""
    return Tabs()
