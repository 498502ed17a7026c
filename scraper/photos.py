"""The photos that a search has found: claimed, fetched, committed."""

from dataclasses import replace

from scraper import expired, frontier
from scraper.download import Download
from scraper.errors import SiteRefused
from scraper.fetching import GONE, Fetched, Refused, fetch_image
from scraper.gathering import all_of
from scraper.report import Tally
from scraper.spiders.base import Answer
from scraper.work import Work

BATCH = 32


async def fetch_wanted(
    work: Work, download: Download, tally: Tally, words: tuple[str, ...]
) -> None:
    """Fetch photos that the search has found, until all are in hand or the tag of WORDS is full.

    Raises:
        SiteRefused: their host wants to be left alone for long.
    """
    while batch := _claim(work, tally, words):
        try:
            await all_of(fetch_one(work, download, tally, wanted) for wanted in batch)
        except SiteRefused:
            # The host is busy: others may try later, and wait for nothing until then.
            with work.sessions.begin() as session:
                frontier.give_back(session, [wanted.url for wanted in batch], work.worker)
            raise


def _claim(work: Work, tally: Tally, words: tuple[str, ...]) -> list[frontier.Wanted]:
    site = work.site
    with work.sessions.begin() as session:
        room = frontier.room(session, site, words, work.options.max_images)
        if room is not None:
            room -= frontier.in_hand(session, site, words)
        limit = BATCH if room is None else min(BATCH, room)
        if limit <= 0:
            return []
        return frontier.claim(session, site, tally.words, limit, work.worker)


async def fetch_one(work: Work, download: Download, tally: Tally, wanted: frontier.Wanted) -> None:
    """Fetch one photo and commit what became of it, as soon as there is a place."""

    async def get(address: str) -> Answer | Refused:
        answer = await download(work.spider.image_request(address))
        return answer if isinstance(answer, Refused) else answer[1]

    async with work.places:
        outcome = await fetch_image(get, (wanted.url, *wanted.fallbacks), work.means.store)
        if isinstance(outcome, Refused) and outcome.reason in GONE and wanted.key:
            fresh = await expired.photo_again(work.spider, download, wanted, work.asked_again)
            if fresh is not None:
                with work.sessions.begin() as session:
                    frontier.move(session, wanted.url, fresh)
                wanted = replace(wanted, url=fresh.url)
                outcome = await fetch_image(get, (fresh.url, *fresh.fallbacks), work.means.store)
        if isinstance(outcome, Refused):
            # A photo is not given up because its host is busy.
            work.means.pace.refuse_long(work.spider.image_request(wanted.url).url)
        await _keep(work, tally, wanted.url, outcome)
    work.means.bar.update()
    work.means.bar.set_postfix(site=work.site, tag=tally.hashtag, refresh=False)


async def _keep(work: Work, tally: Tally, url: str, outcome: Fetched | Refused) -> None:
    kept = await work.means.keeper.keep(url, outcome)
    if isinstance(kept, Refused):
        tally.refused[kept.reason] += 1
    else:
        tally.outcomes[kept] += 1
