"""How this process uses its memory: when garbage is looked for, and in how many places memory is kept."""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

ARENAS: Final = 2
"""Of glibc, which would make eight per processor: a server's dozen threads then each keep what they once needed. Two
take 3 to 6 MB less after a few tasks (measured) and are no slower for threads that take turns on one interpreter."""
M_ARENA_MAX: Final = -8  # malloc.h


def keep_few_arenas() -> None:
    """Have all threads share `ARENAS` places to allocate from; does nothing where the C library has no such thing."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(M_ARENA_MAX, ARENAS)


def begin_start() -> None:
    """Look for no garbage until `end_start`: importing makes hardly any, and looking for it is a sixth of its time."""
    gc.disable()


def end_start() -> None:
    """From now on look for garbage, but never again through what is there now: modules, routes, the schema.

    A full collection over them would hold the loop for 90 ms, again and again (measured); what is younger takes 1 ms.
    Done once after `begin_start`; then nothing.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


@contextmanager
def importing() -> Iterator[None]:
    """Import much within, once: as with a start, if there is none under way.

    Once, since garbage that is there at the end stays for ever. Done at each task it was 170 KB a task (seen).
    """
    was_on = gc.isenabled()
    begin_start()
    try:
        yield
    finally:
        if was_on:
            end_start()
