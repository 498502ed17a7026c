"""Reasons why images are rejected, and why downloads fail."""

from scrapy.exceptions import (
    CannotResolveHostError,
    DownloadCancelledError,
    DownloadConnectionRefusedError,
    DownloadFailedError,
    DownloadTimeoutError,
    IgnoreRequest,
    ResponseDataLossError,
)

from dataset.maintenance.takedown import REASON as TAKEN_DOWN
from scraper.decoding.inspection import BROKEN, POLYGLOT, TOO_MANY_PIXELS, TOO_SMALL

PRIVATE, SCHEME, NOAI = "private address", "neither http nor https", "noai"
# The owner reserves text and data mining, https://www.w3.org/community/reports/tdmrep/.
TDM_RESERVATION = "tdm-reservation"
TOO_MANY_REDIRECTS, TOO_LARGE = "too many redirects", "too large"
# robots.txt forbids a request; and the start of the reason why it could not be read.
ROBOTS_TXT, UNREADABLE = "robots.txt", "robots.txt: "
# An image rejected for one of these may be available at a new URL if its URL was signed.
GONE = ("HTTP 403", "HTTP 404", "HTTP 410")
# A repeated request would not change these.
FINAL = (
    *(TOO_SMALL, TOO_MANY_PIXELS, TOO_LARGE, POLYGLOT, PRIVATE, SCHEME),
    *(NOAI, TDM_RESERVATION, TAKEN_DOWN),
)
# Part of a message of Scrapy's middlewares -> reason.
_IGNORED = {"redirections": TOO_MANY_REDIRECTS, "exceeded": TOO_LARGE}


class InvalidResponseError(Exception):
    """A response is not valid HTTP, such as one with a longer body than announced."""


class CertificateError(DownloadFailedError):
    """The certificate of a server can't be verified."""


class ProxyError(DownloadFailedError):
    """The proxy can't be reached, or refuses a connection."""


# Exception of the download handler -> reason; the first match counts.
_REASONS: dict[type[Exception], str] = {
    DownloadTimeoutError: "timeout",
    CertificateError: "the certificate is not to be trusted",
    DownloadCancelledError: TOO_LARGE,
    ResponseDataLossError: "cut off",
    CannotResolveHostError: "no connection (host not found)",
    DownloadConnectionRefusedError: "no connection (nothing listens there)",
    ProxyError: "no connection (the proxy refuses it, or nothing listens there)",
    DownloadFailedError: "no connection (no answer that can be read)",
    InvalidResponseError: "no connection (no answer that can be read)",
}


def image_error_reason(error: BaseException) -> str:
    """Return why the download of an image failed; what is not valid HTTP is a broken image."""
    if isinstance(error, InvalidResponseError):
        return BROKEN
    return download_error_reason(error)


def download_error_reason(error: BaseException) -> str:
    """Return why a download failed, by the exception that Scrapy raised."""
    if isinstance(error, IgnoreRequest):
        # This project's middlewares give the reason; those of Scrapy give sentences.
        text = str(error)
        return next((reason for part, reason in _IGNORED.items() if part in text), text)
    reasons = (reason for kind, reason in _REASONS.items() if isinstance(error, kind))
    return next(reasons, "no connection (unexpected error)")
