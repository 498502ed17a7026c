"""What every site's spider is: how to ask, how to read. Nothing here knows Scrapy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import urlsplit, urlunsplit

from dataset.errors import BadInput
from scraper.credentials import Credential, require

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Photo:
    """A photo's address in the largest size, and what to ask when it is not there.

    `key`: what stays the same where addresses are signed or move, unlike within the site.
    """

    url: str
    fallbacks: tuple[str, ...] = ()
    key: str | None = None


@dataclass(frozen=True)
class Post:
    """A product or post as a page of the site shows it; `record` is the site's own, for later.

    `hashtags` stand in its caption; those of `title` are found by themselves. `attributes`: words
    of the shop's own, such as colour and category.
    """

    site_id: str
    url: str
    photos: tuple[Photo, ...]
    title: str | None = None
    brand: str | None = None
    price: float | None = None
    currency: str | None = None
    author: str | None = None
    posted: datetime | None = None
    hashtags: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """What one page of a search holds. No `next_cursor`: it was the last one.

    `later_cursor`: where a later run of the finished search begins. `skipped`: reason -> posts that
    are left out, such as videos. `reason`: why no photo of the page may be taken.
    """

    posts: tuple[Post, ...]
    next_cursor: str | None = None
    total: int | None = None
    later_cursor: str | None = None
    skipped: Mapping[str, int] = field(default_factory=dict)
    reason: str | None = None

    def as_last(self) -> "Page":
        """The same without a way on."""
        return replace(self, next_cursor=None)


@dataclass(frozen=True)
class Ask:
    """A request to make. `of_stranger`: no cookie is kept or sent."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict)
    of_stranger: bool = False


@dataclass(frozen=True)
class Answer:
    """A response: status, body, and headers with lower-case names."""

    status: int
    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True)
class Check:
    """A question of `crawl SITE --check`: its name, what to ask, and what a good answer says."""

    name: str
    ask: Ask
    say: Callable[[bytes], str]


@dataclass(frozen=True)
class Setting:
    """What `--set NAME=VALUE` may change. `choices`: all there are; none: any text."""

    default: str
    what: str
    choices: tuple[str, ...] = ()


class HashtagSpider:
    """A site. A subclass `Spider` in `scraper/spiders/<site>.py` is found by its file's name.

    The file also has `read(body: bytes, url: str) -> Page`, a pure function that raises
    LayoutChanged when the page should hold posts and they can't be found.
    """

    title: ClassVar[str]
    needs: ClassVar[str]
    limits: ClassVar[str]
    checked: ClassVar[str]
    site_url: ClassVar[str]
    image_url: ClassVar[str]
    # Environment variables, named SITE_WHAT.
    credentials: ClassVar[tuple[Credential, ...]] = ()
    settings: ClassVar[Mapping[str, Setting]] = {}
    # A later run of a finished search asks for what is new since, instead of nothing.
    renews: ClassVar[bool] = False
    # Different hashtags that an account may ask for in seven days.
    weekly_hashtags: ClassVar[int | None] = None
    # What the site means by redirects that never end, where that is known.
    circles: ClassVar[str | None] = None
    # Where posts cost money: for what, and at most how many US dollars each.
    charged: ClassVar[str | None] = None
    dollars: ClassVar[float] = 0.0
    # Settings of the search of `--check`, where it would cost more than a look is worth.
    frugal: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        site_url: str | None = None,
        image_url: str | None = None,
        credentials: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.asked_url = (site_url or self.site_url).rstrip("/")
        self.asked_image_url = (image_url or self.image_url).rstrip("/")
        # What the user named may lie in the user's own network, as a mirror does.
        self.named = tuple(url for url in (site_url, image_url) if url)
        self.secrets = dict(credentials or {})
        self.chosen = {name: one.default for name, one in self.settings.items()}
        for name, value in (settings or {}).items():
            self._choose(name, value)

    def _choose(self, name: str, value: str) -> None:
        known = self.settings.get(name)
        if known is None:
            names = ", ".join(self.settings) or "none"
            raise BadInput(f"--set {name}: {self.title} has no such setting; it has: {names}")
        if known.choices and value not in known.choices:
            raise BadInput(f"--set {name}={value}: choose from {', '.join(known.choices)}")
        self.chosen[name] = value

    def ready(self) -> None:
        """Nothing, when all that the site wants to know was given.

        Raises:
            CredentialsMissing: a required credential was not.
            BadInput: a token would go unencrypted over a network.
        """
        require(self.secrets, self.credentials, self.title)
        parts = urlsplit(self.asked_url)
        if self.secrets and parts.scheme != "https" and parts.hostname not in LOOPBACK:
            raise BadInput(
                f"--site-url {self.asked_url}: tokens are sent over https only; write https://"
            )

    def queries(self, words: Sequence[str]) -> Sequence[tuple[str, ...]]:
        """WORDS as searches: those that one search can ask for together."""
        return [(word,) for word in words]

    def search_request(self, query: str, cursor: str | None) -> Ask:
        """What to ask for QUERY: its first page, or the one that CURSOR leads to.

        QUERY is a word, or several with " OR " between, as `queries` put them together.
        """
        raise NotImplementedError

    def read(self, body: bytes, url: str) -> Page:
        """The page BODY that came from URL."""
        raise NotImplementedError

    def readable(self, answer: Answer) -> bool:
        """Whether ANSWER is for `read`; an API may say "nothing found" with another status."""
        return answer.status == 200

    def refusal(self, answer: Answer) -> str | None:
        """What the site means by ANSWER, no 200, when that is known; None otherwise."""
        return None

    def image_request(self, url: str) -> Ask:
        """How to ask for the photo URL; a mirror has the paths of all the site's photo hosts.

        The original host is sent in X-Forwarded-Host, as to a proxy.
        """
        if self.asked_image_url == self.image_url:
            return Ask(url)
        parts = urlsplit(url)
        mirrored = self.asked_image_url + urlunsplit(("", "", parts.path, parts.query, ""))
        return Ask(mirrored, {"X-Forwarded-Host": parts.netloc})

    def set_up_request(self) -> Ask | None:
        """What to ask once before all else, for `set_up`; a crawl goes on without an answer."""
        return None

    def set_up(self, body: bytes) -> None:
        """Learn from the answer to `set_up_request`."""

    def post_request(self, site_id: str) -> Ask | None:
        """How to ask for one post again, whose photos' addresses have expired, for `read`."""
        return None

    def count_request(self, query: str) -> Ask | None:
        """How to ask what QUERY would find without reading it; None: the first page says it."""
        return None

    def count(self, body: bytes, url: str) -> int | None:
        """How many posts the answer to `count_request` speaks of."""
        return self.read(body, url).total

    def count_more(self, body: bytes, url: str) -> Ask | None:
        """How to ask for the rest of a count that comes in pieces; None: this was the last."""
        return None

    def left(self, answer: Answer) -> str | None:
        """What is left of a limit after ANSWER, where its headers say that."""
        return None

    def checks(self) -> Sequence[Check]:
        """What to ask to know whose credentials these are and what is left of their limits."""
        return ()
