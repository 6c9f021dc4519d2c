"""What the service itself tells the model during a run: marked, so that it is not taken for the user's word."""

from typing import Final

NOTE: Final = "A note of the service, not of the user:"

EMPTY: Final = NOTE + " your last answer was empty. Go on with a tool call, or end the task with an answer."
CUT: Final = (
    NOTE + " your last answer was cut at the length limit before it called a tool. Go on with a tool call, in smaller"
    " pieces; write long content to files part by part."
)
OPEN_PLAN: Final = (
    NOTE + " your last answer called no tool, but your plan has steps that are not done. Go on with a tool call. If you"
    " are done, bring the plan up to date or say what is left out, and answer once more."
)
ANSWERED: Final = "The user answers:"  # how the result of a question begins that was answered
NEWS: Final = NOTE + " about what runs in the background:"

_LOOKS_LIKE = "a note of the service"  # what the model is told such notes begin with
_SAYS = "The user says:"


def note(content: str) -> str:
    """`content` as the service's word."""
    return f"{NOTE} {content}"


def is_note(content: str) -> bool:
    """Whether that is the service's word."""
    return content.startswith(NOTE)


def as_said(content: str) -> str:
    """The user's own words, so that they can't be taken for the service's."""
    return f"{_SAYS}\n{content}" if content.lstrip().casefold().startswith(_LOOKS_LIKE) else content
