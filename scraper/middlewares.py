"""Downloader middlewares: public addresses, robots.txt, noai and back-off."""

import asyncio
import ipaddress
import re
import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from urllib.parse import urlsplit

import sqlalchemy as sa
from parsel import Selector
from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.downloadermiddlewares.robotstxt import RobotsTxtMiddleware
from scrapy.exceptions import IgnoreRequest
from scrapy.http import Response
from scrapy.robotstxt import RobotParser
from scrapy.settings import BaseSettings
from scrapy.utils.httpobj import urlparse_cached

from dataset.catalogue.models import HostBackoff
from dataset.catalogue.session import Sessions
from scraper.errors import SiteRefused
from scraper.parsing.fields import format_wait
from scraper.parsing.rate_limits import backoff_seconds

PRIVATE, SCHEME = "private address", "neither http nor https"
# Settings: whether all hosts may be private, and URLs whose hosts may.
ALLOW_PRIVATE_HOSTS, ALLOWED_HOSTS = "ALLOW_PRIVATE_HOSTS", "ALLOWED_HOSTS"
DEFAULT_PORTS = {"http": 80, "https": 443}


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
        embedded = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if embedded:
            return is_public(str(embedded))
    return ip.is_global and not ip.is_multicast


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
    def from_settings(cls, settings: BaseSettings, urls: Iterable[str] = ()) -> "HostRules":
        """Read the rules from the settings; the hosts of `urls` are allowed, too."""
        named = (*settings.getlist(ALLOWED_HOSTS), *urls)
        return cls(settings.getbool(ALLOW_PRIVATE_HOSTS), frozenset(map(host_and_port, named)))

    def allows_url(self, url: str) -> bool:
        """Return whether a URL may be requested; names are checked when they are resolved."""
        try:
            host, port = host_and_port(url)
            return is_public(host) or self.allow_all or (host, port) in self.allowed
        except ValueError:
            return True

    def allows_name(self, name: str, address: str) -> bool:
        """Return whether a host name may resolve to an address."""
        if self.allow_all or name.lower() in {host for host, _ in self.allowed}:
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


class ObeyRobotsTxt(RobotsTxtMiddleware):
    """Scrapy's middleware, for requests that wait for one robots.txt at the same time.

    Scrapy 2.19 gives its rules to the first waiting request only and allows all others,
    because `Deferred.asFuture` replaces the result by None:
    https://docs.twisted.org/en/stable/api/twisted.internet.defer.Deferred.html#asFuture

    Requests with a token are excluded: robots.txt addresses crawlers of pages, and whoever has an
    API's token has agreed to its terms instead.
    """

    def __init__(self, crawler: Crawler) -> None:
        super().__init__(crawler)
        self._locks: dict[str, asyncio.Lock] = {}

    async def process_request(self, request: Request) -> None:
        """Check a request against robots.txt.

        Raises:
            IgnoreRequest: robots.txt forbids it.
        """
        if "Authorization" not in request.headers:
            await super().process_request(request)

    async def robot_parser(self, request: Request) -> RobotParser | None:
        """Return the rules for a request; None if the host has none."""
        host = urlparse_cached(request).netloc
        async with self._locks.setdefault(host, asyncio.Lock()):
            return await super().robot_parser(request)


NOAI = "noai"
# Key of a request's meta: whether it requests an image.
IS_IMAGE = "is_image"
DIRECTIVES = {"noai", "noimageai"}
# A page without these letters needs no parsing.
LETTERS = re.compile(rb"no(image)?ai", re.IGNORECASE)


class NoAiMiddleware:
    """Ignore images with the directive, and add the flag `noai` to responses of pages."""

    def process_response(self, request: Request, response: Response) -> Response:
        """Check the header and, of a web page, the meta elements.

        Raises:
            IgnoreRequest: The response is an image that must not be used.
        """
        if forbids_ai(response):
            if request.meta.get(IS_IMAGE):
                raise IgnoreRequest(NOAI)
            response.flags.append(NOAI)
        return response


def forbids_ai(response: Response) -> bool:
    """Return whether a response must not be used for machine learning."""
    if any(
        _has_directive(value.decode("latin-1"))
        for value in response.headers.getlist("X-Robots-Tag")
    ):
        return True
    content_type = response.headers.get("Content-Type", b"")
    if b"html" not in content_type or not LETTERS.search(response.body):
        return False
    page = Selector(text=response.body.decode("utf-8", "replace"), type="html")
    return any(
        _has_directive(meta.attrib.get("content", ""))
        for meta in page.css("meta[name][content]")
        if re.search("robot|bot$|tagger", meta.attrib["name"], re.IGNORECASE)
    )


def _has_directive(value: str) -> bool:
    return bool(DIRECTIVES & set(re.split(r"[\s,:;]+", value.lower())))


# Too Many Requests, and Service Unavailable.
BUSY_STATUSES = (429, 503)
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
        if sessions is not None:
            with sessions() as session:
                for row in session.scalars(sa.select(HostBackoff)):
                    self._until[row.host] = row.until.replace(tzinfo=timezone.utc)

    def seconds_left(self, url: str) -> float:
        """Return how long the host of a URL must not be requested; 0 or less: it may be."""
        until = self._until.get(_host(url))
        return (until - _now()).total_seconds() if until else 0

    def error(self, url: str) -> SiteRefused | None:
        """Return an error if the pause of the host of a URL is too long to wait for."""
        seconds, host = self.seconds_left(url), _host(url)
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
    """Record pauses, and schedule requests of busy hosts again.

    The scheduler holds requests back until their host may be requested.
    """

    def __init__(self, crawler: Crawler) -> None:
        self._crawler = crawler

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "BackoffMiddleware":
        """Create the middleware for a crawler."""
        return cls(crawler)

    def process_request(self, request: Request) -> None:
        """Refuse a request whose host asked for a pause that is too long to wait for.

        Raises:
            IgnoreRequest: It did; the message says until when.
        """
        backoffs = getattr(self._crawler.spider, "backoffs", None)
        error = backoffs.error(request.url) if backoffs is not None else None
        if error is not None:
            raise IgnoreRequest(error.message)

    def process_response(self, request: Request, response: Response) -> Response | Request:
        """Return the response, or the request again if its host is busy for a short time."""
        backoffs = getattr(self._crawler.spider, "backoffs", None)
        if backoffs is None:
            return response
        backoffs.record(request.url, response.status, unicode_headers(response))
        if response.status not in BUSY_STATUSES or backoffs.error(request.url) is not None:
            return response
        attempt = request.meta.get(ATTEMPT, 1)
        if attempt >= MAX_ATTEMPTS:
            return response
        return request.replace(meta={**request.meta, ATTEMPT: attempt + 1}, dont_filter=True)


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
