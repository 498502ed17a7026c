"""Scrapy's settings for our crawl, each with its reason."""

from collections.abc import Sequence
from typing import Any

from scraper.addresses import ALLOW_ALL, ALLOWED, PublicOnly, PublicResolver
from scraper.fetching import LARGEST_BYTES

AT_ONCE = 8
USER_AGENT = "fashion-tagger/0.1 (collects product photos under hashtags; obeys robots.txt)"


def crawl_settings(
    verbose: bool = False, allowed: Sequence[str] = (), allow_private: bool = False
) -> dict[str, Any]:
    """Settings of one crawl; VERBOSE shows Scrapy's own log.

    ALLOWED: addresses that the user named, and that may be private; ALLOW_PRIVATE: any may.
    """
    return {
        # Strangers' links must not lead into the user's own network.
        "DNS_RESOLVER": PublicResolver,
        "DOWNLOADER_MIDDLEWARES": {PublicOnly: 50},
        ALLOWED: list(allowed),
        ALLOW_ALL: allow_private,
        # A token must not go to whoever stands between us and the site.
        "DOWNLOAD_VERIFY_CERTIFICATES": True,
        # We say who we are, and go where robots.txt lets us.
        "USER_AGENT": USER_AGENT,
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
        "DOWNLOAD_TIMEOUT": 60,
        "REDIRECT_MAX_TIMES": 5,
        "RETRY_TIMES": 2,
        # Nobody needs a console into a crawl, and an open port is a risk.
        "TELNETCONSOLE_ENABLED": False,
        # Our own table says what happened; --verbose shows the rest.
        "LOG_LEVEL": "INFO" if verbose else "CRITICAL",
    }
