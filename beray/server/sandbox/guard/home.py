"""A task's HOME."""

import os


def make_home(path: str, uid: int | None) -> None:
    """Make it beside the work_dir; the parent belongs to the server, so nobody can have planted a link.

    Args:
        path: Where; nothing is done when it is there.
        uid: Whose it is to be; None: ours.

    Raises:
        OSError: It can't be made.
    """
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        return
    if uid is not None:
        os.chown(path, uid, uid, follow_symlinks=False)
