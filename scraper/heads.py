"""Answers whose headers never end: Scrapy bounds bodies, and not what comes before them."""

from typing import Any

from scrapy.core.downloader.handlers import http11
from twisted.web._newclient import BODY, DONE

# What a browser takes at most.
LARGEST_HEAD = 256_000


class _Protocol(http11._LenientHTTP11ClientProtocol):
    """A connection that is given up where an answer does not come to its body."""

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
    """Scrapy's own handler, on such connections."""

    def __init__(self, crawler: Any) -> None:
        super().__init__(crawler)
        self._pool._factory = _Factory
        # The next request begins a moment before the last one's connection is free: it is not to be
        # closed for one too many, or there would be a new one every few photos.
        self._pool.maxPersistentPerHost *= 2
