"""Let nginx send a file: the answer names it (`X-Accel-Redirect`), and nginx opens it and sends its bytes.

Only to an nginx that has asked for it, by the header `X-Sendfile-Type: X-Accel-Redirect`: whoever comes past it gets
the bytes from us. Whoever sends that header without being nginx learns the name of a file of their own.

nginx opens the file by its name, a moment after it was checked here, and the task's commands may have put a link in
its place by then. So nginx itself must refuse links (`disable_symlinks on`), and a file is named by where it really is,
with no link on the way. A hard link would pass; only where nothing confines commands (sandbox `none`) can they make one
to a file from elsewhere, and there the setting is refused.

What nginx would decide anew stays here: a part of the file, and every condition it might judge by a tag of its own.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

from beray.server.settings import SettingError, Settings
from beray.server.work_dirs.open_file import OpenFile

ASKS_BY: Final = "x-sendfile-type"
NAMES_IT: Final = "x-accel-redirect"
_DECIDED_HERE: Final = ("range", "if-range", "if-match", "if-unmodified-since")
_DELETED: Final = b" (deleted)"  # how the kernel shows a file without a name; one that is called so goes the other way


class XAccel:
    """Names files for nginx.

    Args:
        prefix: nginx's `location` for the folder of the work_dirs.
        root: That folder.
    """

    def __init__(self, prefix: str, root: Path) -> None:
        self._prefix = prefix
        self._root = os.path.realpath(os.fsencode(root)) + b"/"

    def name_of(self, file: OpenFile, headers: Mapping[str, str]) -> str | None:
        """What nginx finds the open file by; None: it is not to send this one."""
        if headers.get(ASKS_BY, "").lower() != NAMES_IT or any(name in headers for name in _DECIDED_HERE):
            return None
        place = os.fsencode(Path(f"/proc/self/fd/{file.fd}").readlink())
        if file.size == 0 or not place.startswith(self._root) or place.endswith(_DELETED):
            return None
        return f"{self._prefix}/{quote(place.removeprefix(self._root))}"


def open_x_accel(settings: Settings, root: Path) -> XAccel | None:
    """As the settings say; None: BeRay sends every file itself.

    Raises:
        SettingError: It would not be safe.
    """
    if settings.x_accel_prefix is None:
        return None
    if settings.sandbox == "none":
        raise SettingError(
            "BERAY_X_ACCEL_PREFIX cannot be used with BERAY_SANDBOX=none: commands that nothing confines could have"
            " nginx send files from elsewhere. Choose another sandbox, or leave the prefix unset."
        )
    return XAccel(settings.x_accel_prefix, root)
