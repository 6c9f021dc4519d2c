"""What names of files from elsewhere would mean on this machine, before any of them is opened.

They were chosen by a model or its commands, or by whoever stands between: a name may lead out of a folder, be that of a
device of Windows, or be the same as another one on a file system that ignores case.
"""

import os
import re
import unicodedata
from collections.abc import Sequence
from typing import Final

_MAX_DEPTH: Final = 128  # as deep as a server goes into a work_dir; removing what was written recurses
_MAX_NAME_BYTES: Final = 255  # NAME_MAX
_ON_WINDOWS: Final = os.name == "nt"

_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_DRIVE: Final = re.compile(r"[A-Za-z]:")
_NOT_ON_WINDOWS: Final = re.compile(
    r'.*[<>:"|?*]|.*[. ]$|(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])( *\.|$)', re.IGNORECASE | re.DOTALL
)
_UNSAFE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\\/\ud800-\udfff]")


def flaw_of(name: str, parts: Sequence[str]) -> str | None:
    """What is wrong with a path of `parts`, as the rest of a sentence; None if it is harmless in any folder."""
    if _CONTROLS.search(name):
        return "has control characters in its name"
    if "\\" in name:
        return "has a backslash in its name, which separates folders on Windows"
    if name.startswith("/") or _DRIVE.match(name):
        return "has an absolute name"
    if ".." in parts:
        return "leads out of the folder"
    if "" in parts or "." in parts:
        return "has no plain name"
    if len(parts) > _MAX_DEPTH:
        return f"is more than {_MAX_DEPTH} folders deep"
    if not _is_text(name):
        return "has a name that is no text (not UTF-8)"
    if any(len(part.encode()) > _MAX_NAME_BYTES for part in parts):
        return "has too long a name"
    if _ON_WINDOWS and any(_NOT_ON_WINDOWS.match(part) for part in parts):
        return "has a name that Windows keeps for devices, or does not allow"
    return None


def folded(path: str) -> str:
    """Equal for two paths that a file system which ignores case, or composes characters, takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())


def own_name(path: str, *, default: str) -> str:
    """The last name of a path, as a plain file can have it here; `default` where it has none."""
    name = _UNSAFE.sub("_", path.rstrip("/").rsplit("/", 1)[-1])
    name = shortened(name, _MAX_NAME_BYTES)
    if name in {"", ".", ".."} or (_ON_WINDOWS and _NOT_ON_WINDOWS.match(name)):
        return default
    return name


def shortened(name: str, most_bytes: int) -> str:
    """The beginning of a name that takes no more bytes."""
    return name.encode()[:most_bytes].decode("utf-8", "ignore")


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
