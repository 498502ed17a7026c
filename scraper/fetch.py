"""Photos at addresses that somebody has, as a product feed has them: asked for as a crawl asks."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path

from dataset.catalogue.session import open_catalogue
from dataset.images.io import EXTENSIONS
from dataset.images.store import UrlImageCache
from scraper.download import Download, run_side_by_side
from scraper.errors import SiteRefused
from scraper.examining import Refused
from scraper.fetching import ask_for
from scraper.pace import Pace
from scraper.readers import Readers
from scraper.settings import Manners
from scraper.spiders.base import Answer, Ask
from scraper.stopping import Stop, all_of

# Addresses under way, so that one slow host does not keep the others waiting.
UNDER_WAY = 128
# Seconds in which a wish to stop is heard while no address comes.
HEARD = 0.5
NO_ADDRESS = "no address that can be asked"
# Which hosts are to be left alone, and until when.
PAUSES = "hosts.sqlite"
# A URL, and why it has no image: empty if it has one.
Say = Callable[[str, str], None]


@dataclass(frozen=True)
class _Anybody:
    """Who has addresses and no secrets; none of the addresses is trusted."""

    secrets: Mapping[str, str] = field(default_factory=dict)
    named: tuple[str, ...] = ()


def fetch(addresses: Iterable[str], place: Path, manners: Manners, say: Say) -> bool:
    """Download the images at URLs into a folder and report each result.

    Returns whether all were requested: Ctrl-C, or a closed output, ends it after the requests in
    flight.

    Raises:
        Failure: the folder can't be written.
    """
    photos = UrlImageCache(place)
    with photos.in_use(), contextlib.closing(Readers()) as readers:
        pace = Pace(Stop(), open_catalogue(str(place / PAUSES)))

        async def main(download: Download) -> None:
            await _all(
                addresses, _Fetching(photos, readers, ThreadPoolExecutor(1), pace, download, say)
            )

        return run_side_by_side([(main, _Anybody())], manners, pace)


@dataclass(frozen=True)
class _Fetching:
    """What one address needs to be asked for."""

    photos: UrlImageCache
    readers: Readers
    files: Executor
    pace: Pace
    download: Download
    say: Say

    async def one(self, url: str) -> None:
        """Fetch URL unless it is there, and say so."""
        reason = "" if self.photos.find(url) else await self._fetch(url)
        try:
            self.say(url, reason)
        except BrokenPipeError:
            # Nobody listens any more.
            self.pace.stop.ask()

    async def _fetch(self, url: str) -> str:
        async def get(address: str) -> Answer | Refused:
            answer = await self.download(Ask(address, of_stranger=True))
            return answer if isinstance(answer, Refused) else answer[1]

        try:
            body = await ask_for(get, (url,))
        except SiteRefused as refusal:
            return refusal.message
        except ValueError:
            return NO_ADDRESS
        if isinstance(body, Refused):
            return body.reason
        examined = await self.readers.examine(body)
        if isinstance(examined, Refused):
            return examined.reason
        loop, extension = asyncio.get_running_loop(), EXTENSIONS[examined.format]
        await loop.run_in_executor(self.files, self.photos.keep, url, body, extension)
        return ""


async def _all(addresses: Iterable[str], fetching: _Fetching) -> None:
    """Fetch all of ADDRESSES, UNDER_WAY at a time."""
    loop = asyncio.get_running_loop()
    coming: asyncio.Queue[str | None] = asyncio.Queue(UNDER_WAY)

    def read() -> None:
        for one in chain(addresses, repeat(None, UNDER_WAY)):
            asyncio.run_coroutine_threadsafe(coming.put(one), loop).result()

    async def some() -> None:
        while (url := await coming.get()) is not None:
            await fetching.one(url)

    # The sender may pause for long: stopping does not wait for it.
    threading.Thread(target=read, daemon=True).start()
    watch = asyncio.ensure_future(_end(coming, fetching.pace.stop))
    try:
        await all_of(some() for _ in range(UNDER_WAY))
    finally:
        watch.cancel()
    fetching.pace.stop.check()


async def _end(coming: "asyncio.Queue[str | None]", stop: Stop) -> None:
    """Let nobody wait for one of COMING after a wish to stop."""
    while not stop.asked:
        await asyncio.sleep(HEARD)
    for _ in range(UNDER_WAY):
        await coming.put(None)
