"""How long the tests of faults go on, and what chance they follow: short by default, long by `make soak`."""

import os
import random
import secrets


def rounds(*, short: int) -> int:
    """`BERAY_TEST_ROUNDS`, or `short`."""
    return int(os.environ.get("BERAY_TEST_ROUNDS") or short)


def is_long() -> bool:
    """Whether this is `make soak`."""
    return bool(os.environ.get("BERAY_TEST_ROUNDS"))


def seeded() -> tuple[int, random.Random]:
    """`BERAY_TEST_SEED`, or a new seed, and chance by it. A test prints the seed, to be seen when it fails."""
    seed = int(os.environ.get("BERAY_TEST_SEED") or secrets.randbits(32))
    return seed, random.Random(seed)
