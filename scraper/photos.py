"""The photos that a search has found: claimed, fetched, committed."""

from dataclasses import replace

from sqlalchemy.orm import Session

from dataset.catalogue import forgetting
from scraper import expired, frontier
from scraper.download import Download
from scraper.fetching import GONE, Fetched, Refused, fetch_image
from scraper.gathering import all_of
from scraper.report import Tally
from scraper.spiders.base import Answer
from scraper.work import Work

BATCH = 32


async def fetch_wanted(
    work: Work, download: Download, tally: Tally, words: tuple[str, ...]
) -> None:
    """Fetch photos that the search has found, until all are in hand or the tag of WORDS is full."""
    while batch := _claim(work, tally, words):
        await all_of(fetch_one(work, download, tally, wanted) for wanted in batch)


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
        _commit(work, tally, wanted.url, outcome)
    work.means.bar.update()
    work.means.bar.set_postfix(site=work.site, tag=tally.hashtag, refresh=False)


def _commit(work: Work, tally: Tally, url: str, outcome: Fetched | Refused) -> None:
    with work.sessions.begin() as session:
        if isinstance(outcome, Fetched) and _is_forgotten(session, work, outcome):
            outcome = Refused(forgetting.REASON)
        if isinstance(outcome, Fetched):
            tally.outcomes[frontier.store(session, url, outcome, work.means.known)] += 1
        else:
            frontier.refuse(session, url, outcome)
            tally.refused[outcome.reason] += 1


def _is_forgotten(session: Session, work: Work, fetched: Fetched) -> bool:
    """Whether FETCHED was taken down; its file goes again then."""
    forgotten = work.means.forgotten
    forgotten.catch_up(session)
    known = forgotten.is_image(fetched.sha256, fetched.looks.fingerprint)
    if known:
        work.means.store.remove(fetched.store_key)
    return known
