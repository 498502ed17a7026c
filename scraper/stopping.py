"""Handle Ctrl-C (once: finish downloads in progress; twice: stop at once) and concurrent tasks."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Iterable, Iterator
from types import FrameType

from scraper.errors import CircleOfPages, LayoutChanged, SiteRefused

ONCE = b"\nFinishing what is in flight; Ctrl-C again stops at once.\n"
TWICE = b"\nStopped immediately; repeat the command to continue.\n"
# What shells make of a command that Ctrl-C ended.
INTERRUPTED = 128 + signal.SIGINT


class Stopped(Exception):  # noqa: N818 - reads as what happened
    """Nothing new is begun, because somebody asked to stop."""


class Stop:
    """Whether somebody asked to stop."""

    def __init__(self) -> None:
        self.asked = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()

    def ask(self) -> None:
        """Stop: nothing new is begun from now on."""
        self.asked = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._event.set)

    def check(self) -> None:
        """Nothing, unless somebody asked to stop.

        Raises:
            Stopped: somebody did.
        """
        if self.asked:
            raise Stopped

    async def sleep(self, seconds: float) -> None:
        """Wait SECONDS.

        Raises:
            Stopped: somebody asked to stop meanwhile.
        """
        self._loop = asyncio.get_running_loop()
        self.check()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._event.wait(), seconds)
        self.check()

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """Ask to stop at the first Ctrl-C or kill, and end the process at the second."""

        def heard(_number: int, _frame: FrameType | None) -> None:
            # Written past Python's own buffer, which may be in use.
            os.write(2, TWICE if self.asked else ONCE)
            if self.asked:
                os._exit(INTERRUPTED)
            self.ask()

        before = {
            number: signal.signal(number, heard) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


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
