"""Scrapy's downloader, lent to a coroutine: robots.txt, pace, retries, size caps."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import scrapy
from scrapy.crawler import CrawlerProcess
from scrapy.exceptions import IgnoreRequest

from scraper.addresses import PRIVATE, is_private_failure
from scraper.credentials import hide
from scraper.examining import Refused
from scraper.fetching import TOO_LARGE
from scraper.pace import Pace
from scraper.settings import Manners, crawl_settings
from scraper.spiders.base import Answer, Ask
from scraper.stopping import Stop, Stopped

ROBOTS, REDIRECTS = "robots.txt", "too many redirects"
# Requests of the same page from a host that reports to be busy.
TRIES = 4
# Where an Ask led to and what it answered, or why there is no answer.
Download = Callable[[Ask], Awaitable[tuple[str, Answer] | Refused]]
Main = Callable[[Download], Awaitable[None]]


class Asker(Protocol):
    """The source of requests: a spider, or a list of URLs."""

    @property
    def secrets(self) -> Mapping[str, str]:
        """What must not be shown."""

    @property
    def named(self) -> Sequence[str]:
        """Addresses that the user named himself, and that may be private."""


def run_side_by_side(
    jobs: Sequence[tuple[Main, Asker]], manners: Manners, pace: Pace | None = None
) -> bool:
    """Run each main of JOBS with a downloader for its asker; whether all came to their end.

    After Ctrl-C what is being downloaded comes to its end, and the next download raises Stopped.

    Raises:
        Whatever a main raises.
    """
    pace = pace or Pace(Stop())
    named = [url for _, asker in jobs for url in asker.named]
    settings = crawl_settings(manners, named)
    process = CrawlerProcess(settings)
    # Scrapy would make every message first, and then not show it.
    for name in ("", "scrapy"):
        logging.getLogger(name).setLevel(settings["LOG_LEVEL"])
    # It logs a traceback for a missing robots.txt; the next request reports the reason.
    logging.getLogger("scrapy.downloadermiddlewares.robotstxt").setLevel(logging.CRITICAL)
    ends = [Ending() for _ in jobs]
    for (main, asker), end in zip(jobs, ends, strict=True):
        process.crawl(_Lender, main=main, secrets=asker.secrets, end=end, pace=pace)
    with pace.stop.on_signals():
        process.start(install_signal_handlers=False)
    for end in ends:
        if end.crash is not None:
            raise end.crash
    return all(end.reached for end in ends)


@dataclass
class Ending:
    """How a main ended: it came to its end, or to something that it raised, or was stopped."""

    reached: bool = False
    crash: Exception | None = None


class _Lender(scrapy.Spider):
    """Scrapy's side: it yields no request, since each is awaited where it is made."""

    name = "fashion-tagger"

    def __init__(self, main: Main, secrets: Mapping[str, str], end: Ending, pace: Pace) -> None:
        super().__init__()
        self.main, self.secrets, self.end, self.pace = main, secrets, end, pace

    async def start(self) -> AsyncIterator[Any]:
        try:
            await self.main(self.download)
            self.end.reached = True
        except Stopped:
            pass
        except Exception as error:  # noqa: BLE001 - Scrapy would only log it; the caller raises it
            self.end.crash = error
            self.pace.stop.ask()
        return
        yield

    async def download(self, ask: Ask) -> tuple[str, Answer] | Refused:
        for _ in range(TRIES):
            await self.pace.ready(ask.url)
            outcome = await self._download(ask)
            if isinstance(outcome, Refused) or not self.pace.learn(ask.url, outcome[1]):
                break
        if self.logger.isEnabledFor(logging.INFO):
            self.logger.info("%s", hide(_in_a_line(ask, outcome), self.secrets))
        return outcome

    async def _download(self, ask: Ask) -> tuple[str, Answer] | Refused:
        # Scrapy leaves out a Cookie header; its cookies stay with the host that they are for.
        request = scrapy.Request(
            ask.url, headers=dict(ask.headers), cookies=dict(ask.cookies), dont_filter=True
        )
        # robots.txt speaks to crawlers of pages; who has an API's token has its terms instead.
        request.meta["dont_obey_robotstxt"] = "Authorization" in ask.headers
        request.meta["dont_merge_cookies"] = ask.of_stranger
        try:
            response = await self.crawler.engine.download_async(request)
        except IgnoreRequest as error:
            return Refused(_reason_to_ignore(str(error)))
        except Exception as error:  # noqa: BLE001 - whatever broke on the network is a reason
            return Refused(_network_reason(error))
        headers = {
            name.decode("latin-1").lower(): b",".join(values).decode("latin-1")
            for name, values in response.headers.items()
        }
        return response.url, Answer(response.status, response.body, headers)


def _in_a_line(ask: Ask, outcome: tuple[str, Answer] | Refused) -> str:
    if isinstance(outcome, Refused):
        return f"{outcome.reason} {ask.url}"
    return f"HTTP {outcome[1].status} {outcome[0]}"


def _reason_to_ignore(said: str) -> str:
    # Our middleware gives its reason; Scrapy's own are sentences.
    known = {"robots": ROBOTS, "redirections": REDIRECTS, "exceeded": TOO_LARGE}
    return next((reason for sign, reason in known.items() if sign in said), said)


def _network_reason(error: Exception) -> str:
    if is_private_failure(error):
        return PRIVATE
    name = type(error).__name__
    if "Timeout" in name:
        return "timeout"
    if "certificate" in f"{error} {error.__cause__}":
        return "the certificate is not to be trusted"
    if "Cancel" in name:
        return TOO_LARGE
    if "DataLoss" in name:
        return "cut off"
    known = {
        "Resolve": "host not found",
        "Refused": "nothing listens there",
        "DownloadFailed": "no answer that can be read",
    }
    said = next((said for part, said in known.items() if part in name), name)
    return f"no connection ({said})"
