"""Scrapy's downloader, lent to a coroutine: robots.txt, pace, retries, size caps."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import scrapy
from scrapy.crawler import CrawlerProcess
from scrapy.exceptions import IgnoreRequest

from scraper.addresses import PRIVATE, SCHEME, is_private_failure
from scraper.credentials import hide
from scraper.fetching import Refused
from scraper.settings import crawl_settings
from scraper.spiders.base import Answer, Ask, HashtagSpider
from scraper.stopping import Stop, Stopped

ROBOTS, REDIRECTS = "robots.txt", "too many redirects"
# Where an Ask led to and what it answered, or why there is no answer.
Download = Callable[[Ask], Awaitable[tuple[str, Answer] | Refused]]
Main = Callable[[Download], Awaitable[None]]


def run_with_downloader(
    main: Main, spider: HashtagSpider, verbose: bool, stop: Stop | None = None
) -> bool:
    """Run MAIN with a downloader for SPIDER; whether it came to its end, which Ctrl-C prevents.

    STOP, which Ctrl-C asks: what is being downloaded then is, and the next download raises Stopped.

    VERBOSE logs every request, without the spider's secrets.

    Raises:
        Whatever MAIN raises.
    """
    result: dict[str, Any] = {"ended": False, "crash": None}
    stop = stop or Stop()
    process = CrawlerProcess(crawl_settings(verbose, spider.named, spider.allow_private))
    process.crawl(_Lender, main=main, secrets=spider.secrets, result=result, stop=stop)
    with stop.on_signals():
        process.start(install_signal_handlers=False)
    if result["crash"] is not None:
        raise result["crash"]
    return bool(result["ended"])


class _Lender(scrapy.Spider):
    """Scrapy's side: it yields no request, since each is awaited where it is made."""

    name = "fashion-tagger"

    def __init__(
        self, main: Main, secrets: Mapping[str, str], result: dict[str, Any], stop: Stop
    ) -> None:
        super().__init__()
        self.main, self.secrets, self.result, self.stop = main, secrets, result, stop

    async def start(self) -> AsyncIterator[Any]:
        try:
            await self.main(self.download)
            self.result["ended"] = True
        except Stopped:
            self.result["ended"] = False
        except Exception as error:  # noqa: BLE001 - Scrapy would only log it; the caller raises it
            self.result["crash"] = error
        return
        yield

    async def download(self, ask: Ask) -> tuple[str, Answer] | Refused:
        self.stop.check()
        outcome = await self._download(ask)
        if isinstance(outcome, Refused):
            said = f"{outcome.reason} {ask.url}"
        else:
            said = f"HTTP {outcome[1].status} {outcome[0]}"
        self.logger.info("%s", hide(said, self.secrets))
        return outcome

    async def _download(self, ask: Ask) -> tuple[str, Answer] | Refused:
        # Scrapy leaves out a Cookie header; its cookies stay with the host that they are for.
        request = scrapy.Request(
            ask.url, headers=dict(ask.headers), cookies=dict(ask.cookies), dont_filter=True
        )
        # robots.txt speaks to crawlers of pages; who has an API's token has its terms instead.
        request.meta["dont_obey_robotstxt"] = "Authorization" in ask.headers
        try:
            response = await self.crawler.engine.download_async(request)
        except IgnoreRequest as error:
            # Our middleware gives its reason; Scrapy's for robots.txt and redirects are sentences.
            said = str(error)
            known = said if said in (PRIVATE, SCHEME) else REDIRECTS
            return Refused(ROBOTS if "robots" in said else known)
        except Exception as error:  # noqa: BLE001 - whatever broke on the network is a reason
            return Refused(_network_reason(error))
        headers = {
            name.decode("latin-1").lower(): b",".join(values).decode("latin-1")
            for name, values in response.headers.items()
        }
        return response.url, Answer(response.status, response.body, headers)


def _network_reason(error: Exception) -> str:
    if is_private_failure(error):
        return PRIVATE
    name = type(error).__name__
    if "Timeout" in name:
        return "timeout"
    if "certificate" in f"{error} {error.__cause__}":
        return "the certificate is not to be trusted"
    if "Cancel" in name:
        return "too large"
    if "DataLoss" in name:
        return "cut off"
    known = {"Resolve": "host not found", "Refused": "nothing listens there"}
    said = next((said for part, said in known.items() if part in name), name)
    return f"no connection ({said})"
