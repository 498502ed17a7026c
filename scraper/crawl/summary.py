"""Results of searches: counts per search, tables for people, and the same values for JSON."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataset.catalogue.models import HASHTAG_SEPARATOR
from dataset.utils.cli_options import format_table
from scraper.items import Page

# Column of the table -> how the rejection reasons begin that are counted in it.
REJECTION_COLUMNS = {
    "small": ("smaller than",),
    "robots": ("robots.txt",),
    "noai": ("noai",),
    "403": ("HTTP 403",),
    "429": ("HTTP 429",),
    "timeout": ("timeout",),
    "broken": ("broken", "cut off", "empty", "photo and program"),
    "large": ("too large", "too many pixels"),
    "private": ("private address",),
}
OTHER, LAYOUT = "other", "layout changed"
HEAD = (
    *("site", "tag", "search", "pages", "posts", "new", "duplicates", "near"),
    *(*REJECTION_COLUMNS, OTHER, "layout", "ended"),
)
TAG_HEAD = ("site", "tag", "pages", "posts", "new", "exact", "near", "rejected", "ended")
# How a search ends that has requested all its photos, or reached a limit.
GOOD_ENDS, INTERRUPTED = ("finished", "finished before", "limit"), "interrupted"


def format_count(number: int, noun: str) -> str:
    """Return a number with a noun, such as "1 post" or "1,234 posts"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@dataclass
class SearchStats:
    """The results of a search.

    Attributes:
        site: Name of the site.
        tag: The tag that the search belongs to.
        hashtag: The words that the search asks for together.
        pages: Number of pages that were read.
        posts: Number of posts on them.
        outcomes: Kind of a stored image -> number of images.
        rejected: Reason -> number of rejected images.
        skipped: Reason -> number of skipped posts.
        ended: How the search ended.
    """

    site: str
    tag: str
    hashtag: str
    pages: int = 0
    posts: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    ended: str = INTERRUPTED

    @property
    def words(self) -> list[str]:
        """The words that the search asks for together."""
        return self.hashtag.split(HASHTAG_SEPARATOR)

    def add(self, page: Page) -> None:
        """Count a page that was saved."""
        self.pages += not page.is_lookup
        self.posts += len(page.posts)
        self.skipped.update(page.skipped)
        if page.reason:
            self.rejected[page.reason] += sum(len(post.photos) for post in page.posts)

    def columns(self) -> dict[str, Any]:
        """Return the value of each column of `HEAD`."""
        rejected = Counter[str]()
        for reason, count in self.rejected.items():
            rejected[_column(reason)] += count
        return {
            "site": self.site,
            "tag": self.tag,
            "search": self.hashtag,
            "pages": self.pages,
            "posts": self.posts,
            "new": self.outcomes["new"],
            "duplicates": self.outcomes["exact duplicate"],
            "near": self.outcomes["near duplicate"],
            **{name: rejected[name] for name in (*REJECTION_COLUMNS, OTHER)},
            "layout": int(self.ended == LAYOUT),
            "ended": self.ended,
        }


def _column(reason: str) -> str:
    columns = (name for name, starts in REJECTION_COLUMNS.items() if reason.startswith(starts))
    return next(columns, OTHER)


@dataclass(frozen=True)
class LabelShortage:
    """How many photos a label is short of a minimum.

    Attributes:
        label: The label.
        photos: Number of its photos.
        minimum: Number of photos that it should have.
        missing: Number of missing photos.
        seconds: Time to collect them at the rate of this crawl; None if the rate is unknown.
        exhausted: Whether every search reached its end, so these sites do not have them.
        failed: Whether a search ended with an error.
    """

    label: str
    photos: int
    minimum: int
    missing: int
    seconds: int | None
    exhausted: bool
    failed: bool

    def __str__(self) -> str:
        text = f"{self.label}: {self.photos:,} of {self.minimum:,} photos"
        if not self.missing:
            return text
        if self.exhausted:
            why = "as these sites have no more for its search words"
        elif self.failed:
            why = "and not every search reached its end"
        elif self.seconds is None:
            why = "and this run found nothing new"
        else:
            why = f"about {format_duration(self.seconds)} at this rate"
        return f"{text}, {self.missing:,} missing, {why}"


def label_shortage(
    label: str, photos: int, minimum: int, seconds: float, searches: Iterable[SearchStats]
) -> LabelShortage:
    """Return how many photos a label is short of a minimum.

    Args:
        label: The label.
        photos: Number of its photos.
        minimum: Number of photos that it should have.
        seconds: Duration of the crawl.
        searches: All searches of the crawl.
    """
    own = [stats for stats in searches if stats.tag == label]
    missing, new = max(0, minimum - photos), sum(stats.outcomes["new"] for stats in own)
    is_exhausted = bool(own) and all(stats.ended.startswith("finished") for stats in own)
    has_failed = any(stats.ended not in (*GOOD_ENDS, INTERRUPTED) for stats in own)
    has_rate = missing and new and not is_exhausted and not has_failed
    needed = round(missing * seconds / new) if has_rate else None
    return LabelShortage(label, photos, minimum, missing, needed, is_exhausted, has_failed)


def format_duration(seconds: int) -> str:
    """Return a duration in words, such as "90 seconds", "25 minutes", "3 hours" and "9 days"."""
    for size, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{round(seconds / size)} {name}"
    return f"{seconds} seconds"


def rows(searches: Sequence[SearchStats]) -> list[tuple[str, ...]]:
    """Return one row per search, in the order of `HEAD`."""
    return [tuple(str(stats.columns()[name]) for name in HEAD) for stats in searches]


def format_summary(searches: Sequence[SearchStats], is_verbose: bool = False) -> str:
    """Return a table with one row per tag and site; columns of zeros are omitted.

    Args:
        searches: The searches.
        is_verbose: One row per search, with a column for each group of reasons.
    """
    if is_verbose:
        head, table = HEAD, rows(searches)
    else:
        groups: dict[tuple[str, str], list[SearchStats]] = {}
        for stats in searches:
            groups.setdefault((stats.site, stats.tag), []).append(stats)
        head, table = TAG_HEAD, [_tag_row(group) for group in groups.values()]
    has_one_site = len({stats.site for stats in searches}) == 1
    shown = [
        column
        for column, name in enumerate(head)
        if not (name == "site" and has_one_site) and any(row[column] != "0" for row in table)
    ]
    return format_table(
        [head[column] for column in shown], [[row[column] for column in shown] for row in table]
    )


def _tag_row(searches: Sequence[SearchStats]) -> tuple[str, ...]:
    """Return the row of a tag in the order of `TAG_HEAD`."""
    ends = Counter(stats.ended for stats in searches)
    names = list(ends) if len(ends) == 1 else [f"{count} {end}" for end, count in ends.items()]
    outcomes = sum((stats.outcomes for stats in searches), Counter[str]())
    counts = (
        sum(stats.pages for stats in searches),
        sum(stats.posts for stats in searches),
        *(outcomes[name] for name in ("new", "exact duplicate", "near duplicate")),
        sum(stats.rejected.total() for stats in searches),
    )
    return (searches[0].site, searches[0].tag, *map(str, counts), ", ".join(names))


def format_results(searches: Sequence[SearchStats], is_verbose: bool = False) -> list[str]:
    """Return the table, and a line per reason for skipped posts and rejected images."""
    skipped: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for stats in searches:
        skipped += stats.skipped
        rejected += stats.rejected
    lines = [("skipped", "post", skipped), ("rejected", "photo", rejected)]
    table = [format_summary(searches, is_verbose)] if searches else []
    return table + [
        f"{verb} {format_count(count, noun)}: {reason}"
        for verb, noun, counts in lines
        for reason, count in counts.most_common()
    ]
