"""Why the yield is what it is: counts of a crawl -> rows of tables, and the same for JSON."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataset.catalogue.models import HASHTAG_SEPARATOR
from scraper.spiders.base import Page

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
# How a search ends whose every photo was looked for.
GOOD_ENDS = ("finished", "finished before", "limit")


def counted(number: int, noun: str) -> str:
    """Such as "1 post" and "1,234 posts"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@dataclass
class Tally:
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
class Missing:
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
            why = f"about {lasting(self.seconds)} at this rate"
        return f"{told}, {self.missing:,} missing, {why}"


def missing(
    label: str, photos: int, minimum: int, seconds: float, tallies: Iterable[Tally]
) -> Missing:
    """What LABEL, which has PHOTOS now, lacks to MINIMUM after SECONDS of a crawl of TALLIES."""
    mine = [tally for tally in tallies if tally.tag == label]
    lacking, came = max(0, minimum - photos), sum(tally.outcomes["new"] for tally in mine)
    exhausted = bool(mine) and all(tally.ended.startswith("finished") for tally in mine)
    needed = round(lacking * seconds / came) if lacking and came and not exhausted else None
    return Missing(label, photos, minimum, lacking, needed, exhausted)


def lasting(seconds: int) -> str:
    """SECONDS in words, such as "90 seconds", "25 minutes", "3 hours" and "9 days"."""
    for size, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{round(seconds / size)} {name}"
    return f"{seconds} seconds"


def rows(tallies: Sequence[Tally]) -> list[tuple[str, ...]]:
    """Return one row per search, in the order of `HEAD`."""
    return [tuple(str(tally.columns()[name]) for name in HEAD) for tally in tallies]


def reasons(tallies: Sequence[Tally]) -> list[str]:
    """A line for each reason that posts or photos were left out for, the commonest first."""
    skipped: Counter[str] = Counter()
    rejected: Counter[str] = Counter()
    for tally in tallies:
        skipped += tally.skipped
        rejected += tally.rejected
    return [
        *(f"skipped {counted(count, 'post')}: {reason}" for reason, count in skipped.most_common()),
        *(
            f"rejected {counted(count, 'photo')}: {reason}"
            for reason, count in rejected.most_common()
        ),
    ]
