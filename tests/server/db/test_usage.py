"""What is counted for users' days, on both databases."""

import pytest

from beray.server.db.usage import NO_TASK, UsedSums, add_used, delete_before, sum_of_all, sum_of_user
from tests.support.databases import seeded_database


async def test_estimates_are_replaced_and_sums_are_of_the_user_or_of_all(database_url):
    """A check of a model belongs to no task, and is counted beside them."""
    estimate = UsedSums(requests=1, unpriced=1, estimated_tokens=3_000_000_000, estimated_cost_usd=0.3)
    told = UsedSums(requests=1, input_tokens=4_000_000_000, cost_usd=0.25)
    with seeded_database(database_url, 1, status="queued") as database:

        def use(connection):
            for task_id in (1, NO_TASK):
                add_used(connection, task_id=task_id, user_id=1, day=7, used=estimate)
                add_used(connection, task_id=task_id, user_id=1, day=7, used=told.minus(estimate))

        await database.write(use)
        of_user = await database.read(lambda connection: sum_of_user(connection, 1, 7))
        of_all = await database.read(lambda connection: sum_of_all(connection, 7))
        of_nobody = await database.read(lambda connection: sum_of_user(connection, 2, 7))
        deleted = [await database.write(lambda connection, day=day: delete_before(connection, day)) for day in (7, 8)]

    assert (of_user.requests, of_user.unpriced, of_user.tokens) == (2, 0, 8_000_000_000)
    assert of_user.money_usd == pytest.approx(0.5)
    assert of_all == of_user
    assert of_nobody == UsedSums()
    assert deleted == [0, 2]
