"""Two tools for BeRay's agents: the company's glossary, and its working days."""

import difflib
from datetime import date, timedelta
from typing import Annotated

from pydantic import Field

from beray.tools import ToolContext, ToolError

GLOSSARY = {
    "ARR": "Annual recurring revenue: subscriptions only, without one-off fees.",
    "active customer": "A customer with at least one paid invoice in the last 90 days.",
    "churn": "Customers lost in a month, divided by those at its beginning.",
}
HOLIDAYS = {date(2026, 1, 1), date(2026, 5, 1), date(2026, 12, 25)}


async def look_up_term(context: ToolContext, term: str, save_to: str = "") -> str:
    """Look up what a term means in this company. Use it before you compute or explain one of its figures.

    Args:
        context: The task that asks.
        term: The term, such as ARR.
        save_to: File of the work_dir to write the meaning into, too; empty: none.
    """
    known = {name.lower(): name for name in GLOSSARY}
    name = known.get(term.strip().lower())
    if name is None:
        near = difflib.get_close_matches(term.lower(), known) or list(known)
        raise ToolError(
            f"The glossary does not have {term!r}. Ask for one of: {', '.join(known[one] for one in near)}."
        )
    meaning = f"{name}: {GLOSSARY[name]}"
    if save_to:
        await context.write_text(save_to, f"{meaning}\n")
    return meaning


def working_days(first: date, last: date, weekly: Annotated[int, Field(ge=1, le=7)] = 5) -> str:
    """Count the company's working days between two dates, both included.

    Args:
        first: The first day, as 2026-05-01.
        last: The last day.
        weekly: Days worked in a week, from Monday on.
    """
    if not timedelta(0) <= last - first <= timedelta(days=3660):
        raise ToolError(f"{last} must be at most ten years after {first}. Give the earlier day first.")
    days = (first + timedelta(days=number) for number in range((last - first).days + 1))
    return str(sum(day.weekday() < weekly and day not in HOLIDAYS for day in days))
