"""The readable text of a page: what it says, with its headings, lists and links, without scripts and styles.

One pass from front to back, whatever the page holds: a parser that looks ahead again and again is kept busy by a page
made for that (Python 3.11's own takes 20 s for 40 kB of `<a `, measured). Hence what is malformed is read simply: what
a tag or comment never ends is left out.
"""

import html
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urljoin

MOST_TAG_CHARACTERS: Final = 8000  # of one tag that are looked at
MOST_LINK_CHARACTERS: Final = 500

_UNREAD: Final = frozenset({"script", "style", "noscript", "template", "svg", "math", "iframe", "object"})
_BLOCKS: Final = frozenset(
    re.findall(
        r"\w+",
        """
        address article aside blockquote body br dd details div dl dt fieldset figcaption figure footer form h1 h2 h3 h4
        h5 h6 header hr html li main nav ol option p pre section summary table tbody td tfoot th thead title tr ul
        """,
    )
)
_CELLS: Final = frozenset({"td", "th"})
_HEADINGS: Final = {f"h{level}": "#" * level + " " for level in range(1, 7)}
_ASCII_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}  # lower() may change lengths

_TAG_NAME = re.compile(r"/?[a-z][a-z0-9-]*")
_HREF = re.compile(r"\shref\s*=\s*(?:\"([^\"]*)\"|'([^']*)'|([^\s\"'>]+))", re.IGNORECASE)
_SPACES = re.compile(r"[ \t\r\f\v\n\u00a0]+")
_EMPTY_LINES = re.compile(r"\n{3,}")


def readable_text(page: str, base_url: str) -> str:
    """What a reader would see of `page`.

    Args:
        page: HTML.
        base_url: Where it came from; links are relative to it.
    """
    return _Writer(base_url).write(page)


def _pieces(page: str) -> Iterator[tuple[bool, str]]:
    """Whether it is a tag, and what it is: the text between tags, or what stands between `<` and `>`."""
    lower = page.translate(_ASCII_LOWER)
    endless: set[str] = set()
    at = 0
    while (start := page.find("<", at)) >= 0:
        yield False, page[at:start]
        if page.startswith("<!--", start):
            end = page.find("-->", start + 4)
            at = len(page) if end < 0 else end + 3
            continue
        name = _TAG_NAME.match(lower, start + 1)
        if name is None and page[start + 1 : start + 2] not in {"!", "?"}:
            yield False, "<"
            at = start + 1
            continue
        end = page.find(">", start)
        if end < 0:
            return
        tag = page[start + 1 : min(end, start + MOST_TAG_CHARACTERS)]
        at = end + 1
        yield True, tag
        if name is not None and name[0] in _UNREAD - endless and not tag.endswith("/"):
            end = lower.find(f"</{name[0]}", at)
            if end < 0:
                endless.add(name[0])
            else:
                at = end
    yield False, page[at:]


class _Writer:
    def __init__(self, base_url: str) -> None:
        self._base_url = base_url
        self._written: list[str] = []
        self._is_pre = False
        self._link = ""

    def write(self, page: str) -> str:
        for is_tag, piece in _pieces(page):
            if is_tag:
                self._tag(piece)
            else:
                self._text(piece)
        return _tidy("".join(self._written))

    def _text(self, piece: str) -> None:
        said = html.unescape(piece)
        self._written.append(said if self._is_pre else _SPACES.sub(" ", said))

    def _tag(self, tag: str) -> None:
        match = _TAG_NAME.match(tag.translate(_ASCII_LOWER))
        if match is None:  # a declaration
            return
        is_end = match[0].startswith("/")
        name = match[0].removeprefix("/")
        if name == "pre":
            self._is_pre = not is_end
        if name in _CELLS:
            self._written.append(" | " if is_end else "")
        elif name in _BLOCKS:
            self._written.append("\n" if name in {"li", "tr", "br", "dt", "dd", "option"} else "\n\n")
        if name == "a":
            self._end_link()
            self._link = "" if is_end else self._target(tag)
        elif not is_end:
            self._written.append("- " if name == "li" else _HEADINGS.get(name, ""))

    def _end_link(self) -> None:
        if self._link:
            self._written.append(f" ({self._link})")
            self._link = ""

    def _target(self, tag: str) -> str:
        """Where a link leads, if that can be asked for."""
        match = _HREF.search(tag)
        if match is None:
            return ""
        href = next(part for part in match.groups() if part is not None)
        try:
            url = urljoin(self._base_url, html.unescape(href).strip())
        except ValueError:
            return ""
        is_usable = url.startswith(("https://", "http://")) and len(url) <= MOST_LINK_CHARACTERS
        return url if is_usable and url.partition("#")[0] != self._base_url.partition("#")[0] else ""


def _tidy(written: str) -> str:
    lines = (line.rstrip() for line in written.splitlines())
    return _EMPTY_LINES.sub("\n\n", "\n".join(lines)).strip()
