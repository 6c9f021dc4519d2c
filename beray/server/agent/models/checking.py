"""Does a model answer? One small real request, as a task would make it: a fault shows before a task meets it.

It costs what it costs: days' limits hold for it, and it counts for the day of whoever asked first.

This module is imported at start, so it knows nothing of the model library; `one_call.py` does, which asks.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from beray.protocol.types import ModelCheck
from beray.server.agent.budget import BudgetExceeded, setting_of
from beray.server.agent.ledger import DayLedger
from beray.server.agent.models.choice import ModelChoice, Models
from beray.server.agent.models.prices import PriceTable
from beray.server.db.usage import UsedSums
from beray.server.errors import Refused, shown, wrong_field
from beray.server.messages import current_language

if TYPE_CHECKING:
    from beray.server.agent.models.one_call import Answered

CHECK_SECONDS: Final = 28  # with the loading of the library; a client waits 30 s for the first byte of an answer
KEPT_SECONDS: Final = 60.0  # an answer is given again for so long: each costs money
FAILED_KEPT_SECONDS: Final = 5.0  # a fault costs nothing, and whoever mends it wants to see that it is mended
SHOWN_CHARACTERS: Final = 100
MOST_INPUT_TOKENS: Final = 300  # a question and a tool, however a provider counts them
MOST_OUTPUT_TOKENS: Final = 2000  # "OK" is one; a model that thinks first may take some hundreds

log = logging.getLogger("beray.agent")


@dataclass(frozen=True)
class _Checked:
    """How a check ended: with an answer or with what went wrong, and when."""

    at: float
    answered: "Answered | None"
    error: Exception | None


class ModelChecks:
    """Checks of this server's models: one of each model at a time, whose answer is kept for a while.

    Args:
        models: What may be checked.
        prices: What answers cost.
        ledger_of: The days' account of a user, by their id.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        models: Models,
        *,
        prices: PriceTable,
        ledger_of: Callable[[int], DayLedger],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models = models
        self._prices = prices
        self._ledger_of = ledger_of
        self._clock = clock
        self._jobs: dict[str, asyncio.Task[_Checked]] = {}

    async def check(self, name: str | None, *, user_id: int) -> ModelCheck:
        """Ask the model `name`, or the default one, for one word.

        Raises:
            Refused: `unknown_model`; `day_limit_reached`, where a call would have to be made; storage is away.
        """
        choice = self._models.find(name)
        if choice is None:
            known = ", ".join(dict.fromkeys(each.name for each in (*self._models.offered, *self._models.fallback)))
            asked = shown(name or "")
            item = wrong_field("model", "unknown_model", model=asked, known=known)
            raise Refused("unknown_model", errors=[item], model=asked, known=known)
        if choice.kind == "rules":
            return _result(choice)
        ledger = self._ledger_of(user_id)
        if self._needs_call(choice):
            await _require_room(ledger)
        return _described(choice, await asyncio.shield(self._job_of(choice, ledger)))

    def last(self) -> tuple[ModelCheck, float] | None:
        """How the default model's latest check has ended here, and seconds since; None: no check has."""
        choice = self._models.default
        job = self._jobs.get(choice.name)
        if job is None or not job.done() or job.cancelled() or job.exception() is not None:
            return None
        checked = job.result()
        return _described(choice, checked), self._clock() - checked.at

    async def close(self) -> None:
        """Cut what is still asked."""
        for job in self._jobs.values():
            job.cancel()
        await asyncio.gather(*self._jobs.values(), return_exceptions=True)

    def _job_of(self, choice: ModelChoice, ledger: DayLedger) -> asyncio.Task[_Checked]:
        if self._needs_call(choice):
            self._jobs[choice.name] = asyncio.create_task(self._ask(choice, ledger))
        return self._jobs[choice.name]

    def _needs_call(self, choice: ModelChoice) -> bool:
        job = self._jobs.get(choice.name)
        return job is None or self._is_stale(job)

    def _is_stale(self, job: asyncio.Task[_Checked]) -> bool:
        if not job.done():
            return False
        if job.cancelled() or job.exception() is not None:  # it could not be counted, so it was not asked
            return True
        checked = job.result()
        return self._clock() - checked.at > (KEPT_SECONDS if checked.error is None else FAILED_KEPT_SECONDS)

    async def _ask(self, choice: ModelChoice, ledger: DayLedger) -> _Checked:
        estimate = await asyncio.to_thread(self._estimate, choice)  # may load the library's prices
        await ledger.note_check(estimate)
        checked = await self._call(choice)
        used = await asyncio.to_thread(_used, checked)
        if used is not None:
            await ledger.note_check(used.minus(estimate))
        return checked

    def _estimate(self, choice: ModelChoice) -> UsedSums:
        """What a check counts as, until it is known: as with a run's requests, before it is made."""
        cost = self._prices.estimate(choice, input_tokens=MOST_INPUT_TOKENS, output_tokens=MOST_OUTPUT_TOKENS)
        return UsedSums(
            requests=1,
            unpriced=0 if self._prices.is_free(choice) else 1,
            estimated_tokens=MOST_INPUT_TOKENS + MOST_OUTPUT_TOKENS,
            estimated_cost_usd=cost or 0.0,
        )

    async def _call(self, choice: ModelChoice) -> _Checked:
        answered: Answered | None = None
        error: Exception | None = None
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                answered = await (await asyncio.to_thread(_load))(choice, self._prices)
        except Exception as fault:  # whatever it is, it is what was asked about
            # its text may hold parts of a key, which are taken out where it is shown
            log.info(
                "model check failed",
                extra={"model": choice.name, "url": choice.base_url, "fault": type(fault).__name__},
            )
            error = fault
        return _Checked(self._clock(), answered, error)


async def _require_room(ledger: DayLedger) -> None:
    try:
        await ledger.check_model_call()
    except BudgetExceeded as exceeded:
        raise Refused(
            "day_limit_reached",
            retry_after_seconds=ledger.seconds_to_midnight,
            setting=setting_of(exceeded),
            used=f"{exceeded.used:g}",
            most=f"{exceeded.most:g}",
        ) from exceeded


def _used(checked: _Checked) -> UsedSums | None:
    """What a check has used; None: that can't be known, so its estimate stays."""
    from beray.server.agent.models.one_call import used_by

    return used_by(checked.answered, checked.error)


def _load() -> "Callable[[ModelChoice, PriceTable], Awaitable[Answered]]":
    from beray.server.agent.models.one_call import ask_for_a_word  # a second or two the first time, hence in a thread

    return ask_for_a_word


def _described(choice: ModelChoice, checked: _Checked) -> ModelCheck:
    from beray.server.agent.models.one_call import describe

    result = _result(choice)
    if checked.answered is not None:
        result["answered"] = checked.answered.text[:SHOWN_CHARACTERS]
        result["latency_ms"] = checked.answered.latency_ms
    if checked.error is not None:
        result["ok"] = False
        result["error"] = describe(checked.error, choice, current_language.get(), seconds=CHECK_SECONDS)
    return result


def _result(choice: ModelChoice) -> ModelCheck:
    return {
        "model": choice.name,
        "model_kind": choice.kind,
        "ok": True,
        "answered": None,
        "latency_ms": None,
        "error": None,
    }
