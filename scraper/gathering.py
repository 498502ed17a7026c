"""Work side by side: all of it comes to its end before one part's failure is told."""

import asyncio
from collections.abc import Awaitable, Iterable

from scraper.stopping import Stopped


async def all_of(parts: Iterable[Awaitable[None]]) -> None:
    """Run PARTS side by side.

    Raises:
        Whatever one of them raised, a failure rather than Stopped, once all have ended.
    """
    ends = await asyncio.gather(*parts, return_exceptions=True)
    problems = [end for end in ends if isinstance(end, BaseException)]
    for problem in sorted(problems, key=lambda one: isinstance(one, Stopped)):
        raise problem
