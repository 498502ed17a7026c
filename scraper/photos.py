"""The photos that a search has found: claimed, fetched, committed."""

import asyncio
from collections import deque
from dataclasses import replace
from functools import partial

from sqlalchemy.orm import Session

from dataset.maintenance.takedown import REASON, URL
from scraper import asking, claims, frontier
from scraper.download import Download
from scraper.errors import SiteRefused
from scraper.examining import Fetched, Refused
from scraper.fetching import GONE, fetch_image
from scraper.report import Tally
from scraper.spiders.base import Answer
from scraper.stopping import all_of
from scraper.work import PLACES, Work

BATCH = 64


class Photos:
    """The photos of one search: claimed a batch at a time, fetched side by side."""

    def __init__(self, work: Work, download: Download, tally: Tally) -> None:
        self._work, self._download, self._tally = work, download, tally
        self._waiting: deque[claims.Wanted] = deque()
        self._unsettled: set[str] = set()
        self._fetchers: list[asyncio.Task[None]] = []
        self._turn = asyncio.Lock()
        # No more can be claimed, or one could not be fetched.
        self._over = asyncio.Event()
        self._failed = False

    async def fetch(self) -> None:
        """Fetch what the search has found until no more can be claimed; the last are under way.

        Raises:
            SiteRefused: their host wants to be left alone for long.
        """
        # Running downloads take from these as well, and must not claim more meanwhile.
        async with self._turn:
            found = not self._failed and await self._refill()
        if found:
            self._fetchers = [one for one in self._fetchers if not _went_well(one)]
            more = PLACES - len(self._fetchers)
            self._fetchers += [asyncio.ensure_future(self._fetch_some()) for _ in range(more)]
            await self._over.wait()
        if self._failed:
            await self.landed()

    @property
    def under_way(self) -> bool:
        """Whether any is being fetched."""
        return any(not one.done() for one in self._fetchers)

    async def landed(self) -> None:
        """Wait for those that are under way.

        Raises:
            As `fetch`.
        """
        fetchers, self._fetchers = self._fetchers, []
        try:
            await all_of(fetchers)
        except SiteRefused:
            # The host is busy: others may try later, and wait for nothing until then.
            left, work = list(self._unsettled), self._work
            await work.means.keeper.write(partial(claims.give_back, urls=left, worker=work.worker))
            raise

    async def _refill(self) -> bool:
        """Claim more; whether there were any."""
        self._over.clear()
        found = await self._work.means.keeper.write(partial(_claim, self._work, self._tally))
        self._waiting += found
        self._unsettled.update(one.url for one in found)
        if not found:
            self._over.set()
        return bool(found)

    async def _take(self) -> claims.Wanted | None:
        """The next one; None where there is none at the moment."""
        async with self._turn:
            if self._over.is_set() or not (self._waiting or await self._refill()):
                return None
            return self._waiting.popleft()

    async def _fetch_some(self) -> None:
        """Fetch one after the other; a failure keeps all from going on."""
        try:
            while wanted := await self._take():
                await fetch_one(self._work, self._download, self._tally, wanted)
                self._unsettled.discard(wanted.url)
        except BaseException:
            self._failed = True
            self._over.set()
            raise


def _went_well(fetcher: "asyncio.Task[None]") -> bool:
    return fetcher.done() and not fetcher.cancelled() and fetcher.exception() is None


def rooms_of(session: Session, work: Work) -> list[claims.Room]:
    """The room of each tag of WORK, in their order; none where they have no limit."""
    most = work.options.max_images
    if most is None:
        return []
    words = map(work.means.vocabulary.words_of, work.options.tags)
    return [claims.room(session, work.site, one, most) for one in words]


def _claim(work: Work, tally: Tally, session: Session) -> list[claims.Wanted]:
    rooms, limit = rooms_of(session, work), BATCH
    if rooms:
        limit = min(BATCH, rooms[work.options.tags.index(tally.tag)].left)
    if limit <= 0:
        return []
    return claims.claim(session, work.site, tally.words, limit, work.worker, rooms)


async def fetch_one(work: Work, download: Download, tally: Tally, wanted: claims.Wanted) -> None:
    """Download one image and commit the result, as soon as a slot is free."""

    async def get(address: str) -> Answer | Refused:
        ask = replace(work.spider.image_request(address), of_stranger=True)
        async with work.asking:
            answer = await download(ask)
        return answer if isinstance(answer, Refused) else answer[1]

    async with work.places:
        addresses = (wanted.url, *wanted.fallbacks)
        means = work.means
        tools = (means.store, means.readers, means.files)
        if means.keeper.forgotten.has_name(URL, addresses):
            await _keep(work, tally, wanted.url, Refused(REASON))
            return
        outcome = await fetch_image(get, addresses, *tools)
        if isinstance(outcome, Refused) and outcome.reason in GONE and wanted.key:
            fresh = await asking.photo_again(work.spider, download, wanted, work.asked_again)
            if fresh is not None:
                await means.keeper.write(partial(frontier.move, url=wanted.url, photo=fresh))
                wanted = replace(wanted, url=fresh.url)
                addresses = (fresh.url, *fresh.fallbacks)
                outcome = await fetch_image(get, addresses, *tools)
        if isinstance(outcome, Refused):
            # A photo is not given up because its host is busy.
            means.pace.refuse_long(work.spider.image_request(wanted.url).url)
        await _keep(work, tally, wanted.url, outcome)
    work.means.bar.update()
    work.means.bar.set_postfix(site=work.site, tag=tally.hashtag, refresh=False)


async def _keep(work: Work, tally: Tally, url: str, outcome: Fetched | Refused) -> None:
    kept = await work.means.keeper.keep(url, outcome)
    if isinstance(kept, Refused):
        tally.rejected[kept.reason] += 1
    else:
        tally.outcomes[kept] += 1
