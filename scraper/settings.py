"""Scrapy settings of the crawls; `scrapy.cfg` names this module.

Settings of this project:

- CATALOGUE: File of the SQLite catalogue, or a PostgreSQL URL.
- IMAGES: Folder of the image store, or an fsspec URL.
- VOCABULARY: TOML file that adds labels; empty: the built-in labels.
- CONTACT: E-mail address or URL for site owners, part of the user agent.
- ALLOW_PRIVATE_HOSTS: Whether hosts with private addresses may be requested.
- ALLOWED_HOSTS: URLs whose hosts may have private addresses.
- SUMMARY_ENABLED: Whether to print the results of the searches when a spider is closed.
"""

import os
from collections.abc import Mapping

from scrapy.exceptions import UsageError
from scrapy.settings import BaseSettings, get_settings_priority

PROGRAM = "fashion-tagger/0.1"
PURPOSE = "collects product photos under hashtags; obeys robots.txt"


def user_agent(contact: str | None, purpose: str = PURPOSE) -> str:
    """Return the user agent: name, contact and purpose."""
    return f"{PROGRAM} ({f'{contact}; ' if contact else ''}{purpose})"


BOT_NAME = "fashion-tagger"
SPIDER_MODULES = ["scraper.spiders"]
NEWSPIDER_MODULE = "scraper.spiders"

CATALOGUE = os.environ.get("FASHION_TAGGER_CATALOGUE", "catalogue.sqlite")
IMAGES = os.environ.get("FASHION_TAGGER_IMAGES", "images")
VOCABULARY = ""
CONTACT = os.environ.get("FASHION_TAGGER_CONTACT")
ALLOW_PRIVATE_HOSTS = False
ALLOWED_HOSTS: list[str] = []
SUMMARY_ENABLED = True

# Searches, cursors and claims are in the catalogue, see `scraper.scheduler`.
SCHEDULER = "scraper.scheduler.CatalogueScheduler"
ITEM_PIPELINES = {
    "scraper.pipelines.InspectionPipeline": 100,
    "scraper.pipelines.TakedownPipeline": 200,
    "scraper.pipelines.StoragePipeline": 300,
    "scraper.pipelines.CataloguePipeline": 400,
}
DOWNLOADER_MIDDLEWARES: dict[str, int | None] = {
    "scraper.middlewares.PublicAddressesMiddleware": 50,
    "scrapy.downloadermiddlewares.robotstxt.RobotsTxtMiddleware": None,
    "scraper.middlewares.Rfc9309RobotsTxtMiddleware": 100,
    "scraper.middlewares.TdmReservationMiddleware": 535,
    "scraper.middlewares.NoAiMiddleware": 540,
    "scraper.middlewares.BackoffMiddleware": 545,
}
EXTENSIONS = {
    "scraper.extensions.Heartbeat": 0,
    "scraper.extensions.ProgressBar": 0,
    "scraper.extensions.SummaryReport": 0,
    "scraper.extensions.LogRedaction": 0,
}
DOWNLOAD_HANDLERS = {
    "http": "scraper.download_handler.AiohttpDownloadHandler",
    "https": "scraper.download_handler.AiohttpDownloadHandler",
    "ftp": None,
    "s3": None,
    "file": None,
    "data": None,
}
LOG_FORMATTER = "scraper.extensions.RequestLogFormatter"

USER_AGENT = user_agent(CONTACT)
ROBOTSTXT_OBEY = True
# The site's pace: starts slowly, follows its latency, at most eight requests at once.
AUTOTHROTTLE_ENABLED = True
AUTOTHROTTLE_START_DELAY = 0.5
AUTOTHROTTLE_MAX_DELAY = 60
AUTOTHROTTLE_TARGET_CONCURRENCY = 4
CONCURRENT_REQUESTS_PER_DOMAIN = 8
# Active requests, which Ctrl-C waits for.
CONCURRENT_REQUESTS = 16
# Bytes of responses that wait for the pipelines, twice the largest image.
SCRAPER_SLOT_MAX_ACTIVE_SIZE = 40_000_000
# Each response gives one item, and Scrapy starts as many tasks per response.
CONCURRENT_ITEMS = 1
DOWNLOAD_DELAY = 0
DOWNLOAD_MAXSIZE = 20_000_000
DOWNLOAD_WARNSIZE = 0
DOWNLOAD_TIMEOUT = 60
REDIRECT_MAX_TIMES = 5
RETRY_TIMES = 2
# Those of the download handler.
RETRY_EXCEPTIONS = [
    "scrapy.exceptions.CannotResolveHostError",
    "scrapy.exceptions.DownloadConnectionRefusedError",
    "scrapy.exceptions.DownloadFailedError",
    "scrapy.exceptions.DownloadTimeoutError",
    "scrapy.exceptions.ResponseDataLossError",
]
# Without 429 and 503: the back-off middleware handles busy hosts.
RETRY_HTTP_CODES = [500, 502, 504, 522, 524, 408]
# Keeps lists of products for the other searches of the crawl.
HTTPCACHE_ENABLED = True
HTTPCACHE_POLICY = "scraper.middlewares.SharedListPolicy"
HTTPCACHE_STORAGE = "scraper.middlewares.SharedListStorage"
# Spiders explain error responses.
HTTPERROR_ALLOW_ALL = True
# No listening sockets: a console and a server would run code for others on this machine.
TELNETCONSOLE_ENABLED = False
REMOTE_CONTROL_ENABLED = False

# Settings that protect users and sites -> why they can't be changed, or the option to use instead.
PROTECTED_SETTINGS = {
    "ROBOTSTXT_OBEY": "robots.txt is always obeyed",
    "TELNETCONSOLE_ENABLED": "a crawl opens no listening socket",
    "REMOTE_CONTROL_ENABLED": "a crawl opens no listening socket",
    "ALLOW_PRIVATE_HOSTS": "use --allow-private-hosts",
    "DOWNLOAD_HANDLERS": "the handler verifies certificates and refuses private addresses",
    "DOWNLOAD_VERIFY_CERTIFICATES": "certificates are always verified",
    "SCHEDULER": "searches and claims are in the catalogue",
    "USER_AGENT": "the user agent names this program; add yourself with --contact",
}
# Components that can't be removed; others can be added.
PROTECTED_COMPONENTS: dict[str, Mapping[str, int | None]] = {
    "DOWNLOADER_MIDDLEWARES": DOWNLOADER_MIDDLEWARES,
    "ITEM_PIPELINES": ITEM_PIPELINES,
    # Without a heartbeat, other processes would take over the claims of this one.
    "EXTENSIONS": EXTENSIONS,
}


def protection_message(name: str, value: object) -> str:
    """Return the message about a protected setting."""
    return f"-s {name}={value}: can't be changed: {PROTECTED_SETTINGS[name]}"


def check_protected_settings(settings: BaseSettings) -> None:
    """Refuse command-line settings that endanger users or sites.

    Raises:
        UsageError: A protected setting was changed, or a protected component removed.
    """
    for name in PROTECTED_SETTINGS:
        if settings.getpriority(name) == get_settings_priority("cmdline"):
            raise UsageError(protection_message(name, settings[name]))
    for name, components in PROTECTED_COMPONENTS.items():
        given = settings.getdict(name)
        for component, order in components.items():
            if order is not None and component in given and given[component] is None:
                raise UsageError(f"-s {name}: {component} can't be removed")


def add_protected_components(settings: BaseSettings) -> None:
    """Add the components of this module to those that replace them on the command line."""
    for name, components in PROTECTED_COMPONENTS.items():
        priority = get_settings_priority("cmdline")
        settings.set(name, {**settings.getdict(name), **components}, priority)
