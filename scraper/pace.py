"""Hosts that ask to be left alone for a while (429, Retry-After, limits) are, over restarts too."""

from collections import Counter
from datetime import datetime, timedelta, timezone

import sqlalchemy as sa

from dataset.catalogue.models import HostBackoff
from dataset.catalogue.session import Sessions
from scraper import limits
from scraper.addresses import host_and_port
from scraper.errors import SiteRefused
from scraper.reading import in_words
from scraper.spiders.base import Answer
from scraper.stopping import Stop

# Too many requests, and too much to do.
BUSY = (429, 503)
# Where a busy host does not say for how long: seconds, twice as many each time.
FIRST_PAUSE, MOST_DOUBLINGS = 5, 6
# A longer pause ends the crawl of the site, and is remembered.
LONGEST_WAIT = 300


class Pace:
    """Until when each host is left alone, by this process and those that use the catalogue.

    Without a catalogue, as for a single question, it waits for nothing.
    """

    def __init__(self, stop: Stop, sessions: Sessions | None = None) -> None:
        self.stop, self._sessions, self._waits = stop, sessions, sessions is not None
        self._busy: Counter[str] = Counter()
        self._until: dict[str, datetime] = {}
        if sessions is not None:
            with sessions() as session:
                for row in session.scalars(sa.select(HostBackoff)):
                    self._until[row.host] = row.until.replace(tzinfo=timezone.utc)

    async def ready(self, url: str) -> None:
        """Wait until the host of URL may be asked.

        Raises:
            SiteRefused: that is long from now.
            Stopped: somebody asked to stop.
        """
        self.stop.check()
        host = _host(url)
        while (wait := self._wait(host)) > 0:
            self.refuse_long(url)
            await self.stop.sleep(wait)

    def refuse_long(self, url: str) -> None:
        """Nothing, unless the host of URL is left alone for long.

        Raises:
            SiteRefused: it is.
        """
        host = _host(url)
        wait = self._wait(host)
        if wait > LONGEST_WAIT:
            raise SiteRefused(
                f"{host} asked to be left alone until {self._until[host]:%Y-%m-%d %H:%M} UTC"
                f" and is not asked before; repeat the command {in_words(round(wait))}"
            )

    def _wait(self, host: str) -> float:
        until = self._until.get(host)
        return (until - _now()).total_seconds() if until else 0

    def learn(self, url: str, answer: Answer) -> bool:
        """Keep to what ANSWER to URL says; whether the same is worth asking again in a while."""
        if not self._waits:
            return False
        host, busy = _host(url), answer.status in BUSY
        asked = limits.pause(answer.headers, _now(), busy)
        if not busy:
            del self._busy[host]
            self._leave_alone(host, asked or 0)
            return False
        seconds = asked or FIRST_PAUSE * 2 ** min(self._busy[host], MOST_DOUBLINGS)
        self._busy[host] += 1
        self._leave_alone(host, seconds)
        return seconds <= LONGEST_WAIT

    def _leave_alone(self, host: str, seconds: int) -> None:
        until = _now() + timedelta(seconds=seconds)
        known = self._until.get(host)
        if not seconds or (known is not None and known >= until):
            return
        self._until[host] = until
        if self._sessions is not None:
            with self._sessions.begin() as session:
                session.merge(HostBackoff(host=host, until=until.replace(tzinfo=None)))


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _host(url: str) -> str:
    host, port = host_and_port(url)
    return f"{host}:{port}"
