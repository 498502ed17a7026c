"""Reasons why images are rejected, and the reasons of failed downloads."""

from scrapy.exceptions import IgnoreRequest

from dataset.maintenance.takedown import REASON as TAKEN_DOWN
from scraper.decoding.inspection import BROKEN, POLYGLOT, TOO_MANY_PIXELS, TOO_SMALL
from scraper.download_handler import InvalidResponseError
from scraper.middlewares import NOAI, PRIVATE, SCHEME

ROBOTS_TXT, TOO_MANY_REDIRECTS, TOO_LARGE = "robots.txt", "too many redirects", "too large"
# An image rejected for one of these may be available at a new URL if its URL was signed.
GONE = ("HTTP 403", "HTTP 404", "HTTP 410")
# A repeated request would not change these.
FINAL = (TOO_SMALL, TOO_MANY_PIXELS, TOO_LARGE, POLYGLOT, PRIVATE, SCHEME, NOAI, TAKEN_DOWN)
# Part of a message of Scrapy's middlewares -> reason.
_IGNORED = {"robots": ROBOTS_TXT, "redirections": TOO_MANY_REDIRECTS, "exceeded": TOO_LARGE}
# Part of the name of an exception of Scrapy -> reason.
_NO_CONNECTION = {
    "Resolve": "host not found",
    "Refused": "nothing listens there",
    "DownloadFailed": "no answer that can be read",
    "InvalidResponse": "no answer that can be read",
}


def image_error_reason(error: BaseException) -> str:
    """Return why the download of an image failed; what is not valid HTTP is a broken image."""
    if isinstance(error, InvalidResponseError):
        return BROKEN
    return download_error_reason(error)


def download_error_reason(error: BaseException) -> str:
    """Return why a download failed, by the exception that Scrapy raised."""
    name, text = type(error).__name__, str(error)
    if isinstance(error, IgnoreRequest):
        # This project's middlewares give the reason; those of Scrapy give sentences.
        return next((reason for part, reason in _IGNORED.items() if part in text), text)
    if "Timeout" in name:
        return "timeout"
    if "certificate" in text:
        return "the certificate is not to be trusted"
    if "Cancel" in name:
        return TOO_LARGE
    if "DataLoss" in name:
        return "cut off"
    reason = next((reason for part, reason in _NO_CONNECTION.items() if part in name), name)
    return f"no connection ({reason})"
