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
from collections.abc import Iterable
from typing import Any
from urllib.request import getproxies

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
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
from scraper.middlewares import PRIVATE, HostRules

# Limits of a response's head; a browser accepts 256 kB in all.
MAX_HEADER_LINE_BYTES, MAX_HEADERS = 8190, 2_000
DNS_CACHE_SECONDS = 300


class InvalidResponseError(Exception):
    """A response is not valid HTTP, such as one with a longer body than announced."""


class CertificateError(DownloadFailedError):
    """The certificate of a server can't be verified."""


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
        allowed = [entry for entry in addresses if self._rules.allows_name(host, entry["host"])]
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
        proxies = [url for url in getproxies().values() if "://" in url]
        rules = HostRules.from_settings(settings, proxies)
        # Scrapy's downloader limits connections; certificates are always verified.
        connector = aiohttp.TCPConnector(
            resolver=PublicResolver(rules),
            limit=0,
            ttl_dns_cache=DNS_CACHE_SECONDS,
            ssl=ssl.create_default_context(),
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            max_line_size=MAX_HEADER_LINE_BYTES,
            max_field_size=MAX_HEADER_LINE_BYTES,
            max_headers=MAX_HEADERS,
        )

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
            CertificateError, DownloadFailedError: There is no response.
            InvalidResponseError: The response is not valid HTTP.
        """
        try:
            return await self._download(request)
        except (TimeoutError, asyncio.TimeoutError) as error:
            raise DownloadTimeoutError(f"{request.url}: no response in time") from error
        except aiohttp.ClientConnectorDNSError as error:
            if isinstance(error.os_error, PrivateAddressError):
                raise IgnoreRequest(PRIVATE) from error
            raise CannotResolveHostError(str(error)) from error
        except (UnicodeError, aiohttp.InvalidURL) as error:
            raise CannotResolveHostError(f"{request.url}: invalid host name") from error
        except aiohttp.ClientConnectorCertificateError as error:
            raise CertificateError(str(error)) from error
        except aiohttp.ClientConnectorError as error:
            raise DownloadConnectionRefusedError(str(error)) from error
        except aiohttp.ClientResponseError as error:
            cause = error.__cause__.__cause__ if error.__cause__ is not None else None
            if isinstance(cause, BadStatusLine):
                raise InvalidResponseError(first_line(error)) from error
            raise DownloadFailedError(first_line(error)) from error
        except aiohttp.ClientError as error:
            raise DownloadFailedError(first_line(error)) from error

    async def _download(self, request: Request) -> Response:
        timeout = request.meta.get("download_timeout", self._timeout)
        async with self._session.request(
            request.method,
            yarl.URL(request.url, encoded=True),
            data=request.body or None,
            headers=request.headers.to_tuple_list(),
            timeout=aiohttp.ClientTimeout(total=timeout),
            allow_redirects=False,
            proxy=request.meta.get("proxy"),
        ) as reply:
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


def _response(
    request: Request, reply: aiohttp.ClientResponse, headers: Headers, body: bytes
) -> Response:
    response_type = responsetypes.from_args(headers=headers, url=request.url, body=body)
    return response_type(
        url=request.url, status=reply.status, headers=headers, body=body, protocol="HTTP/1.1"
    )
