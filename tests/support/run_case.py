"""Run a case of the sandboxes' contract as a test."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.support.sandbox_cases import CASES, Box, NotHere

CASE_SECONDS = 60

OpenOnce = Callable[[str], Awaitable[Box]]


async def run_case(open_once: OpenOnce, backend: str, name: str) -> None:
    """In this process, by the user that runs the tests; skipped with the reason where it can't be tried."""
    box = await open_once(backend)
    try:
        async with asyncio.timeout(CASE_SECONDS):
            await CASES[name](box)
    except NotHere as reason:
        pytest.skip(str(reason))
