"""Scrapy settings of a crawl, its download handler and its robots.txt middleware."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scrapy import Request
from scrapy.core.downloader.handlers import http11
from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.robotstxt import RobotParser
from scrapy.utils.httpobj import urlparse_cached
from twisted.web._newclient import BODY, DONE

from scraper.addresses import ALLOW_ALL, ALLOWED, PublicOnly, PublicResolver
from scraper.fetching import LARGEST_BYTES

# The limit of browsers.
LARGEST_HEAD = 256_000


class _Protocol(http11._LenientHTTP11ClientProtocol):
    """A connection that is aborted when the response headers exceed LARGEST_HEAD bytes."""

    _head = 0

    def request(self, request: Any) -> Any:
        """Reset the count, then do as Twisted does."""
        self._head = 0
        return super().request(request)

    def dataReceived(self, data: bytes) -> None:  # noqa: N802 - Twisted's name
        """As Twisted's, up to the limit."""
        parser = self._parser
        if parser is not None and parser.state not in (BODY, DONE):
            self._head += len(data)
        if self._head > LARGEST_HEAD:
            self.transport.abortConnection()
        else:
            super().dataReceived(data)


class _Factory(http11._LenientHTTP11ClientFactory):
    def buildProtocol(self, _address: Any) -> _Protocol:  # noqa: N802 - Twisted's name
        return _Protocol(self._quiescentCallback)


class BoundedHeads(http11.HTTP11DownloadHandler):
    """Scrapy's HTTP handler with a limit on the size of response headers."""

    def __init__(self, crawler: Any) -> None:
        super().__init__(crawler)
        self._pool._factory = _Factory
        # A request starts shortly before the previous connection returns to the pool, which would
        # otherwise exceed its limit and close a connection every few photos.
        self._pool.maxPersistentPerHost *= 2


class ObeyRobotsTxt(RobotsTxtMiddleware):
    """Scrapy's middleware, for requests that wait for one robots.txt at the same time.

    Scrapy 2.19 gives its rules to the first waiting request only and allows all others,
    because `Deferred.asFuture` replaces the result by None:
    https://docs.twisted.org/en/stable/api/twisted.internet.defer.Deferred.html#asFuture
    """

    def __init__(self, crawler: Any) -> None:
        super().__init__(crawler)
        self._locks: dict[str, asyncio.Lock] = {}

    async def robot_parser(self, request: Request) -> RobotParser | None:
        """Return the rules for a request; None if the host has none."""
        host = urlparse_cached(request).netloc
        async with self._locks.setdefault(host, asyncio.Lock()):
            return await super().robot_parser(request)


AT_ONCE = 8
# What is done with each request, by the place in its way. All of Scrapy's own is named here: what
# it brings besides would come with a new version unasked, takes time for each photo (it counts what
# our own table counts), or opens the crawl to others (a console; an HTTP server that runs code).
MIDDLEWARES = {
    "downloadtimeout.DownloadTimeoutMiddleware": 350,
    "defaultheaders.DefaultHeadersMiddleware": 400,
    "useragent.UserAgentMiddleware": 500,
    "retry.RetryMiddleware": 550,
    "redirect.MetaRefreshMiddleware": 580,
    "httpcompression.HttpCompressionMiddleware": 590,
    "redirect.RedirectMiddleware": 600,
    "cookies.CookiesMiddleware": 700,
    "httpproxy.HttpProxyMiddleware": 750,
}
PROGRAM = "fashion-tagger/0.1"
PURPOSE = "collects product photos under hashtags; obeys robots.txt"


@dataclass(frozen=True)
class Manners:
    """How a crawl behaves on the network. `contact`: an address for site owners.

    `timeout`: seconds for one answer, to its last byte. `allow_private`: hosts of a private network
    may be asked, and not only those that the user named; `purpose`: what it asks for.
    """

    contact: str | None = None
    timeout: float = 60
    allow_private: bool = False
    verbose: bool = False
    purpose: str = PURPOSE


def user_agent(contact: str | None, purpose: str = PURPOSE) -> str:
    """Return the user agent: name, purpose and contact."""
    return f"{PROGRAM} ({f'{contact}; ' if contact else ''}{purpose})"


def crawl_settings(manners: Manners, allowed: Sequence[str] = ()) -> dict[str, Any]:
    """Settings of one crawl. ALLOWED: addresses that the user named, and that may be private."""
    return {
        # What strangers send before a photo may be huge, too.
        "DOWNLOAD_HANDLERS": dict.fromkeys(("http", "https"), BoundedHeads),
        # Strangers' links must not lead into the user's own network.
        "TWISTED_DNS_RESOLVER": PublicResolver,
        "DOWNLOADER_MIDDLEWARES_BASE": {
            f"scrapy.downloadermiddlewares.{name}": place for name, place in MIDDLEWARES.items()
        },
        "DOWNLOADER_MIDDLEWARES": {PublicOnly: 50, ObeyRobotsTxt: 100},
        # It sees to the Referer of redirects.
        "SPIDER_MIDDLEWARES_BASE": {"scrapy.spidermiddlewares.referer.RefererMiddleware": 700},
        "EXTENSIONS_BASE": {"scrapy.extensions.throttle.AutoThrottle": 0},
        "STATS_CLASS": "scrapy.statscollectors.DummyStatsCollector",
        ALLOWED: list(allowed),
        ALLOW_ALL: manners.allow_private,
        # A token must not go to whoever stands between us and the site.
        "DOWNLOAD_VERIFY_CERTIFICATES": True,
        # We say who we are, and go where robots.txt lets us.
        "USER_AGENT": user_agent(manners.contact, manners.purpose),
        "ROBOTSTXT_OBEY": True,
        # The site's own pace: starts slowly, follows its latency, never more than eight at once.
        "AUTOTHROTTLE_ENABLED": True,
        "AUTOTHROTTLE_START_DELAY": 0.5,
        "AUTOTHROTTLE_MAX_DELAY": 60,
        "AUTOTHROTTLE_TARGET_CONCURRENCY": 4,
        "CONCURRENT_REQUESTS_PER_DOMAIN": AT_ONCE,
        "DOWNLOAD_DELAY": 0,
        # What strangers link to may be huge or never end.
        "DOWNLOAD_MAXSIZE": LARGEST_BYTES,
        "DOWNLOAD_WARNSIZE": 0,
        "DOWNLOAD_TIMEOUT": manners.timeout,
        "REDIRECT_MAX_TIMES": 5,
        "RETRY_TIMES": 2,
        # Not 429 and 503: a busy host says for how long, see pace.py.
        "RETRY_HTTP_CODES": [500, 502, 504, 522, 524, 408],
        # Our own table says what happened; --verbose shows the rest.
        "LOG_LEVEL": "INFO" if manners.verbose else "CRITICAL",
    }
