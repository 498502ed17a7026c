"""Errors that end a search."""

from urllib.parse import urldefrag

from dataset.errors import BadInput, Failure, first_line

# End of messages of a crawl that can be continued.
CONTINUE = "repeat the command to continue from here"


def sent_url(url: str) -> str:
    """Return a URL as it is sent: without its fragment, in which spiders keep their own values."""
    return urldefrag(url).url


class LayoutChanged(Failure):
    """A response lacks fields that a page of posts has.

    Args:
        problem: What is missing or invalid.
        url: URL of the page.
    """

    def __init__(self, problem: str, url: str) -> None:
        super().__init__(
            f"layout changed: {problem} ({sent_url(url)}). The site may have a new design: upgrade"
            " fashion-tagger, or report this with the page's source"
        )


class SiteRefused(Failure):
    """The site rejects a request, by its robots.txt, bot protection, rate limit or an error."""


class TemporarilyEmpty(SiteRefused):
    """The site reports posts but sends none; repeating the request may succeed."""


class CircularPaging(Failure):
    """The pages of a search repeat, so the search may be incomplete.

    Args:
        hashtag: The searched hashtag.
        pages: Number of pages read.
    """

    def __init__(self, hashtag: str, pages: int) -> None:
        super().__init__(
            f"pagination loop: after {pages} pages of {hashtag!r} the site repeats earlier pages;"
            " the posts found so far are kept. There may be more: try again on another day"
        )


class UnexpectedError(Failure):
    """A defect of this program or of a component; it ends one search, not the crawl.

    Args:
        action: What failed, such as "saving a page".
        error: The unexpected exception.
    """

    def __init__(self, action: str, error: BaseException) -> None:
        super().__init__(
            f"unexpected error: {action} failed ({type(error).__name__}: {first_line(error)});"
            " report it with the output of --verbose"
        )


class CredentialsMissing(BadInput):
    """A key or token that the site requires is not set."""
