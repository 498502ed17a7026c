"""Which network addresses may be asked: public ones, and those that the user named.

Photos' addresses and redirects come from strangers: they must not lead into the user's own network.
A name is checked when it is looked up, and what was checked is what is connected to, so that a name
that answers differently the second time (DNS rebinding) gains nothing.
"""

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

from scrapy.exceptions import IgnoreRequest
from scrapy.resolver import CachingThreadedResolver
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError

PRIVATE, SCHEME = "private address", "neither http nor https"
# The settings that hold what the user allows: everything, or hosts with their ports.
ALLOW_ALL, ALLOWED = "ALLOW_PRIVATE_HOSTS", "ALLOWED_HOSTS"
# How Twisted names what it could not look up.
LOOKED_UP = re.compile(r"hostname lookup: (\S+)\.(\s|$)")
PORTS = {"http": 80, "https": 443}


def is_public(address: str) -> bool:
    """Whether ADDRESS, an IPv4 or IPv6 address, is one of the internet at large."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if inner:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def host_and_port(url: str) -> tuple[str, int]:
    """The host of URL, in small letters, and its port.

    Raises:
        ValueError: URL has none.
    """
    parts = urlsplit(url)
    port = parts.port or PORTS.get(parts.scheme)
    if not parts.hostname or not port:
        raise ValueError(f"no host in {url!r}")
    return parts.hostname, port


class PublicOnly:
    """Scrapy's downloader middleware that ignores requests of private addresses, redirects too."""

    def __init__(self, settings: Any) -> None:
        self.all = settings.getbool(ALLOW_ALL)
        self.allowed = {host_and_port(url) for url in settings.getlist(ALLOWED)}

    @classmethod
    def from_crawler(cls, crawler: Any) -> "PublicOnly":
        """As Scrapy makes it."""
        return cls(crawler.settings)

    def process_request(self, request: Any) -> None:
        """Nothing for a request that may be made.

        Raises:
            IgnoreRequest: it may not.
        """
        if urlsplit(request.url).scheme not in PORTS:
            raise IgnoreRequest(SCHEME)
        try:
            host, port = host_and_port(request.url)
            private = not is_public(host)
        except ValueError:
            # A name: the resolver sees what it stands for.
            return
        if private and not self.all and (host, port) not in self.allowed:
            raise IgnoreRequest(PRIVATE)


class PublicResolver(CachingThreadedResolver):
    """Looks names up, and takes private addresses for none unless the user named the host."""

    # Names that were found to be private: all that the library tells of a failure is the name.
    private: set[str] = set()  # noqa: RUF012 - one for the process, as Scrapy's cache of names
    allows: Any = staticmethod(lambda _name: False)

    @classmethod
    def from_crawler(cls, crawler: Any, reactor: Any) -> "PublicResolver":
        """As Scrapy makes it."""
        made = super().from_crawler(crawler, reactor)
        allowed = {host_and_port(url)[0] for url in crawler.settings.getlist(ALLOWED)}
        everything = crawler.settings.getbool(ALLOW_ALL)
        made.allows = lambda name: everything or name in allowed
        return made

    def getHostByName(self, name: str, timeout: Any = ()) -> "Deferred[str]":  # noqa: N802
        """The address of NAME; a DNSLookupError where that is private."""
        return super().getHostByName(name, timeout).addCallback(self._checked, name)

    def _checked(self, address: str, name: str) -> str:
        if is_public(address) or self.allows(name.lower()):
            return address
        self.private.add(name)
        raise DNSLookupError(f"{name} is a {PRIVATE}")


def is_private_failure(error: Exception) -> bool:
    """Whether ERROR, of a look-up, came of a name that stands for a private address."""
    told = LOOKED_UP.search(f"{error} {error.__cause__}")
    return told is not None and told[1] in PublicResolver.private
