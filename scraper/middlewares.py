"""Downloader middlewares: public addresses, robots.txt, noai and back-off; the cache of lists."""

import asyncio
import ipaddress
import math
import re
import socket
import time
import zlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from urllib.parse import urldefrag, urlsplit

import sqlalchemy as sa
from parsel import Selector
from protego import Protego
from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadConnectionRefusedError,
    IgnoreRequest,
)
from scrapy.extensions.httpcache import DummyPolicy
from scrapy.http import Response
from scrapy.settings import BaseSettings
from scrapy.spiders import Spider
from scrapy.utils.httpobj import urlparse_cached

from dataset.catalogue.models import HostBackoff
from dataset.catalogue.session import Sessions
from scraper.errors import SiteRefused
from scraper.items import (
    NOAI,
    PRIVATE,
    ROBOTS_TXT,
    SCHEME,
    TDM_RESERVATION,
    UNREADABLE,
    CertificateError,
    download_error_reason,
)
from scraper.parsing.fields import backoff_seconds, format_wait, json_objects, parse_json

# RFC 9309 requires crawlers to read 500 KiB.
MAX_ROBOTS_TXT_BYTES = 512_000
# Key of a request's meta: whether the user has accepted the terms of the API that it is sent to.
ACCEPTS_API_TERMS = "accepts_api_terms"
# Seconds until a robots.txt that could not be read is requested again.
ROBOTS_TXT_RETRY_SECONDS = 300
# Connection errors, raised unchanged: requests of the host's pages would fail with them, too.
NO_CONNECTION = (CannotResolveHostError, DownloadConnectionRefusedError, CertificateError)
# Settings: whether all hosts may be private, and URLs whose hosts may.
ALLOW_PRIVATE_HOSTS, ALLOWED_HOSTS = "ALLOW_PRIVATE_HOSTS", "ALLOWED_HOSTS"
DEFAULT_PORTS = {"http": 80, "https": 443}
# Not public either, although `is_global` of some versions of Python 3.10 to 3.13 is true.
PRIVATE_NETWORKS = tuple(
    map(
        ipaddress.ip_network,
        (
            "192.0.0.0/24",  # protocol assignments; metadata of a cloud (Oracle)
            "192.88.99.0/24",  # relays of 6to4, withdrawn
            "168.63.129.16/32",  # metadata and DNS of a cloud (Azure)
            "2001::/23",  # protocol assignments, with Teredo
            "3fff::/20",  # documentation
        ),
    )
)
# All addresses that IANA has assigned for the public internet, and those that embed IPv4.
# https://www.iana.org/assignments/ipv6-address-space/ipv6-address-space.xhtml
PUBLIC_IPV6 = ipaddress.IPv6Network("2000::/3")
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public(address: str) -> bool:
    """Return whether an IPv4 or IPv6 address belongs to the public internet.

    Raises:
        ValueError: It is not an address.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        # Browsers and resolvers also accept 2130706433 and 127.1.
        ip = ipaddress.ip_address(_legacy_ipv4(address))
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = ip.ipv4_mapped or ip.sixtofour
        if ip in NAT64:
            embedded = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if embedded:
            return is_public(str(embedded))
        if ip not in PUBLIC_IPV6:
            return False
    is_excluded = any(ip in network for network in PRIVATE_NETWORKS)
    return ip.is_global and not ip.is_multicast and not is_excluded


def _legacy_ipv4(address: str) -> bytes:
    """Return the bytes of an IPv4 address in one of the forms of `inet_aton`.

    Raises:
        ValueError: It is not an address.
    """
    try:
        return socket.inet_aton(address)
    except OSError as error:
        raise ValueError(f"{address!r} is not an address") from error


def host_and_port(url: str) -> tuple[str, int]:
    """Return the host of a URL, in lower case, and its port.

    Raises:
        ValueError: The URL has none.
    """
    parts = urlsplit(url)
    port = parts.port or DEFAULT_PORTS.get(parts.scheme)
    if not parts.hostname or not port:
        raise ValueError(f"no host in {url!r}")
    return parts.hostname, port


@dataclass(frozen=True)
class HostRules:
    """The hosts that may have private addresses.

    Attributes:
        allow_all: Whether all may.
        allowed: Hosts with their ports.
    """

    allow_all: bool
    allowed: frozenset[tuple[str, int]]

    @classmethod
    def from_settings(cls, settings: BaseSettings) -> "HostRules":
        """Read the rules from the settings."""
        allowed = frozenset(map(host_and_port, settings.getlist(ALLOWED_HOSTS)))
        return cls(settings.getbool(ALLOW_PRIVATE_HOSTS), allowed)

    def allows_url(self, url: str) -> bool:
        """Return whether a URL may be requested; names are checked when they are resolved."""
        try:
            host, port = host_and_port(url)
            return is_public(host) or self.allow_all or (host, port) in self.allowed
        except ValueError:
            return True

    def allows_name(self, name: str, port: int, address: str) -> bool:
        """Return whether a host name may resolve to an address, for a connection to a port."""
        if self.allow_all or (name.lower(), port) in self.allowed:
            return True
        # An IPv6 address may end with its network interface.
        return is_public(address.partition("%")[0])


class PublicAddressesMiddleware:
    """Ignore requests of private addresses, also those of redirects."""

    def __init__(self, rules: HostRules) -> None:
        self._rules = rules

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "PublicAddressesMiddleware":
        """Create the middleware with the rules of the crawler's settings."""
        return cls(HostRules.from_settings(crawler.settings))

    def process_request(self, request: Request) -> None:
        """Check the URL of a request.

        Raises:
            IgnoreRequest: It may not be requested.
        """
        if urlsplit(request.url).scheme not in DEFAULT_PORTS:
            raise IgnoreRequest(SCHEME)
        if not self._rules.allows_url(request.url):
            raise IgnoreRequest(PRIVATE)


class Rfc9309RobotsTxtMiddleware:
    """Obey robots.txt as RFC 9309 defines it, and its Crawl-delay and Request-rate.

    A robots.txt that can't be read, because of a server error, a timeout or its size, forbids
    everything; a missing one (HTTP 4xx) allows everything. Scrapy's own middleware allows
    everything in both cases.

    Requests with a token are excluded: robots.txt addresses crawlers of pages, and whoever has an
    API's token has agreed to its terms instead. So are those with ACCEPTS_API_TERMS, by which the
    user accepts the terms of an official API without tokens.

    https://www.rfc-editor.org/rfc/rfc9309#section-2.3.1
    """

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler
        self._user_agent = crawler.settings["USER_AGENT"]
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._rules: dict[str, RobotRules] = {}

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "Rfc9309RobotsTxtMiddleware":
        """Create the middleware for a crawler."""
        return cls(crawler)

    async def process_request(self, request: Request) -> None:
        """Check a request against the robots.txt of its host.

        Raises:
            IgnoreRequest: robots.txt forbids it, or can't be read.
            Exception: There is no connection to the host.
        """
        parts = urlparse_cached(request)
        has_terms = "Authorization" in request.headers or request.meta.get(ACCEPTS_API_TERMS)
        if parts.path in ("/robots.txt", TDM_FILE) or has_terms:
            return
        root = f"{parts.scheme}://{parts.netloc}"
        async with self._locks[root]:
            rules = self._rules.get(root)
            if rules is None or rules.expires < time.monotonic():
                rules = self._rules[root] = await self._load(f"{root}/robots.txt")
        if rules.error is not None:
            raise rules.error
        if not rules.protego.can_fetch(urldefrag(request.url).url, self._user_agent):
            raise IgnoreRequest(ROBOTS_TXT)
        backoffs = getattr(self._crawler.spider, "backoffs", None)
        if rules.delay_seconds and backoffs is not None:
            backoffs.set_interval(request.url, rules.delay_seconds)

    async def _load(self, url: str) -> "RobotRules":
        request = Request(url, meta={"download_maxsize": MAX_ROBOTS_TXT_BYTES})
        assert self._crawler.engine is not None
        try:
            response = await self._crawler.engine.download_async(request)
        except (*NO_CONNECTION, IgnoreRequest) as error:
            return RobotRules(error=error)
        except Exception as error:  # noqa: BLE001 - any other failure forbids, and is its reason
            return RobotRules(error=IgnoreRequest(f"{UNREADABLE}{download_error_reason(error)}"))
        if response.status in BUSY_STATUSES or response.status >= 500:
            return RobotRules(error=IgnoreRequest(f"{UNREADABLE}HTTP {response.status}"))
        text = response.body.decode("utf-8", "replace") if response.status < 300 else ""
        protego = Protego.parse(text.removeprefix("\ufeff"))
        return RobotRules(protego, _delay_seconds(protego, self._user_agent), expires=math.inf)


@dataclass(frozen=True)
class RobotRules:
    """The rules of a host.

    Attributes:
        protego: The parsed robots.txt.
        delay_seconds: Seconds between requests.
        error: Why there are no rules.
        expires: When robots.txt is requested again, by the monotonic clock.
    """

    protego: Protego = field(default_factory=lambda: Protego.parse(""))
    delay_seconds: float = 0.0
    error: Exception | None = None
    expires: float = field(default_factory=lambda: time.monotonic() + ROBOTS_TXT_RETRY_SECONDS)


def _delay_seconds(protego: Protego, user_agent: str) -> float:
    """Return the pause between requests that a robots.txt asks for, at most MAX_WAIT_SECONDS."""
    rate = protego.request_rate(user_agent)
    delays = [protego.crawl_delay(user_agent) or 0.0]
    if rate is not None and rate.requests > 0:
        delays.append(rate.seconds / rate.requests)
    longest = max(filter(math.isfinite, delays), default=0.0)
    return min(max(0.0, longest), MAX_WAIT_SECONDS)


# Key of a request's meta: whether it requests an image.
IS_IMAGE = "is_image"
# Key of a request's meta: whether it requests a page of posts.
IS_PAGE = "is_page"
DIRECTIVES = {"noai", "noimageai"}
# A page without these letters needs no parsing.
LETTERS = re.compile(rb"no(image)?ai|tdm-reservation", re.IGNORECASE)
# The file by which a host reserves text and data mining.
TDM_FILE = "/.well-known/tdmrep.json"


class NoAiMiddleware:
    """Ignore images whose owner forbids machine learning, and add a flag to responses of pages.

    The flags are `noai` and `tdm-reservation`.
    """

    def process_response(self, request: Request, response: Response) -> Response:
        """Check the headers and, of a web page, the meta elements.

        Raises:
            IgnoreRequest: The response is an image that must not be used.
        """
        reason = find_ai_opt_out(response)
        if reason is not None:
            if request.meta.get(IS_IMAGE):
                raise IgnoreRequest(reason)
            response.flags.append(reason)
        return response


class TdmReservationMiddleware:
    """Honour the file by which a host reserves text and data mining, as NoAiMiddleware does.

    It is read for shops and servers that the user names (`server_option`), and their photos. The
    other sites are known, and an API has its own terms.

    https://www.w3.org/community/reports/tdmrep/CG-FINAL-tdmrep-20240510/
    """

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._reservations: dict[str, Protego] = {}

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "TdmReservationMiddleware":
        """Create the middleware for a crawler."""
        return cls(crawler)

    async def process_request(self, request: Request) -> None:
        """Check an image against the reservations of its host.

        Raises:
            IgnoreRequest: It is reserved.
        """
        if request.meta.get(IS_IMAGE) and await self._is_reserved(request):
            raise IgnoreRequest(TDM_RESERVATION)

    async def process_response(self, request: Request, response: Response) -> Response:
        """Check a page against the reservations of its host."""
        if request.meta.get(IS_PAGE) and await self._is_reserved(request):
            response.flags.append(TDM_RESERVATION)
        return response

    async def _is_reserved(self, request: Request) -> bool:
        """Return whether the host of a request reserves its URL."""
        if getattr(self._crawler.spider, "server_option", None) is None:
            return False
        parts = urlparse_cached(request)
        root = f"{parts.scheme}://{parts.netloc}"
        async with self._locks[root]:
            if root not in self._reservations:
                self._reservations[root] = await self._load(root)
        return not self._reservations[root].can_fetch(urldefrag(request.url).url, "*")

    async def _load(self, root: str) -> Protego:
        """Return the reservations of a host as rules of robots.txt, whose patterns they have."""
        request = Request(root + TDM_FILE, meta={"download_maxsize": MAX_ROBOTS_TXT_BYTES})
        assert self._crawler.engine is not None
        try:
            response = await self._crawler.engine.download_async(request)
        except Exception:  # noqa: BLE001 - without the file, nothing is reserved
            return Protego.parse("")
        return Protego.parse(
            reservations_as_rules(response.body if response.status == 200 else b"")
        )


def reservations_as_rules(body: bytes) -> str:
    """Return the reserved locations of a tdmrep.json as rules of a robots.txt."""
    try:
        entries = json_objects(parse_json(body.decode("utf-8", "replace")))
    except (ValueError, RecursionError):
        return ""
    lines = ["User-agent: *"]
    for entry in entries:
        location = entry.get("location")
        if isinstance(location, str) and location.isprintable():
            is_reserved = str(entry.get("tdm-reservation")) == "1"
            lines.append(f"{'Disallow' if is_reserved else 'Allow'}: {location}")
    return "\n".join(lines)


def find_ai_opt_out(response: Response) -> str | None:
    """Return why a response must not be used for machine learning: a flag, or None."""
    headers = response.headers
    if any(_has_directive(value.decode("latin-1")) for value in headers.getlist("X-Robots-Tag")):
        return NOAI
    if headers.get("tdm-reservation", b"").strip() == b"1":
        return TDM_RESERVATION
    content_type = headers.get("Content-Type", b"")
    if b"html" not in content_type or not LETTERS.search(response.body):
        return None
    page = Selector(text=response.body.decode("utf-8", "replace"), type="html")
    for meta in page.css("meta[name][content]"):
        name, content = meta.attrib["name"].strip().lower(), meta.attrib["content"].strip()
        if name == "tdm-reservation" and content == "1":
            return TDM_RESERVATION
        if re.search("robot|bot$|tagger", name) and _has_directive(content):
            return NOAI
    return None


def _has_directive(value: str) -> bool:
    return bool(DIRECTIVES & set(re.split(r"[\s,:;]+", value.lower())))


# Too Many Requests, Service Unavailable, and what Shopify sends for too many requests.
BUSY_STATUSES = (429, 430, 503)
# Pause after a busy response that names none; it doubles with each further one.
FIRST_PAUSE_SECONDS, MAX_DOUBLINGS = 5, 6
# A longer pause ends the crawl of the site.
MAX_WAIT_SECONDS = 300
# Requests of the same URL in all while its host is busy.
MAX_ATTEMPTS = 4
ATTEMPT = "backoff_attempt"


class HostBackoffs:
    """The hosts that must not be requested for now.

    Args:
        sessions: The catalogue that stores pauses; None: they are kept in memory.
    """

    def __init__(self, sessions: Sessions | None = None) -> None:
        self._sessions = sessions
        self._busy: Counter[str] = Counter()
        self._until: dict[str, datetime] = {}
        # Host -> seconds between requests, and when the next one may be sent.
        self._intervals: dict[str, float] = {}
        self._next: dict[str, datetime] = {}
        if sessions is not None:
            with sessions() as session:
                for row in session.scalars(sa.select(HostBackoff)):
                    self._until[row.host] = row.until.replace(tzinfo=timezone.utc)

    def seconds_left(self, url: str) -> float:
        """Return how long the host of a URL must not be requested; 0 or less: it may be."""
        host = _host(url)
        times = [times[host] for times in (self._until, self._next) if host in times]
        return (max(times) - _now()).total_seconds() if times else 0

    def set_interval(self, url: str, seconds: float) -> None:
        """Set the time between requests of the host of a URL; a longer one stays."""
        host = _host(url)
        self._intervals[host] = max(seconds, self._intervals.get(host, 0))

    def reserve(self, url: str) -> float:
        """Return how many seconds a request has to wait, and let the next one wait for it."""
        host, left = _host(url), max(0.0, self.seconds_left(url))
        if host in self._intervals:
            self._next[host] = _now() + timedelta(seconds=left + self._intervals[host])
        return left

    def error(self, url: str) -> SiteRefused | None:
        """Return an error if the pause of the host of a URL is too long to wait for."""
        host = _host(url)
        seconds = (self._until[host] - _now()).total_seconds() if host in self._until else 0
        if seconds <= MAX_WAIT_SECONDS:
            return None
        return SiteRefused(
            f"{host} asked to be left alone until {self._until[host]:%Y-%m-%d %H:%M} UTC"
            f" and is not asked before; repeat the command {format_wait(round(seconds))}"
        )

    def record(self, url: str, status: int, headers: dict[str, str]) -> None:
        """Record the pause that a response asks for.

        Args:
            url: URL of the request.
            status: HTTP status.
            headers: Headers with lower-case names.
        """
        host, is_busy = _host(url), status in BUSY_STATUSES
        seconds = backoff_seconds(headers, _now(), is_busy)
        if is_busy:
            seconds = seconds or FIRST_PAUSE_SECONDS * 2 ** min(self._busy[host], MAX_DOUBLINGS)
            self._busy[host] += 1
        else:
            del self._busy[host]
        if seconds:
            self._pause(host, seconds)

    def _pause(self, host: str, seconds: int) -> None:
        until = _now() + timedelta(seconds=seconds)
        known = self._until.get(host)
        if known is not None and known >= until:
            return
        self._until[host] = until
        if self._sessions is not None:
            with self._sessions.begin() as session:
                session.merge(HostBackoff(host=host, until=until.replace(tzinfo=None)))


class BackoffMiddleware:
    """Record back-off times, and retry requests that busy hosts rejected (BUSY_STATUSES).

    The scheduler holds requests back until their host may be requested; those outside of it wait
    here.
    """

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "BackoffMiddleware":
        """Create the middleware for a crawler."""
        return cls(crawler)

    async def process_request(self, request: Request) -> None:
        """Wait until the host of a request may be requested.

        Raises:
            IgnoreRequest: The host asked for a pause that is too long; the message says until when.
        """
        backoffs = getattr(self._crawler.spider, "backoffs", None)
        if backoffs is None:
            return
        if (error := backoffs.error(request.url)) is not None:
            raise IgnoreRequest(error.message)
        if (seconds := backoffs.reserve(request.url)) > 0:
            await asyncio.sleep(seconds)

    def process_response(self, request: Request, response: Response) -> Response | Request:
        """Return the response, or the request again if its host is busy for a short time."""
        backoffs = getattr(self._crawler.spider, "backoffs", None)
        # The headers of a response from the cache are old.
        if backoffs is None or "cached" in response.flags:
            return response
        backoffs.record(request.url, response.status, unicode_headers(response))
        if response.status not in BUSY_STATUSES or backoffs.error(request.url) is not None:
            return response
        attempt = request.meta.get(ATTEMPT, 1)
        if attempt >= MAX_ATTEMPTS:
            return response
        return request.replace(meta={**request.meta, ATTEMPT: attempt + 1}, dont_filter=True)


# Key of a request's meta: whether several searches of a crawl read the same response.
IS_SHARED = "is_shared"
# Compressed bytes of the responses that are kept.
MAX_CACHED_BYTES = 64_000_000


class SharedListPolicy(DummyPolicy):
    """Cache lists of products that several searches read, for Scrapy's HttpCacheMiddleware."""

    def should_cache_request(self, request: Request) -> bool:
        """Return whether several searches read the response."""
        return bool(request.meta.get(IS_SHARED))

    def should_cache_response(self, response: Response, request: Request) -> bool:  # noqa: ARG002
        """Return whether a response will be the same for the next search."""
        return response.status < 500 and response.status not in BUSY_STATUSES


class SharedListStorage:
    """Keep responses in memory, compressed, until the spider is closed.

    Args:
        settings: Scrapy settings.
    """

    def __init__(self, settings: BaseSettings) -> None:  # noqa: ARG002
        self._responses: dict[str, Response] = {}
        self._bytes = 0

    def open_spider(self, spider: Spider) -> None:
        """Do nothing: there is no file to open."""

    def close_spider(self, spider: Spider) -> None:  # noqa: ARG002
        """Forget all responses."""
        self._responses.clear()

    def store_response(self, spider: Spider, request: Request, response: Response) -> None:  # noqa: ARG002
        """Keep a response unless there are too many already."""
        body = zlib.compress(response.body, 1)
        if self._bytes + len(body) <= MAX_CACHED_BYTES:
            self._bytes += len(body)
            self._responses[urldefrag(request.url).url] = response.replace(body=body, flags=[])

    def retrieve_response(self, spider: Spider, request: Request) -> Response | None:  # noqa: ARG002
        """Return a response with the URL of this request, whose fragment may differ."""
        response = self._responses.get(urldefrag(request.url).url)
        if response is None:
            return None
        return response.replace(url=request.url, body=zlib.decompress(response.body))


def unicode_headers(response: Response) -> dict[str, str]:
    """Return the headers of a response with lower-case names; equal names are joined by commas."""
    return {
        name.decode("latin-1").lower(): b",".join(values).decode("latin-1")
        for name, values in response.headers.items()
    }


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _host(url: str) -> str:
    host, port = host_and_port(url)
    return f"{host}:{port}"
