"""A download handler for HTTP over aiohttp, with limits against hostile servers.

It connects to public addresses only: each name is checked when it is resolved, and the connection
goes to the checked address, so a name that resolves differently the second time (DNS rebinding)
gains nothing. Response headers are limited in size and number; Scrapy's own handler reads them
without a limit, and Twisted has no public interface to set one.

https://docs.scrapy.org/en/latest/topics/download-handlers.html
https://docs.aiohttp.org/en/stable/client_advanced.html#custom-connection-resolver
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.helpers import is_ip_address
from aiohttp.http_exceptions import BadStatusLine
from aiohttp.resolver import ThreadedResolver
from scrapy import Request, signals
from scrapy.crawler import Crawler
from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadCancelledError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
    IgnoreRequest,
    ResponseDataLossError,
    StopDownload,
)
from scrapy.http import Headers, Response
from scrapy.responsetypes import responsetypes
from twisted.python.failure import Failure

from dataset.errors import first_line
from scraper.items import PRIVATE, CertificateError, InvalidResponseError, ProxyError
from scraper.middlewares import DEFAULT_PORTS, HostRules

# Limits of a response's head; a browser accepts 256 kB in all.
MAX_HEADER_LINE_BYTES, MAX_HEADERS = 8190, 2_000
DNS_CACHE_SECONDS = 300
PROXY_AUTHORIZATION = "Proxy-Authorization"
# Ends of names that only private networks have (RFC 6761, RFC 6762, RFC 8375 and custom).
PRIVATE_SUFFIXES = (
    *(".local", ".localhost", ".internal", ".home.arpa"),
    *(".lan", ".home", ".corp", ".intranet", ".private"),
)


class PrivateAddressError(OSError):
    """A host name resolves to private addresses only."""


class PublicResolver(AbstractResolver):
    """Resolve host names to public addresses, unless the user named the host.

    Args:
        rules: The hosts that may have private addresses.
    """

    def __init__(self, rules: HostRules) -> None:
        self._rules, self._resolver = rules, ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the allowed addresses of a host.

        Raises:
            PrivateAddressError: It has private addresses only.
        """
        addresses = await self._resolver.resolve(host, port, family)
        allowed = [
            entry for entry in addresses if self._rules.allows_name(host, port, entry["host"])
        ]
        if addresses and not allowed:
            raise PrivateAddressError(f"{host} has a private address")
        return allowed

    async def close(self) -> None:
        """Release nothing: the resolver holds no resources."""


class AiohttpDownloadHandler:
    """Download over HTTP/1.1, as Scrapy's download handlers do.

    Sends the signals `headers_received` and `bytes_received`, and respects `DOWNLOAD_TIMEOUT`,
    `DOWNLOAD_MAXSIZE`, `DOWNLOAD_FAIL_ON_DATALOSS` and the proxy of a request.
    """

    lazy = True

    def __init__(self, crawler: Crawler) -> None:
        settings = crawler.settings
        self._signals, self._crawler = crawler.signals, crawler
        self._timeout = settings.getfloat("DOWNLOAD_TIMEOUT")
        self._max_bytes = settings.getint("DOWNLOAD_MAXSIZE")
        self._fail_on_loss = settings.getbool("DOWNLOAD_FAIL_ON_DATALOSS")
        self._resolver = PublicResolver(HostRules.from_settings(settings))
        # Reading the system's certificates takes time.
        context = ssl.create_default_context()
        self._session = _session(self._resolver, context)
        # A proxy may have a private address.
        self._proxied_session = _session(ThreadedResolver(), context)
        # Hosts and ports that may be requested through a proxy.
        self._checked: set[tuple[str, int]] = set()

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> "AiohttpDownloadHandler":
        """Create the handler for a crawler."""
        return cls(crawler)

    async def download_request(self, request: Request) -> Response:
        """Return the response to a request.

        Raises:
            IgnoreRequest: The host has a private address.
            DownloadCancelledError: The response is larger than the limit.
            ResponseDataLossError: The response is shorter than announced.
            DownloadTimeoutError, CannotResolveHostError, DownloadConnectionRefusedError,
            CertificateError, ProxyError, DownloadFailedError: There is no response.
            InvalidResponseError: The response is not valid HTTP.
        """
        try:
            return await self._download(request)
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, UnicodeError) as error:
            raise _scrapy_error(error, request.url) from error

    async def _check_proxied(self, url: yarl.URL) -> None:
        """Check the host of a request through a proxy, which resolves the name by itself.

        Raises:
            PrivateAddressError: It has a private address, or only a private network has its name.
        """
        host, port = url.raw_host or "", url.port or DEFAULT_PORTS["http"]
        if (host, port) in self._checked or is_ip_address(host):
            # Addresses are checked by the middleware.
            return
        try:
            await self._resolver.resolve(host, port, socket.AF_UNSPEC)
        except PrivateAddressError:
            raise
        except OSError as error:
            # Behind a proxy, public names often can't be resolved.
            if "." not in host or host.endswith(PRIVATE_SUFFIXES):
                raise PrivateAddressError(f"{host} is a name of a private network") from error
        self._checked.add((host, port))

    async def _download(self, request: Request) -> Response:
        url, proxy = yarl.URL(request.url, encoded=True), request.meta.get("proxy")
        headers, proxy_headers = request.headers.copy(), None
        if proxy:
            await self._check_proxied(url)
            if url.scheme == "https" and (values := headers.pop(PROXY_AUTHORIZATION, None)):
                # For the proxy only, which opens a tunnel to the site.
                proxy_headers = {PROXY_AUTHORIZATION: values[-1].decode("latin-1")}
        timeout, start = request.meta.get("download_timeout", self._timeout), time.monotonic()
        async with (self._proxied_session if proxy else self._session).request(
            request.method,
            url,
            data=request.body or None,
            headers=headers.to_tuple_list(),
            timeout=aiohttp.ClientTimeout(total=timeout),
            allow_redirects=False,
            proxy=proxy,
            proxy_headers=proxy_headers,
        ) as reply:
            # AutoThrottle adapts the delay to it.
            request.meta["download_latency"] = time.monotonic() - start
            headers = Headers(
                [(name.decode("latin-1"), value) for name, value in reply.raw_headers]
            )
            stop = self._send(signals.headers_received, headers=headers, request=request)
            chunks: list[bytes] = []
            if stop is None:
                stop = await self._read(request, reply, chunks)
        response = _response(request, reply, headers, b"".join(chunks))
        if stop is not None:
            response.flags.append("download_stopped")
            if stop.fail:
                stop.response = response
                raise stop
        return response

    async def _read(
        self, request: Request, reply: aiohttp.ClientResponse, chunks: list[bytes]
    ) -> StopDownload | None:
        """Read the body, as far as no component stops the download."""
        limit = request.meta.get("download_maxsize", self._max_bytes)
        if limit and (reply.content_length or 0) > limit:
            raise DownloadCancelledError(f"{request.url}: larger than {limit} bytes")
        size = 0
        try:
            async for chunk in reply.content.iter_any():
                chunks.append(chunk)
                size += len(chunk)
                if limit and size > limit:
                    raise DownloadCancelledError(f"{request.url}: larger than {limit} bytes")
                if stop := self._send(signals.bytes_received, data=chunk, request=request):
                    return stop
        except aiohttp.ClientPayloadError as error:
            if request.meta.get("download_fail_on_dataloss", self._fail_on_loss):
                raise ResponseDataLossError(str(error)) from error
        return None

    def _send(self, signal: object, **arguments: Any) -> StopDownload | None:
        """Send a signal, and return the first request of a receiver to stop the download."""
        results: Iterable[Any] = self._signals.send_catch_log(
            signal, spider=self._crawler.spider, dont_log=StopDownload, **arguments
        )
        failures = (result for _, result in results if isinstance(result, Failure))
        return next((f.value for f in failures if isinstance(f.value, StopDownload)), None)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()
        await self._proxied_session.close()


def _session(resolver: AbstractResolver, context: ssl.SSLContext) -> aiohttp.ClientSession:
    # Scrapy's downloader limits connections; certificates are always verified.
    connector = aiohttp.TCPConnector(
        resolver=resolver,
        limit=0,
        ttl_dns_cache=DNS_CACHE_SECONDS,
        ssl=context,
    )
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        max_line_size=MAX_HEADER_LINE_BYTES,
        max_field_size=MAX_HEADER_LINE_BYTES,
        max_headers=MAX_HEADERS,
    )


# Error of aiohttp -> Scrapy's; the first match counts.
_ERRORS: tuple[tuple[type[BaseException], type[Exception]], ...] = (
    (TimeoutError, DownloadTimeoutError),
    (asyncio.TimeoutError, DownloadTimeoutError),
    (aiohttp.ClientConnectorDNSError, CannotResolveHostError),
    (aiohttp.InvalidURL, CannotResolveHostError),
    (UnicodeError, CannotResolveHostError),
    (aiohttp.ClientProxyConnectionError, ProxyError),
    (aiohttp.ClientHttpProxyError, ProxyError),
    (aiohttp.ClientConnectorCertificateError, CertificateError),
    (aiohttp.ClientConnectorError, DownloadConnectionRefusedError),
    (Exception, DownloadFailedError),
)


def _scrapy_error(error: Exception, url: str) -> Exception:
    """Return the exception that a download handler of Scrapy raises for an error."""
    cause: BaseException | None = (
        error.os_error if isinstance(error, aiohttp.ClientConnectorDNSError) else error
    )
    if isinstance(cause, PrivateAddressError):
        return IgnoreRequest(PRIVATE)
    if isinstance(error, aiohttp.ClientResponseError) and error.__cause__ is not None:
        cause = error.__cause__.__cause__
    kind = next(kind for old, kind in _ERRORS if isinstance(error, old))
    if isinstance(cause, BadStatusLine):
        kind = InvalidResponseError
    return kind(f"{url}: {first_line(error)}")


def _response(
    request: Request, reply: aiohttp.ClientResponse, headers: Headers, body: bytes
) -> Response:
    response_type = responsetypes.from_args(headers=headers, url=request.url, body=body)
    return response_type(
        url=request.url, status=reply.status, headers=headers, body=body, protocol="HTTP/1.1"
    )
