"""The base class of spiders that search a site for hashtags, and the list of all sites.

Each module of `scraper.spiders` but this one is a site with its spider.
"""

import asyncio
import contextlib
import importlib
import re
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit, urlunsplit

import scrapy
from scrapy import Request
from scrapy.crawler import Crawler
from scrapy.http import Response
from scrapy.settings import BaseSettings
from twisted.python.failure import Failure as TwistedFailure

from dataset.errors import BadInput, Failure, first_line
from scraper.crawl.searches import CrawlLimits, Search, SearchPlanner
from scraper.credentials import Credential, check_required, load_credentials, redact, redact_posts
from scraper.decoding.inspection import RejectedImage
from scraper.errors import CONTINUE, LayoutChanged, SiteRefused, TemporarilyEmpty, sent_url
from scraper.items import (
    GONE,
    ROBOTS_TXT,
    TDM_RESERVATION,
    TOO_MANY_REDIRECTS,
    UNREADABLE,
    Credit,
    ImageItem,
    Page,
    PageItem,
    Photo,
    Post,
    download_error_reason,
    image_error_reason,
)
from scraper.middlewares import ALLOWED_HOSTS, IS_IMAGE, IS_PAGE, IS_SHARED, NOAI, HostBackoffs
from scraper.parsing.fields import http_url, parse_since
from scraper.persistence import frontier
from scraper.persistence.claims import PendingImage
from scraper.settings import add_protected_components, check_protected_settings, user_agent

if TYPE_CHECKING:
    from scraper.crawl.runner import CrawlContext

LOOPBACK = ("127.0.0.1", "localhost", "::1")
FORBIDDEN = (
    "the site's robots.txt forbids it; ask the site's owner for permission, or crawl another site"
    " (crawl --list)"
)
# URL of a server: a host or IPv6 address, and perhaps a port and a path.
SERVER = re.compile(r"https?://(?:[\w.-]+|\[[0-9a-fA-F:.]+\])(?::\d+)?(?:/[^?#]*)?")
# Detail pages that are kept for the other searches of a run.
MAX_CACHED_DETAILS = 20_000
# Reasons why detail pages are skipped.
UNREADABLE_PAGES, NO_POSTS = "pages that can't be read", "pages without a product"
# Requests of `set_up` in all; no spider needs more.
MAX_SETUP_REQUESTS = 5
# Seconds to wait before a page is requested again that announced posts and had none.
EMPTY_PAGE_PAUSES, EMPTY_PAGES = (1, 4, 10), "empty_pages"

__all__ = ["Access", "Check", "Credit", "HashtagSpider", "Page", "Photo", "Post", "SiteOption"]
FOLDER = Path(__file__).parent


class Access(Enum):
    """What a user needs to crawl a site; `crawl --list` sorts sites in this order."""

    NOTHING = "nothing"
    CONTACT = "a contact"
    SERVER = "the address of a shop or server"
    KEY = "a free key or token"
    APPROVAL = "paid or approved access"


@dataclass(frozen=True)
class Check:
    """A request of `crawl SITE --check`.

    Attributes:
        name: Name of the check.
        request: The request.
        describe: Returns what the body of a good response reports.
    """

    name: str
    request: Request
    describe: Callable[[bytes], str]


@dataclass(frozen=True)
class SiteOption:
    """An option of a site: `--set NAME=VALUE`.

    Attributes:
        default: Default value.
        help: Description.
        choices: Allowed values; empty: any text.
        example: A value for error messages, if the option must be set.
    """

    default: str
    help: str
    choices: tuple[str, ...] = ()
    example: str = ""


class HashtagSpider(scrapy.Spider):
    """A spider of one site.

    The subclass `Spider` of a site is in `scraper/spiders/<site>.py`, which also has
    `read(body: bytes, url: str) -> Page`: a pure function that raises LayoutChanged if the page
    should have posts and they are not found.

    The spider defines requests and reads responses. The scheduler decides when a page or image is
    requested, because searches and claims are in the catalogue.

    Args:
        site_url: URL of a mirror or test server for pages.
        image_url: URL of a mirror or test server for images.
        credentials: Name -> value; or a file with NAME=value lines.
        options: Values of `site_options`.
        tags: Labels or hashtags to search for; comma-separated, or tag -> its words.
        limits: Limits of the crawl.
        context: Catalogue and image store; opened from the settings if there is none.
        job: Coroutine function to run instead of searches, such as a check of the credentials.
        arguments: Other spider arguments (`scrapy crawl -a NAME=VALUE`): `max_images`, `max_pages`,
            `since`, `license`, `retry_failed`, `full`, and options of the site, with `_` for `-`.
    """

    # Of an instance with a server of its own: `site:server`.
    name: str
    title: ClassVar[str]
    needs: ClassVar[str]
    access: ClassVar[Access] = Access.NOTHING
    limits_text: ClassVar[str]
    checked: ClassVar[str]
    site_url: ClassVar[str]
    image_url: ClassVar[str]
    # Environment variables, named SITE_WHAT.
    credentials: ClassVar[tuple[Credential, ...]] = ()
    site_options: ClassVar[Mapping[str, SiteOption]] = {}
    # For software that many servers run, such as shops: the option that names the server. It must
    # be set, and `site_url` is only an example.
    server_option: ClassVar[str | None] = None
    # Whether all searches read the same lists, which are downloaded once per crawl.
    shares_lists: ClassVar[bool] = False
    # Seconds between requests of the site, at least; the site's terms ask for them.
    request_interval: float = 0
    # Whether the site requires a way to reach the user (--contact) in the user agent.
    needs_contact: ClassVar[bool] = False
    # How the site can be read although its robots.txt forbids it, such as by its API's terms.
    robots_txt_remedy: ClassVar[str | None] = None
    # A later run of a finished search requests new posts, instead of nothing.
    renews: ClassVar[bool] = False
    # Different hashtags that an account may request in seven days.
    weekly_hashtags: ClassVar[int | None] = None
    # What endless redirects of the site mean, if that is known.
    redirect_loop_meaning: ClassVar[str | None] = None
    # If posts cost money: the terms, and the maximum price per post in US dollars.
    pricing: ClassVar[str | None] = None
    dollars_per_post: ClassVar[float] = 0.0
    # Options of the search of `--check`, if the default would cost more than necessary.
    check_options: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self,
        site_url: str | None = None,
        image_url: str | None = None,
        credentials: Mapping[str, str] | str | Path | None = None,
        options: Mapping[str, str] | None = None,
        *,
        tags: Mapping[str, tuple[str, ...]] | str = "",
        limits: CrawlLimits | None = None,
        context: "CrawlContext | None" = None,
        job: "Callable[[HashtagSpider], Awaitable[None]] | None" = None,
        **arguments: str,
    ) -> None:
        super().__init__()
        # What a crawl needs to create an equal spider.
        self.arguments = {
            "site_url": site_url,
            "image_url": image_url,
            "credentials": credentials,
            "options": options,
        }
        # Whether pages are requested from a mirror or test server.
        self.has_mirror = site_url is not None
        # Whether the server of `server_option` is named.
        self.has_server = True
        # The site's own URL; `requested_url` may be that of a mirror.
        self.server_url = self.site_url
        self.requested_url = (site_url or self.site_url).rstrip("/")
        self.requested_image_url = (image_url or self.image_url).rstrip("/")
        # Hosts that the user named may be in the user's own network, as a mirror is.
        self.named_urls = tuple(url for url in (site_url, image_url) if url)
        if credentials is None or isinstance(credentials, Mapping):
            self.secrets = dict(credentials or {})
        else:
            self.secrets = load_credentials(Path(credentials), self.credentials)
        self.limits = limits or _limits_of(arguments)
        self.chosen = {name: option.default for name, option in self.site_options.items()}
        for name, value in {**self._pop_options(arguments), **(options or {})}.items():
            self._set_option(name, value)
        if self.server_option is not None:
            self._set_server(self.chosen[self.server_option], site_url)
        self.tags, self.context, self.job = tags, context, job
        self.backoffs: HostBackoffs | None = context.backoffs if context else None
        # Set by the scheduler.
        self.planner: SearchPlanner | None = None
        # Post -> its photos by key, of posts that were requested again.
        self._renewed: dict[str, asyncio.Task[dict[str, Photo]]] = {}
        # URL -> detail page; searches of several tags have them in common.
        self._details: dict[str, asyncio.Task[Page | Failure]] = {}
        if arguments:
            raise BadInput(f"{self.title} has no argument {next(iter(arguments))!r}")

    @classmethod
    def update_settings(cls, settings: BaseSettings) -> None:
        """Refuse settings that would endanger users or sites.

        Raises:
            UsageError: One of them was changed.
        """
        super().update_settings(settings)
        check_protected_settings(settings)

    @classmethod
    def from_crawler(cls, crawler: Crawler, *args: Any, **kwargs: Any) -> "HashtagSpider":
        """Create the spider, keep protected components, and allow the hosts that the user named."""
        # Only here: Scrapy applies settings of the command line after `update_settings`. They are
        # frozen in `scrapy shell`.
        if not crawler.settings.frozen:
            add_protected_components(crawler.settings)
            user_agent = cls.format_user_agent(crawler.settings["CONTACT"])
            crawler.settings.set("USER_AGENT", user_agent, priority="spider")
        if "context" not in kwargs:
            # `scrapy crawl`; the `crawl` command has read the credentials.
            kwargs.setdefault("credentials", load_credentials(None, cls.credentials))
        spider = super().from_crawler(crawler, *args, **kwargs)
        if spider.named_urls:
            allowed = [*crawler.settings.getlist(ALLOWED_HOSTS), *spider.named_urls]
            crawler.settings.set(ALLOWED_HOSTS, allowed, priority="spider")
        return spider

    def _pop_options(self, arguments: dict[str, str]) -> dict[str, str]:
        """Take the options of the site from the spider arguments."""
        names = {name.replace("-", "_"): name for name in self.site_options}
        return {names[name]: arguments.pop(name) for name in list(arguments) if name in names}

    def _set_option(self, name: str, value: str) -> None:
        option = self.site_options.get(name)
        if option is None:
            names = ", ".join(self.site_options) or "none"
            raise BadInput(f"--set {name}: {self.title} has no such setting; it has: {names}")
        if option.choices and value not in option.choices:
            raise BadInput(f"--set {name}={value}: choose from {', '.join(option.choices)}")
        self.chosen[name] = value

    def _set_server(self, server: str, mirror: str | None) -> None:
        """Set the server that the spider crawls; each has its own posts and searches.

        Args:
            server: Host or URL of the server; empty if it was not named.
            mirror: URL of a mirror or test server.
        """
        if server:
            self.server_url = _server_url(server, f"--set {self.server_option}")
            self.requested_url = (mirror or self.server_url).rstrip("/")
            self.named_urls += (self.server_url,)
        elif mirror:
            self.server_url = self.requested_url
        parts = urlsplit(self.server_url)
        self.has_server = bool(server or mirror)
        if self.has_server:
            self.name = f"{type(self).name}:{parts.netloc}{parts.path}"

    def own_url(self, url: str) -> str:
        """Return the URL that a mirrored page has on the site itself."""
        is_mirrored = url.startswith(f"{self.requested_url}/")
        return self.server_url + url[len(self.requested_url) :] if is_mirrored else url

    def check_arguments(self) -> None:
        """Check that the spider has all it needs.

        Raises:
            CredentialsMissing: A required credential is missing.
            BadInput: A server is not named, or a token would be sent unencrypted over a network.
        """
        if self.server_option is not None and not self.has_server:
            option = self.site_options[self.server_option]
            raise BadInput(
                f"{self.title}: name {option.help}: --set {self.server_option}={option.example}"
            )
        check_required(self.secrets, self.credentials, self.title)
        parts = urlsplit(self.requested_url)
        if self.secrets and parts.scheme != "https" and parts.hostname not in LOOPBACK:
            raise BadInput(
                f"--site-url {self.requested_url}: tokens are sent over https only; write https://"
            )

    @classmethod
    def format_user_agent(cls, contact: str | None) -> str:
        """Return the user agent, which names the user's contact if there is one."""
        return user_agent(contact)

    def check_contact(self) -> None:
        """Check that requests without a contact are accepted; a mirror accepts them.

        Raises:
            BadInput: The site requires a contact.
        """
        if self.needs_contact and self.requested_url == self.server_url:
            raise BadInput(
                f"{self.title} requires a contact in the user agent: add --contact with your e-mail"
                " address or URL, or set FASHION_TAGGER_CONTACT"
            )

    # What a site defines.

    def queries(self, words: Sequence[str]) -> Sequence[tuple[str, ...]]:
        """Group words into searches; each group is requested as one query."""
        return [(word,) for word in words]

    def lookup_request(self, query: str) -> Request | None:
        """Return a request that a search needs before its first page; None: it needs none.

        `read` returns a page for it with `is_lookup` and the cursor of the next page.
        """
        return None

    def search_request(self, query: str, cursor: str | None) -> Request:
        """Return the request of a page of a search.

        The fragment of a URL is not sent; it passes data about the search to `read`.

        Args:
            query: A word, or several with " OR " between, as `queries` combines them.
            cursor: Cursor of the page; None for the first one.
        """
        raise NotImplementedError

    def read(self, body: bytes, url: str) -> Page:
        """Parse a response into a page.

        Raises:
            LayoutChanged: The page should have posts and they are not found.
            TemporarilyEmpty: The page announces posts and has none.
        """
        raise NotImplementedError

    def is_readable(self, response: Response) -> bool:
        """Return whether `read` can read a response; an API may use an error for "no results"."""
        return response.status == 200

    def explain_refusal(self, response: Response) -> str | None:
        """Return what the site means by an error response, if that is known."""
        return None

    def image_request(self, url: str) -> Request:
        """Return the request of an image.

        A mirror has the paths of all image hosts of the site; it gets the original host in
        X-Forwarded-Host, as a proxy does.
        """
        if self.requested_image_url == self.image_url:
            return Request(url)
        parts = urlsplit(url)
        mirrored = self.requested_image_url + urlunsplit(("", "", parts.path, parts.query, ""))
        return Request(mirrored, headers={"X-Forwarded-Host": parts.netloc})

    def setup_request(self) -> Request | None:
        """Return a request to make before all others, for `set_up`; its failure is ignored."""
        return None

    def set_up(self, body: bytes, url: str = "") -> Request | None:
        """Configure the spider by a response to `setup_request`.

        Returns:
            A further request for `set_up`; None if there is none.
        """
        return None

    def post_request(self, site_id: str) -> Request | None:
        """Return the request of a post whose image URLs have expired, for `read`."""
        return None

    def count_request(self, query: str) -> Request | None:
        """Return a request for the number of results; None: the first page reports it."""
        return None

    def read_count(self, body: bytes, url: str) -> int | None:
        """Return the number of results that a response to `count_request` reports."""
        return self.read(body, url).total

    def next_count_request(self, body: bytes, url: str) -> Request | None:
        """Return the request of the next part of a count; None: this was the last part."""
        return None

    def describe_remaining(self, response: Response) -> str | None:
        """Return what is left of a rate limit, if the headers of a response report it."""
        return None

    def checks(self) -> Sequence[Check]:
        """Return the requests that show whose credentials these are and what their limits are."""
        return ()

    # Callbacks, used by the scheduler for the requests above.

    def page_request(self, search: Search, cursor: str | None) -> Request:
        """Return the request of a page with its callbacks."""
        request = self.first_or_next_request(search.hashtag, cursor)
        return request.replace(
            callback=self.parse,
            errback=self.handle_page_error,
            cb_kwargs={"search": search, "cursor": cursor},
            # An official API with a token has terms of its own.
            meta={
                **request.meta,
                IS_PAGE: "Authorization" not in request.headers,
                IS_SHARED: self.shares_lists,
            },
            dont_filter=True,
        )

    def first_or_next_request(self, query: str, cursor: str | None) -> Request:
        """Return the request of a page of a search, or of the lookup before its first page."""
        lookup = self.lookup_request(query) if cursor is None else None
        return lookup or self.search_request(query, cursor)

    async def run_setup(self) -> None:
        """Configure the spider by responses of the site; without them it uses its defaults."""
        request, count = self.setup_request(), 0
        with contextlib.suppress(SiteRefused):
            while request is not None and count < MAX_SETUP_REQUESTS:
                response = await self.download(request)
                count += 1
                request = (
                    self.set_up(response.body, response.url) if response.status == 200 else None
                )

    async def parse(
        self, response: Response, search: Search | None = None, cursor: str | None = None
    ) -> AsyncIterator[Any]:
        """Yield the page of a search; a page that is temporarily empty is requested again."""
        assert response.request is not None
        empty_pages = response.request.meta.get(EMPTY_PAGES, 0)
        try:
            page = await self._with_details(self.read_page(response), response.url)
        except TemporarilyEmpty as error:
            if empty_pages < len(EMPTY_PAGE_PAUSES):
                await asyncio.sleep(EMPTY_PAGE_PAUSES[empty_pages])
                meta = {**response.request.meta, EMPTY_PAGES: empty_pages + 1}
                yield response.request.replace(meta=meta, dont_filter=True)
                return
            message = f"{error.message}, {empty_pages + 1} times; {CONTINUE} later"
            yield PageItem(None, search, cursor, TemporarilyEmpty(message))
        except (SiteRefused, LayoutChanged) as error:
            # It may repeat text of the page.
            error.message = redact(error.message, self.secrets)  # type: ignore[misc]
            yield PageItem(None, search, cursor, error)
        else:
            yield PageItem(page, search, cursor)

    def read_page(self, response: Response) -> Page:
        """Return the page of a response.

        Raises:
            SiteRefused: The response is an error; the message explains it.
            LayoutChanged, TemporarilyEmpty: As `read`.
        """
        self.check_response(response)
        try:
            page = self.read(response.body, response.url)
        except (SiteRefused, LayoutChanged):
            raise
        except Exception as error:  # a defect of one site's parser must not end other searches
            self.logger.exception("%s can't be read", response.url)
            problem = f"the page can't be read ({type(error).__name__}: {first_line(error)})"
            raise LayoutChanged(redact(problem, self.secrets), response.url) from error
        page = page.storable(partial(redact_posts, credentials=self.secrets))
        reasons = [flag for flag in response.flags if flag in (NOAI, TDM_RESERVATION)]
        return replace(page, reason=reasons[0]) if reasons else page

    async def _with_details(self, page: Page, page_url: str) -> Page:
        """Return a page with the posts of its detail pages.

        Raises:
            SiteRefused: A host asks for a long pause, or refuses all detail pages.
        """
        if not page.detail_urls:
            return page
        if len(self._details) > MAX_CACHED_DETAILS:
            self._details.clear()
        for url in page.detail_urls:
            if url not in self._details:
                self._details[url] = asyncio.ensure_future(self._request_detail(url))
        details = await asyncio.gather(*(self._details[url] for url in page.detail_urls))
        pages, refusals = [], []
        for url, detail in zip(page.detail_urls, details, strict=True):
            if isinstance(detail, Page):
                if detail.reason is None:
                    pages.append(self.select_detail(detail, page, page_url))
                else:
                    pages.append(Page((), skipped={detail.reason: len(detail.posts)}))
                continue
            if (error := self._backoff_error(url)) is not None:
                raise error
            # A later search requests it again.
            self._details.pop(url, None)
            is_refused = isinstance(detail, SiteRefused)
            refusals += [detail] if is_refused else []
            pages.append(Page((), skipped={UNREADABLE_PAGES if is_refused else NO_POSTS: 1}))
        if len(refusals) == len(pages) and not page.posts:
            raise refusals[0]
        return page.with_details(pages)

    async def _request_detail(self, url: str) -> Page | Failure:
        try:
            request = self.page_of_url(url)
            request.meta[IS_PAGE] = True
            return self.read_page(await self.download(request))
        except (SiteRefused, LayoutChanged) as error:
            self.logger.info("%s", redact(error.message, self.secrets))
            return error

    def page_of_url(self, url: str) -> Request:
        """Return the request of a detail page; a mirror has the site's paths."""
        if url.startswith(f"{self.server_url}/"):
            url = self.requested_url + url[len(self.server_url) :]
        return Request(url)

    def select_detail(self, detail: Page, page: Page, url: str) -> Page:
        """Return the part of a detail page that belongs to a page of a search, and its URL."""
        return detail

    def check_response(self, response: Response) -> None:
        """Check that a response can be read.

        Raises:
            SiteRefused: It is an error; the message explains it.
        """
        if not self.is_readable(response):
            reason = self.explain_refusal(response) or f"HTTP {response.status}"
            message = f"{reason}; {CONTINUE} ({sent_url(response.url)})"
            raise SiteRefused(redact(message, self.secrets))

    def handle_page_error(self, failure: TwistedFailure) -> Iterator[PageItem]:
        """Yield the reason why a page could not be downloaded."""
        request: Request = failure.request
        assert failure.value is not None
        error = self._backoff_error(request.url) or self.refusal(failure.value, request.url)
        yield PageItem(None, request.cb_kwargs["search"], request.cb_kwargs["cursor"], error)

    def refusal(self, error: BaseException, url: str) -> SiteRefused:
        """Return the error of a download that Scrapy reports as failed."""
        reason = download_error_reason(error)
        self.logger.info("%s %s", reason, url)
        if reason == ROBOTS_TXT:
            message = (
                f"{self.robots_txt_remedy}. Otherwise: {FORBIDDEN}"
                if self.robots_txt_remedy
                else FORBIDDEN
            )
        elif reason.startswith(UNREADABLE):
            problem = reason.removeprefix(UNREADABLE)
            message = (
                f"the site's robots.txt can't be read ({problem}), which forbids all; {CONTINUE}"
            )
        else:
            meaning = self.redirect_loop_meaning if reason == TOO_MANY_REDIRECTS else None
            message = f"{meaning or reason}; {CONTINUE}"
        return SiteRefused(redact(f"{message} ({sent_url(url)})", self.secrets))

    def claimed_image_request(self, image: PendingImage, search: Search, index: int = 0) -> Request:
        """Return the request of a claimed image with its callbacks.

        Args:
            image: The image.
            search: The search that has claimed it.
            index: Index of the URL: 0 for `image.url`, then its fallbacks.
        """
        return self.image_request((image.url, *image.fallbacks)[index]).replace(
            callback=self.parse_image,
            errback=self.handle_image_error,
            cb_kwargs={"image": image, "search": search, "index": index},
            # Cookies of image hosts are neither stored nor sent.
            meta={"dont_merge_cookies": True, IS_IMAGE: True},
            dont_filter=True,
        )

    async def parse_image(
        self, response: Response, image: PendingImage, search: Search, index: int
    ) -> AsyncIterator[Any]:
        """Yield the image, or the request of its next URL if there is nothing at this one."""
        item = ImageItem(image, search, response.body)
        if response.status != 200:
            reason = f"HTTP {response.status}"
            if (request := await self._next_request(reason, image, search, index)) is not None:
                yield request
                return
            item.body, item.outcome = b"", RejectedImage(reason)
            item.error = self._backoff_error(response.url)
        yield item

    async def _next_request(
        self, reason: str, image: PendingImage, search: Search, index: int
    ) -> Request | None:
        """Return the request of the next URL of an image, or of its renewed URL."""
        if reason not in GONE:
            return None
        if index < len(image.fallbacks):
            return self.claimed_image_request(image, search, index + 1)
        if not image.key or image.is_renewed:
            return None
        photo = (await self._renewed_photos(image.post)).get(image.key)
        if photo is None or photo.url == image.url or self.context is None:
            return None
        await self.context.writer.write(
            lambda session: frontier.update_image_url(session, image.url, photo)
        )
        renewed = replace(image, url=photo.url, fallbacks=photo.fallbacks, is_renewed=True)
        return self.claimed_image_request(renewed, search)

    async def _renewed_photos(self, post: str) -> dict[str, Photo]:
        """Return the photos of a post by key; each post is requested once."""
        if post not in self._renewed:
            self._renewed[post] = asyncio.ensure_future(self._request_photos(post))
        return await self._renewed[post]

    async def _request_photos(self, post: str) -> dict[str, Photo]:
        request = self.post_request(post)
        if request is None:
            return {}
        # Without the post, the photo is rejected with its first reason.
        with contextlib.suppress(SiteRefused, LayoutChanged):
            page = self.read_page(await self.download(request))
            return {photo.key: photo for post in page.posts for photo in post.photos if photo.key}
        return {}

    def handle_image_error(self, failure: TwistedFailure) -> Iterator[ImageItem]:
        """Yield the reason why an image could not be downloaded."""
        request: Request = failure.request
        assert failure.value is not None
        reason = image_error_reason(failure.value)
        self.logger.info("%s %s", reason, request.url)
        image, search = request.cb_kwargs["image"], request.cb_kwargs["search"]
        error = self._backoff_error(request.url)
        yield ImageItem(image, search, outcome=RejectedImage(reason), error=error)

    def _backoff_error(self, url: str) -> SiteRefused | None:
        """Return an error if the host of a URL asked for a long pause: its images stay pending."""
        return self.backoffs.error(url) if self.backoffs is not None else None

    async def download(self, request: Request) -> Response:
        """Return the response to a request outside of the scheduler.

        Raises:
            SiteRefused: There is none.
        """
        assert self.crawler.engine is not None
        try:
            return await self.crawler.engine.download_async(request.replace(dont_filter=True))
        except Exception as error:
            raise self.refusal(error, request.url) from error

    async def start(self) -> AsyncIterator[Any]:
        """Yield nothing: the scheduler creates the requests of searches from the catalogue."""
        if self.job is not None:
            await self.job(self)
        return
        yield


def _server_url(server: str, option: str) -> str:
    """Return the URL of a server that the user names by its host or URL, with a path if it has one.

    Raises:
        BadInput: It is neither.
    """
    url = server.strip().rstrip("/")
    url = url if "://" in url else f"https://{url}"
    if http_url(url) is None or not SERVER.fullmatch(url):
        raise BadInput(f"{option}={server}: write the host, such as shop.example.com")
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.lower(), parts.path, "", ""))


def _limits_of(arguments: dict[str, str]) -> CrawlLimits:
    """Take the limits of the crawl from the spider arguments.

    Raises:
        BadInput: A value is invalid.
    """
    try:
        return CrawlLimits(
            max_images=_positive(arguments.pop("max_images", None)),
            max_pages=_positive(arguments.pop("max_pages", None)),
            since=parse_since(arguments.pop("since")) if "since" in arguments else None,
            licenses=tuple(filter(None, arguments.pop("license", "").lower().split(","))),
            retry_failed=_flag(arguments.pop("retry_failed", "0")),
            full=_flag(arguments.pop("full", "0")),
        )
    except ValueError as error:
        raise BadInput(f"spider argument: {error}") from error


def _positive(value: str | None) -> int | None:
    number = None if value is None else int(value)
    if number is not None and number < 1:
        raise ValueError(f"{number} is not at least 1")
    return number


def _flag(value: str) -> bool:
    if value.lower() not in ("0", "1", "true", "false"):
        raise ValueError(f"{value!r} is neither 1 nor 0")
    return value.lower() in ("1", "true")


def site_names() -> list[str]:
    """Return the names of all sites, sorted."""
    return sorted(
        path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "base")
    )


def spider_class(site: str) -> type[HashtagSpider]:
    """Import and return the spider class of a site.

    Raises:
        BadInput: There is no such site.
    """
    if site not in site_names():
        raise BadInput(f"no site {site!r}; there are: {', '.join(site_names())}")
    spider: type[HashtagSpider] = importlib.import_module(f"scraper.spiders.{site}").Spider
    return spider


def spiders_by_access() -> list[type[HashtagSpider]]:
    """Return the spider classes of all sites, those that need least first."""
    levels = list(Access)
    classes = [spider_class(site) for site in site_names()]
    return sorted(classes, key=lambda spider: levels.index(spider.access))


def parse_site_names(values: Iterable[str]) -> tuple[str, ...]:
    """Return the unique site names in values, each a name or a comma-separated list of names."""
    names = (name.strip() for value in values for name in value.split(","))
    return tuple(dict.fromkeys(name for name in names if name))


def parse_site_urls(option: str, values: Sequence[str], sites: Sequence[str]) -> dict[str, str]:
    """Parse the values of an option that replaces a URL of sites.

    Args:
        option: Name of the option, for error messages.
        values: The values: `URL`, or `SITE=URL` if there are several sites.
        sites: Names of the crawled sites.

    Returns:
        Site -> URL.

    Raises:
        BadInput: A value is not a URL, or does not name one of the sites.
    """
    urls: dict[str, str] = {}
    for value in values:
        match = re.match(r"([a-z0-9_]+)=(?=https?://)", value)
        site, url = (match[1], value[match.end() :]) if match else (sites[0], value)
        if not url.startswith(("http://", "https://")):
            raise BadInput(
                f"{option}: {value!r} is not a URL; write one that starts with http:// or https://"
            )
        if site not in sites:
            raise BadInput(f"{option} {value}: {site} is not crawled; name one of the sites")
        if not match and len(sites) > 1:
            raise BadInput(f"{option} {value}: name the site: {option} {site}={value}")
        urls[site] = url
    return urls


def create_spiders(
    sites: Sequence[str],
    site_urls: Mapping[str, str],
    image_urls: Mapping[str, str],
    file: Path | None,
    settings: Mapping[str, str],
) -> dict[str, HashtagSpider]:
    """Create the spiders of sites.

    Args:
        sites: Names of the sites.
        site_urls: Site -> URL that replaces the site's own.
        image_urls: Site -> URL that replaces the URL of its image host.
        file: File with credentials; None for only the environment.
        settings: Name -> value; each spider gets the settings that it has.

    Returns:
        Site -> spider.

    Raises:
        BadInput: A site or setting does not exist, or credentials are missing or invalid.
    """
    classes = {site: spider_class(site) for site in sites}
    all_names = {name for spider_type in classes.values() for name in spider_type.site_options}
    spiders = {}
    for site, spider_type in classes.items():
        # A spider also gets the names that no spider has: it rejects them and lists its own.
        site_settings = {
            name: value
            for name, value in settings.items()
            if name in spider_type.site_options or name not in all_names
        }
        credentials = load_credentials(file, spider_type.credentials)
        spiders[site] = spider_type(
            site_urls.get(site), image_urls.get(site), credentials, site_settings
        )
        spiders[site].check_arguments()
    return spiders
