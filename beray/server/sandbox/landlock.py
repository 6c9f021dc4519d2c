"""The landlock backend: the kernel's own rules about files, network and signals, plus our filter; needs no program."""

import os
from dataclasses import dataclass

from beray.server.sandbox.backend import Place
from beray.server.sandbox.base import Limits
from beray.server.sandbox.environment import (
    DEVICES,
    ETC_FOLDERS,
    ETC_SEEN,
    ETC_SMALL_FILES,
    MACHINE_FILES,
    SYSTEM_FOLDERS,
)
from beray.server.sandbox.guard.landlock import ABI_SCOPE
from beray.server.sandbox.guard.wire import LandlockJob


@dataclass(frozen=True)
class LandlockConfine:
    """Confine by Landlock, with the rights of an ABI that the kernel has."""

    abi: int
    name: str = "landlock"

    @property
    def scopes_signals(self) -> bool:
        """This ABI has the signal scope."""
        return self.abi >= ABI_SCOPE

    def confine(self, place: Place, limits: Limits) -> LandlockJob:
        """The folders and files a command may use."""
        return LandlockJob(
            abi=self.abi,
            read_only=(
                *SYSTEM_FOLDERS,
                *ETC_FOLDERS,
                *ETC_SMALL_FILES,
                *ETC_SEEN,
                *MACHINE_FILES,
                *place.layout.read_only,
            ),
            read_write=(place.work_dir, place.home),
            devices=DEVICES,
            sees_others=os.geteuid() != 0,
        )


@dataclass(frozen=True)
class NoConfine:
    """The backend `none`: commands run as they are, but stop, time and leftovers are handled as in every backend.

    Where the kernel has it, the signal scope is used for that; hence commands can't signal what is not theirs.
    """

    scopes_signals: bool
    name: str = "none"

    def confine(self, place: Place, limits: Limits) -> None:
        """Nothing."""
