"""Scrapy's settings for our crawl, each with its reason."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scraper.addresses import ALLOW_ALL, ALLOWED, PublicOnly, PublicResolver
from scraper.fetching import LARGEST_BYTES
from scraper.heads import BoundedHeads

AT_ONCE = 8
# What is done with each request, by the place in its way. All of Scrapy's own is named here: what
# it brings besides would come with a new version unasked, takes time for each photo (it counts what
# our own table counts), or opens the crawl to others (a console; an HTTP server that runs code).
MIDDLEWARES = {
    "robotstxt.RobotsTxtMiddleware": 100,
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
        "DOWNLOADER_MIDDLEWARES": {PublicOnly: 50},
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
