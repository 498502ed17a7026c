"""Why the yield is what it is: counts of a crawl -> rows of tables, and the same for JSON."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataset.catalogue.models import HASHTAG_SEPARATOR
from dataset.utils.cli_options import format_table
from scraper.items import Page

# A column of the table -> how the reasons for refusals begin that are counted in it.
REFUSALS = {
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
    *(*REFUSALS, OTHER, "layout", "ended"),
)
TAG_HEAD = ("site", "tag", "pages", "posts", "new", "exact", "near", "rejected", "ended")
# How a search ends that has requested all its photos, or reached a limit.
GOOD_ENDS = ("finished", "finished before", "limit")


def format_count(number: int, noun: str) -> str:
    """Such as "1 post" and "1,234 posts"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@dataclass
class SearchStats:
    """What a crawl of one search came to. `rejected`, `skipped`: reason -> photos, posts."""

    site: str
    tag: str
    hashtag: str
    pages: int = 0
    posts: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    ended: str = "interrupted"

    @property
    def words(self) -> list[str]:
        """The words that the search asks for together."""
        return self.hashtag.split(HASHTAG_SEPARATOR)

    def add(self, page: Page) -> None:
        """Count PAGE."""
        self.pages += 1
        self.posts += len(page.posts)
        self.skipped.update(page.skipped)
        if page.reason:
            self.rejected[page.reason] += sum(len(post.photos) for post in page.posts)

    def columns(self) -> dict[str, Any]:
        """A value for each of HEAD."""
        told = Counter[str]()
        for reason, count in self.rejected.items():
            told[_column(reason)] += count
        return {
            "site": self.site,
            "tag": self.tag,
            "search": self.hashtag,
            "pages": self.pages,
            "posts": self.posts,
            "new": self.outcomes["new"],
            "duplicates": self.outcomes["exact duplicate"],
            "near": self.outcomes["near duplicate"],
            **{name: told[name] for name in (*REFUSALS, OTHER)},
            "layout": int(self.ended == LAYOUT),
            "ended": self.ended,
        }


def _column(reason: str) -> str:
    found = (name for name, signs in REFUSALS.items() if reason.startswith(signs))
    return next(found, OTHER)


@dataclass(frozen=True)
class LabelShortage:
    """What a label lacks to a minimum. `seconds`: how long that takes at this crawl's rate.

    `exhausted`: every search of it came to its end, so that these sites can't give it.
    """

    label: str
    photos: int
    minimum: int
    missing: int
    seconds: int | None
    exhausted: bool

    def __str__(self) -> str:
        told = f"{self.label}: {self.photos:,} of {self.minimum:,} photos"
        if not self.missing:
            return told
        if self.exhausted:
            why = "which these sites do not have for its words"
        elif self.seconds is None:
            why = "and this run found nothing new"
        else:
            why = f"about {format_duration(self.seconds)} at this rate"
        return f"{told}, {self.missing:,} missing, {why}"


def label_shortage(
    label: str, photos: int, minimum: int, seconds: float, tallies: Iterable[SearchStats]
) -> LabelShortage:
    """What LABEL, which has PHOTOS now, lacks to MINIMUM after SECONDS of a crawl of TALLIES."""
    mine = [tally for tally in tallies if tally.tag == label]
    lacking, came = max(0, minimum - photos), sum(tally.outcomes["new"] for tally in mine)
    exhausted = bool(mine) and all(tally.ended.startswith("finished") for tally in mine)
    needed = round(lacking * seconds / came) if lacking and came and not exhausted else None
    return LabelShortage(label, photos, minimum, lacking, needed, exhausted)


def format_duration(seconds: int) -> str:
    """SECONDS in words, such as "90 seconds", "25 minutes", "3 hours" and "9 days"."""
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


def format_reasons(searches: Sequence[SearchStats]) -> list[str]:
    """Return a line per reason for skipped posts and rejected images, the most frequent first."""
    skipped: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for stats in searches:
        skipped += stats.skipped
        rejected += stats.rejected
    lines = [("skipped", "post", skipped), ("rejected", "photo", rejected)]
    return [
        f"{verb} {format_count(count, noun)}: {reason}"
        for verb, noun, counts in lines
        for reason, count in counts.most_common()
    ]
