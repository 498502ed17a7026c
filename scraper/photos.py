"""The photos that a search has found: claimed, fetched, committed."""

import asyncio
from collections import deque
from dataclasses import replace

from sqlalchemy.orm import Session

from dataset.arrivals import digest
from dataset.catalogue.forgetting import REASON, URL
from scraper import claims, expired, frontier
from scraper.download import Download
from scraper.errors import SiteRefused
from scraper.examining import Fetched, Refused
from scraper.fetching import GONE, fetch_image
from scraper.gathering import all_of
from scraper.report import Tally
from scraper.spiders.base import Answer
from scraper.work import PLACES, Work

BATCH = 64


async def fetch_wanted(work: Work, download: Download, tally: Tally) -> None:
    """Fetch photos that the search of TALLY has found, until all are in hand or its tag is full.

    Raises:
        SiteRefused: their host wants to be left alone for long.
    """
    while await (claimed := _Claimed(work, tally)).refill():
        try:
            await all_of(_fetch_some(work, download, tally, claimed) for _ in range(PLACES))
        except SiteRefused:
            # The host is busy: others may try later, and wait for nothing until then.
            with work.sessions.begin() as session:
                claims.give_back(session, list(claimed.unsettled), work.worker)
            raise


class _Claimed:
    """Photos that are claimed a batch at a time, for several to take in turn."""

    def __init__(self, work: Work, tally: Tally) -> None:
        self._work, self._tally = work, tally
        self._waiting: deque[claims.Wanted] = deque()
        self.unsettled: set[str] = set()
        self._turn = asyncio.Lock()
        self.over = False

    async def refill(self) -> bool:
        """Claim more; whether there were any."""
        # In a thread: who waits for the catalogue must not keep what comes from its file.
        found = await asyncio.to_thread(_claim, self._work, self._tally)
        self._waiting += found
        self.unsettled.update(one.url for one in found)
        self.over = not found
        return bool(found)

    async def take(self) -> claims.Wanted | None:
        """The next one; None where there is none at the moment."""
        async with self._turn:
            if self.over or not (self._waiting or await self.refill()):
                return None
            return self._waiting.popleft()


async def _fetch_some(work: Work, download: Download, tally: Tally, claimed: _Claimed) -> None:
    """Fetch what CLAIMED has, one after the other; a failure keeps all from going on."""
    try:
        while wanted := await claimed.take():
            await fetch_one(work, download, tally, wanted)
            claimed.unsettled.discard(wanted.url)
    except BaseException:
        claimed.over = True
        raise


def rooms_of(session: Session, work: Work) -> list[claims.Room]:
    """The room of each tag of WORK, in their order; none where they have no limit."""
    most = work.options.max_images
    if most is None:
        return []
    words = map(work.means.vocabulary.words_of, work.options.tags)
    return [claims.room(session, work.site, one, most) for one in words]


def _claim(work: Work, tally: Tally) -> list[claims.Wanted]:
    with work.sessions.begin() as session:
        rooms, limit = rooms_of(session, work), BATCH
        if rooms:
            limit = min(BATCH, rooms[work.options.tags.index(tally.tag)].left)
        if limit <= 0:
            return []
        found = claims.claim(session, work.site, tally.words, limit, work.worker, rooms)
    # Looked for once a batch, and not once a photo: who fetched one of these before is dead by now.
    came = work.means.store.arrivals.digests()
    return [replace(one, came=digest(one.url) in came) for one in found]


async def fetch_one(work: Work, download: Download, tally: Tally, wanted: claims.Wanted) -> None:
    """Fetch one photo and commit what became of it, as soon as there is a place."""

    async def get(address: str) -> Answer | Refused:
        ask = replace(work.spider.image_request(address), of_stranger=True)
        async with work.asking:
            answer = await download(ask)
        return answer if isinstance(answer, Refused) else answer[1]

    async with work.places:
        addresses = (wanted.url, *wanted.fallbacks)
        means = work.means
        if means.keeper.forgotten.names(URL, addresses):
            await _keep(work, tally, wanted.url, Refused(REASON))
            return
        outcome = await fetch_image(get, addresses, means.store, means.readers, wanted.came)
        if isinstance(outcome, Refused) and outcome.reason in GONE and wanted.key:
            fresh = await expired.photo_again(work.spider, download, wanted, work.asked_again)
            if fresh is not None:
                with work.sessions.begin() as session:
                    frontier.move(session, wanted.url, fresh)
                wanted = replace(wanted, url=fresh.url)
                addresses = (fresh.url, *fresh.fallbacks)
                outcome = await fetch_image(get, addresses, means.store, means.readers)
        if isinstance(outcome, Refused):
            # A photo is not given up because its host is busy.
            means.pace.refuse_long(work.spider.image_request(wanted.url).url)
        await _keep(work, tally, wanted.url, outcome)
    work.means.bar.update()
    work.means.bar.set_postfix(site=work.site, tag=tally.hashtag, refresh=False)


async def _keep(work: Work, tally: Tally, url: str, outcome: Fetched | Refused) -> None:
    kept = await work.means.keeper.keep(url, outcome)
    if isinstance(kept, Refused):
        tally.refused[kept.reason] += 1
    else:
        tally.outcomes[kept] += 1
