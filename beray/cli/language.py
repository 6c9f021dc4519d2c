"""Which language the terminal speaks, and the one way to say something in it."""

import os
from collections.abc import Mapping
from functools import cache
from typing import Final, Literal

from beray.cli.messages import MESSAGES

Language = Literal["zh", "en"]

LOCALE_VARIABLES: Final = ("BERAY_LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG")
"""The first that is set decides; the order of POSIX, with our own in front."""


def language_of(environ: Mapping[str, str]) -> Language:
    """The language an environment asks for: Chinese for a `zh…` locale, else English."""
    for name in LOCALE_VARIABLES:
        if value := environ.get(name):
            return "zh" if value.lower().startswith("zh") else "en"
    return "en"


@cache
def language() -> Language:
    """The language of this process."""
    return language_of(os.environ)


def say(key: str, /, **params: object) -> str:
    """The sentence `key` in the terminal's language, with its fields filled in."""
    chinese, english = MESSAGES[key]
    return (chinese if language() == "zh" else english).format(**params)
