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


class CredentialsMissing(BadInput):
    """The site wants a key or token that was not given."""
