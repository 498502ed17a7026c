"""`crawl --check` and `--dry-run`: whose credentials, what is left, can pages be read, how many."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import click

from dataset.catalogue.models import HASHTAG_SEPARATOR
from dataset.errors import Failure, replace_control_characters
from dataset.utils.cli_options import format_table
from scraper.asking import GO_ON, page_of, read_answer, read_page
from scraper.credentials import hide
from scraper.download import Download, run_side_by_side
from scraper.hashtags import hashtags_in
from scraper.report import counted
from scraper.settings import Manners
from scraper.spiders.base import Ask, HashtagSpider, Page, Post

# A site may lead to its first posts in steps.
STEPS = 3
# Upper limit of monthly counts of an archive; no archive has more months.
COUNTS = 600
FIELDS = (
    *("photos", "title", "brand", "price", "currency", "author", "posted", "hashtags"),
    "attributes",
)


@dataclass
class Findings:
    """What the questions came to: lines for people, and whether all was well."""

    lines: list[str] = field(default_factory=list)
    good: bool = True

    def note(self, name: str, said: str, good: bool = True) -> None:
        """Add what NAME came to."""
        self.lines.append(f"{'ok' if good else 'FAILED':<7}{name}: {said}")
        self.good = self.good and good


def check(spider: HashtagSpider, word: str, live: bool, manners: Manners) -> bool:
    """Ask what `checks` of SPIDER say, and one search for WORD; print it; whether all was well.

    LIVE adds which fields of a post were found.
    """
    spider.chosen.update(spider.frugal)
    findings, pages = Findings(), list[Page]()

    async def main(download: Download) -> None:
        for one in spider.checks():
            try:
                body, _ = await page_of(spider, download, one.ask)
                findings.note(one.name, hide(one.say(body), spider.secrets))
            except Failure as problem:
                findings.note(one.name, _said(problem, spider), good=False)
        try:
            page, left = await first_posts(spider, download, word)
            pages.append(page)
            findings.note(f"search for {word!r}", _found(page))
            if left:
                findings.note("limit of searches", left)
        except Failure as problem:
            findings.note(f"search for {word!r}", _said(problem, spider), good=False)

    ended = run_side_by_side([(main, spider)], manners)
    for line in findings.lines:
        click.echo(line)
    if live and pages:
        click.echo(fields_found(pages[0].posts))
    return ended and findings.good


def _said(problem: Failure, spider: HashtagSpider) -> str:
    # There is nothing to go on with.
    return replace_control_characters(
        hide(problem.message.replace(f"; {GO_ON}", ""), spider.secrets)
    )


async def first_posts(
    spider: HashtagSpider, download: Download, word: str
) -> tuple[Page, str | None]:
    """The first page that holds posts found under WORD, or the last of STEPS; what limits leave.

    Raises:
        SiteRefused, LayoutChanged: there is none.
    """
    query, cursor = spider.queries([word])[0][0], None
    for _ in range(STEPS):
        page, answer = await read_answer(spider, download, query, cursor)
        if page.posts or page.next_cursor is None:
            break
        cursor = page.next_cursor
    return page, spider.left(answer)


def _found(page: Page) -> str:
    total = f" of {page.total}" if page.total is not None else ""
    more = "and more pages" if page.next_cursor else "on the only page"
    skipped = "".join(f", {count} left out: {reason}" for reason, count in page.skipped.items())
    return f"{counted(len(page.posts), 'post')}{total}, {more}{skipped}"


def fields_found(posts: Sequence[Post]) -> str:
    """In how many of POSTS each field was found, as a table."""
    rows = []
    for name in FIELDS:
        count = sum(bool(_field(post, name)) for post in posts)
        rows.append((name, f"{count} of {len(posts)}", "found" if count else "missing"))
    photos = sum(len(post.photos) for post in posts)
    return (
        format_table(("field", "posts", ""), rows)
        + f"\n{counted(photos, 'photo')} in {counted(len(posts), 'post')}"
    )


def _field(post: Post, name: str) -> object:
    # Those of a title are found when the post is saved.
    return post.hashtags or hashtags_in(post.title) if name == "hashtags" else getattr(post, name)


async def estimate(
    spider: HashtagSpider, download: Download, queries: Sequence[str]
) -> list[tuple[str, int | None]]:
    """How many posts each of QUERIES would find, None where the site doesn't say.

    Raises:
        SiteRefused, LayoutChanged: it can't be asked.
    """
    if spider.weekly_hashtags is not None:
        # To ask would use them up.
        return [(query, None) for query in queries]
    counts = []
    for query in queries:
        ask = spider.count_request(query)
        if ask is not None:
            counts.append((query, await _counted(spider, download, ask)))
        else:
            page = await read_page(spider, download, query, None)
            whole = len(page.posts) if page.next_cursor is None else None
            counts.append((query, page.total if page.total is not None else whole))
    return counts


async def _counted(spider: HashtagSpider, download: Download, ask: Ask | None) -> int | None:
    """The sum of a count's pieces, the first of which ASK asks for; None where one isn't said."""
    total, asked = 0, set[str]()
    while ask is not None and ask.url not in asked and len(asked) < COUNTS:
        asked.add(ask.url)
        body, url = await page_of(spider, download, ask)
        count = spider.count(body, url)
        if count is None:
            return None
        total, ask = total + count, spider.count_more(body, url)
    return total


def show_estimate(spider: HashtagSpider, counts: Sequence[tuple[str, int | None]]) -> str:
    """COUNTS as a table, with their sum and what it costs."""
    rows = [(query, "not said" if count is None else str(count)) for query, count in counts]
    known = [count for _, count in counts if count is not None]
    if not known:
        return f"{format_table(('search', 'posts'), rows)}\n{_unsaid(spider, len(counts))}"
    total, said = sum(known), "in all"
    if len(known) < len(counts):
        said = "that the site speaks of"
    elif len(known) > 1:
        said = "in all, those that several searches find counted for each"
    # Whole cents, upwards, in whole numbers: a tenth of a cent is no float.
    cents = -(-total * round(spider.dollars * 1000) // 10)
    cost = f": at most ${cents / 100:,.2f}; {spider.charged}" if spider.charged else ""
    return f"{format_table(('search', 'posts'), rows)}\n{counted(total, 'post')} {said}{cost}"


def _unsaid(spider: HashtagSpider, searches: int) -> str:
    said, allowed = f"{spider.title} does not say how many posts there are", spider.weekly_hashtags
    if allowed is None:
        return said
    return f"{said}; a crawl would ask for {searches} of the {allowed} different hashtags of 7 days"


def dry_run(
    spiders: Sequence[HashtagSpider], words: Sequence[Sequence[str]], manners: Manners
) -> bool:
    """Print what a crawl of SPIDERS for WORDS of tags would find; whether it could be asked.

    Nothing is taken.
    """
    problems: list[str] = []

    async def main(spider: HashtagSpider, download: Download) -> None:
        queries = [HASHTAG_SEPARATOR.join(group) for tag in words for group in spider.queries(tag)]
        try:
            counts = await estimate(spider, download, queries)
            name = f"{spider.title}\n" if len(spiders) > 1 else ""
            click.echo(name + show_estimate(spider, counts))
        except Failure as problem:
            problems.append(_said(problem, spider))

    ended = run_side_by_side([(partial(main, spider), spider) for spider in spiders], manners)
    if problems:
        raise Failure("\nError: ".join(problems))
    return ended
