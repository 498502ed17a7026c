"""Tests of concurrent tasks: which failure is raised if several tasks fail."""

import asyncio

import pytest

from dataset.errors import Failure
from scraper.errors import LayoutChanged, SiteRefused
from scraper.stopping import Stopped, all_of


@pytest.mark.parametrize(
    ("problems", "expected"),
    [
        ([Stopped(), SiteRefused("x.test is busy")], SiteRefused),
        ([SiteRefused("x.test is busy"), Failure("the disk is full"), Stopped()], Failure),
        ([LayoutChanged("lamoda", "no products"), KeyError("a fault of ours")], KeyError),
        ([Stopped(), Stopped()], Stopped),
    ],
)
def test_most_severe_failure_is_raised_after_all_tasks_end(
    problems: list[Exception], expected: type[Exception]
) -> None:
    ended = []

    async def task(number: int, problem: Exception | None) -> None:
        await asyncio.sleep(0.01 * number)
        ended.append(number)
        if problem:
            raise problem

    async def main() -> None:
        tasks = [task(number, problem) for number, problem in enumerate([*problems, None])]
        with pytest.raises(expected) as raised:
            await all_of(tasks)
        assert raised.type is expected

    asyncio.run(main())
    assert ended == list(range(len(problems) + 1))
