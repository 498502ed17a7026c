"""`crawl --check` and `--dry-run`: check credentials, limits and pages, and count results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click
from scrapy import Request
from scrapy.http import Response
from scrapy.settings import Settings

from dataset.catalogue.models import HASHTAG_SEPARATOR
from dataset.errors import Failure, replace_control_characters
from dataset.utils.cli_options import format_table
from scraper.crawl.process import run_spiders
from scraper.crawl.summary import format_count
from scraper.credentials import redact
from scraper.errors import CONTINUE
from scraper.items import Page, Post
from scraper.parsing.hashtags import find_hashtags

if TYPE_CHECKING:
    from scraper.spiders.base import HashtagSpider

# A site may need several requests to reach the first posts.
MAX_PAGES_TO_FIRST_POSTS = 8
# Parts of a count, such as the months of an archive; no archive has more.
MAX_COUNT_PARTS = 600
FIELDS = (
    *("photos", "title", "brand", "price", "currency", "author", "posted", "hashtags"),
    "attributes",
)
# Fields of the credits of a post's photos; most sites have none.
CREDIT_FIELDS = ("license", "attribution", "source_page")


@dataclass
class CheckResults:
    """Results of checks.

    Attributes:
        lines: A line per check.
        is_good: Whether all succeeded.
    """

    lines: list[str] = field(default_factory=list)
    is_good: bool = True

    def add(self, name: str, message: str, is_good: bool = True) -> None:
        """Add the result of a check."""
        self.lines.append(f"{'ok' if is_good else 'FAILED':<7}{name}: {message}")
        self.is_good = self.is_good and is_good


def check(spider: "HashtagSpider", word: str, is_live: bool, settings: Settings) -> bool:
    """Run a spider's checks and one search, and print the results.

    Args:
        spider: The spider.
        word: The word to search for.
        is_live: Also print which fields of posts were found.
        settings: Scrapy settings.

    Returns:
        Whether all checks succeeded.
    """
    results, pages = CheckResults(), list[Page]()

    async def run_checks(spider: "HashtagSpider") -> None:
        spider.chosen.update(spider.check_options)
        for one_check in spider.checks():
            try:
                response = await download_readable(spider, one_check.request)
                description = redact(one_check.describe(response.body), spider.secrets)
                results.add(one_check.name, description)
            except Failure as failure:
                results.add(one_check.name, _message(failure, spider), is_good=False)
        try:
            page, remaining = await first_posts(spider, word)
            pages.append(page)
            results.add(f"search for {word!r}", _describe_page(page))
            if remaining:
                results.add("limit of searches", remaining)
        except Failure as failure:
            results.add(f"search for {word!r}", _message(failure, spider), is_good=False)

    is_complete = _run_job([spider], run_checks, settings)
    for line in results.lines:
        click.echo(line)
    if is_live and pages:
        click.echo(fields_found(pages[0].posts))
    return is_complete and results.is_good


def _run_job(spiders: "Sequence[HashtagSpider]", job: object, settings: Settings) -> bool:
    """Run a coroutine function for each spider; return whether it was not interrupted.

    Raises:
        Exception: What the function raised.
    """
    errors: list[Exception] = []

    async def run(spider: "HashtagSpider") -> None:
        try:
            await spider.run_setup()
            await job(spider)  # type: ignore[operator]
        except Exception as error:  # noqa: BLE001 - raised below; Scrapy would only log it
            errors.append(error)

    jobs: list[tuple[type[HashtagSpider], Mapping[str, object]]] = [
        (type(spider), {**spider.arguments, "job": run, "context": None}) for spider in spiders
    ]
    is_complete = run_spiders(jobs, settings)
    for error in errors:
        raise error
    return is_complete


def _message(failure: Failure, spider: "HashtagSpider") -> str:
    # A check can't be continued.
    return replace_control_characters(
        redact(failure.message.replace(f"; {CONTINUE}", ""), spider.secrets)
    )


async def download_readable(spider: "HashtagSpider", request: Request) -> Response:
    """Return the response to a request.

    Raises:
        SiteRefused: There is none that can be read.
    """
    response = await spider.download(request)
    spider.check_response(response)
    return response


async def download_page(
    spider: "HashtagSpider", query: str, cursor: str | None
) -> tuple[Page, Response]:
    """Return a page of a search, and its response; an empty page is requested again.

    Raises:
        SiteRefused, LayoutChanged: There is none.
    """
    request = spider.first_or_next_request(query, cursor)
    while True:
        response = await spider.download(request)
        async for result in spider.parse(response):
            if isinstance(result, Request):
                request = result
            elif result.error is not None:
                raise result.error
            else:
                return result.page, response


async def first_posts(spider: "HashtagSpider", word: str) -> tuple[Page, str | None]:
    """Return the first page of a search that has posts, and what is left of a rate limit.

    Raises:
        SiteRefused, LayoutChanged: There is none.
    """
    query, cursor = HASHTAG_SEPARATOR.join(spider.queries([word])[0]), None
    for _ in range(MAX_PAGES_TO_FIRST_POSTS):
        page, response = await download_page(spider, query, cursor)
        if page.posts or page.next_cursor is None:
            break
        cursor = page.next_cursor
    return page, spider.describe_remaining(response)


def _describe_page(page: Page) -> str:
    total = f" of {page.total}" if page.total is not None else ""
    more = "and more pages" if page.next_cursor else "on the only page"
    skipped = "".join(f", {count} skipped: {reason}" for reason, count in page.skipped.items())
    return f"{format_count(len(page.posts), 'post')}{total}, {more}{skipped}"


def fields_found(posts: Sequence[Post]) -> str:
    """Return a table: in how many posts each field was found."""
    rows = []
    has_credits = any(_field(post, name) for post in posts for name in CREDIT_FIELDS)
    for name in (*FIELDS, *(CREDIT_FIELDS if has_credits else ())):
        count = sum(bool(_field(post, name)) for post in posts)
        rows.append((name, f"{count} of {len(posts)}", "found" if count else "missing"))
    photos = sum(len(post.photos) for post in posts)
    return (
        format_table(("field", "posts", ""), rows)
        + f"\n{format_count(photos, 'photo')} in {format_count(len(posts), 'post')}"
    )


def _field(post: Post, name: str) -> object:
    # Hashtags of a title are found when the post is saved.
    if name == "hashtags":
        return post.hashtags or find_hashtags(post.title)
    if name in CREDIT_FIELDS:
        return any(getattr(photo.credit, name) for photo in post.photos)
    return getattr(post, name)


async def estimate(spider: "HashtagSpider", queries: Sequence[str]) -> list[tuple[str, int | None]]:
    """Return how many posts each search would find; None if the site does not report it.

    Raises:
        SiteRefused, LayoutChanged: A count can't be requested.
    """
    if spider.weekly_hashtags is not None:
        # A request would use the quota.
        return [(query, None) for query in queries]
    counts: list[tuple[str, int | None]] = []
    for query in queries:
        request = spider.count_request(query)
        if request is not None:
            counts.append((query, await _count(spider, request)))
        else:
            page, _ = await download_page(spider, query, None)
            for _ in range(MAX_PAGES_TO_FIRST_POSTS):
                if not page.is_lookup or page.next_cursor is None:
                    break
                page, _ = await download_page(spider, query, page.next_cursor)
            whole = len(page.posts) if page.next_cursor is None else None
            counts.append((query, page.total if page.total is not None else whole))
    return counts


async def _count(spider: "HashtagSpider", first: Request) -> int | None:
    """Return the sum of a count's parts; None if one is not reported."""
    total, requested, request = 0, set[str](), first
    while request.url not in requested and len(requested) < MAX_COUNT_PARTS:
        requested.add(request.url)
        response = await download_readable(spider, request)
        count = spider.read_count(response.body, response.url)
        if count is None:
            return None
        total += count
        following = spider.next_count_request(response.body, response.url)
        if following is None:
            break
        request = following
    return total


def format_estimate(spider: "HashtagSpider", counts: Sequence[tuple[str, int | None]]) -> str:
    """Return counts as a table, with their sum and its price."""
    rows = [(query, "unknown" if count is None else str(count)) for query, count in counts]
    table = format_table(("search", "posts"), rows)
    known = [count for _, count in counts if count is not None]
    if not known:
        return f"{table}\n{_describe_unknown(spider, len(counts))}"
    total, scope = sum(known), "in all"
    if len(known) < len(counts):
        scope = "in the searches with a known count"
    elif len(known) > 1:
        scope = "in all; posts found by several searches are counted several times"
    # Whole cents, rounded up, in integers: a tenth of a cent has no exact float.
    cents = -(-total * round(spider.dollars_per_post * 1000) // 10)
    price = f": at most ${cents / 100:,.2f}; {spider.pricing}" if spider.pricing else ""
    return f"{table}\n{format_count(total, 'post')} {scope}{price}"


def _describe_unknown(spider: "HashtagSpider", searches: int) -> str:
    message = f"{spider.title} does not report how many posts there are"
    if spider.weekly_hashtags is None:
        return message
    return (
        f"{message}; a crawl would use {searches} of the {spider.weekly_hashtags} different"
        " hashtags allowed in 7 days"
    )


def dry_run(
    spiders: "Sequence[HashtagSpider]", words: Sequence[Sequence[str]], settings: Settings
) -> bool:
    """Print what a crawl would find, without storing anything.

    Args:
        spiders: The spiders.
        words: Words of each tag.
        settings: Scrapy settings.

    Returns:
        Whether it was not interrupted.

    Raises:
        Failure: A site can't be asked.
    """
    problems: list[str] = []

    async def count(spider: "HashtagSpider") -> None:
        queries = [HASHTAG_SEPARATOR.join(group) for tag in words for group in spider.queries(tag)]
        try:
            counts = await estimate(spider, queries)
            title = f"{spider.title}\n" if len(spiders) > 1 else ""
            click.echo(title + format_estimate(spider, counts))
        except Failure as failure:
            problems.append(_message(failure, spider))

    is_complete = _run_job(spiders, count, settings)
    if problems:
        raise Failure("\nError: ".join(problems))
    return is_complete
