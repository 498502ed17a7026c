"""Why a search could not go on."""

from dataset.errors import BadInput, Failure


class LayoutChanged(Failure):
    """A page should hold posts, and what makes a post was not found in it."""

    def __init__(self, what: str, url: str) -> None:
        super().__init__(
            f"layout changed: {what} ({url}). The site may have a new design: upgrade"
            " fashion-tagger, or report this with the page's source"
        )


class SiteRefused(Failure):
    """The site (its robots.txt, its guard, its limits) does not answer what we ask."""


class NotNow(SiteRefused):
    """The site says that there are posts and sends none: the same page is worth another try."""


class CircleOfPages(Failure):
    """A search's pages come back, so that nobody knows whether all were seen."""

    def __init__(self, hashtag: str, pages: int) -> None:
        super().__init__(
            f"circle of pages: after {pages} pages of {hashtag!r} only known ones come; what was"
            " found until then is kept. There may be more: try again on another day"
        )


class CredentialsMissing(BadInput):
    """The site wants a key or token that was not given."""
