"""Listing tasks page by page as a flow, without a network."""

from typing import Any

import pytest

from beray.exceptions import ProtocolError
from beray.protocol import paging
from beray.protocol.paging import PAGE_TASKS, Wanted
from tests.support.scripted_driver import Driver, answer, conditions


def page(*ids: int, has_next: bool = False) -> Any:
    link = {"Link": '</api/v1/tasks/?before=1>; rel="next"'} if has_next else {}
    return answer(200, [{"id": id} for id in ids], **link)


def wanted(**given: Any) -> Wanted:
    return Wanted.of(**{"limit": None, "before": None, "status": None, "search": None, **given})


def queries(driver: Driver) -> list[list[tuple[str, str]]]:
    return [list(send.call.params) for send in driver.sent]


def test_all_pages_are_put_together() -> None:
    driver = Driver([page(9, 8, has_next=True), page(7, 6, has_next=True), page(5)])

    tasks = driver.run(paging.all_tasks(wanted(), conditions()))

    assert [task["id"] for task in tasks] == [9, 8, 7, 6, 5]
    size = ("limit", str(PAGE_TASKS))
    assert queries(driver) == [[size], [size, ("before", "8")], [size, ("before", "6")]]


def test_a_server_without_pages_is_asked_once() -> None:
    driver = Driver([page(*range(700, 0, -1))])

    assert len(driver.run(paging.all_tasks(wanted(), conditions()))) == 700


def test_a_limit_ends_the_listing_and_sizes_its_last_page() -> None:
    driver = Driver([page(*range(1000, 500, -1), has_next=True), page(500, 499, 498, has_next=True)])

    tasks = driver.run(paging.all_tasks(wanted(limit=502), conditions()))

    assert len(tasks) == 502
    assert queries(driver)[1] == [("limit", "2"), ("before", "501")]


def test_a_limit_of_none_at_all_asks_nobody() -> None:
    assert Driver([]).run(paging.all_tasks(wanted(limit=0), conditions())) == []


@pytest.mark.parametrize("status", ["running", ("running", "queued")])
def test_filters_go_along(status: Any) -> None:
    driver = Driver([page()])

    driver.run(paging.all_tasks(wanted(status=status, search="primes", before=40), conditions()))

    states = [("status", name) for name in ([status] if isinstance(status, str) else status)]
    assert queries(driver)[0] == [("limit", "500"), ("before", "40"), ("q", "primes"), *states]


def test_pages_are_asked_for_as_the_caller_goes_on() -> None:
    driver = Driver([page(9, has_next=True), page(8)])

    driver.run(paging.each_page(wanted(), conditions()))

    assert [task["id"] for task in driver.emitted] == [9, 8]


def test_an_endless_server_ends_with_its_empty_page() -> None:
    driver = Driver([page(9, has_next=True), page(has_next=True)])

    assert len(driver.run(paging.all_tasks(wanted(), conditions()))) == 1


def test_what_is_no_list_is_told() -> None:
    with pytest.raises(ProtocolError, match="no list"):
        Driver([answer(200, {"items": []})]).run(paging.all_tasks(wanted(), conditions()))


def test_a_limit_below_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="limit"):
        wanted(limit=-1)
