"""Run tasks concurrently: all of them end before the failure of one is raised."""

import asyncio
from collections.abc import Awaitable, Iterable

from scraper.errors import CircleOfPages, LayoutChanged, SiteRefused
from scraper.stopping import Stopped

# What weighs less than a failure of the crawl: a wish to end it, then what ends one search.
LESSER: tuple[tuple[type[BaseException], ...], ...] = (
    (Stopped,),
    (SiteRefused, LayoutChanged, CircleOfPages),
)


async def all_of(parts: Iterable[Awaitable[None]]) -> None:
    """Run PARTS side by side.

    Raises:
        The weightiest of what they raised, once all have ended.
    """
    ends = await asyncio.gather(*parts, return_exceptions=True)
    if problems := [end for end in ends if isinstance(end, BaseException)]:
        raise max(problems, key=_weight)


def _weight(problem: BaseException) -> int:
    return next((n for n, kinds in enumerate(LESSER) if isinstance(problem, kinds)), len(LESSER))
