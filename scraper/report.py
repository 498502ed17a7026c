"""Why the yield is what it is: counts of a crawl -> rows of a table."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from dataset.catalogue.tables import OR

HEAD = ("tag", "search", "pages", "posts", "new", "duplicates", "near dup.", "refused", "ended")


def counted(number: int, noun: str) -> str:
    """Such as "1 post" and "1,234 posts"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@dataclass
class Tally:
    """What a crawl of one search came to. `refused`, `skipped`: reason -> photos, posts."""

    tag: str
    hashtag: str
    pages: int = 0
    posts: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    ended: str = "interrupted"

    @property
    def words(self) -> list[str]:
        """The words that the search asks for together."""
        return self.hashtag.split(OR)


def rows(tallies: Sequence[Tally]) -> list[tuple[str, ...]]:
    """A row a search, in HEAD's order."""
    return [
        (
            tally.tag,
            tally.hashtag,
            str(tally.pages),
            str(tally.posts),
            str(tally.outcomes["new"]),
            str(tally.outcomes["exact duplicate"]),
            str(tally.outcomes["near duplicate"]),
            str(tally.refused.total()),
            tally.ended,
        )
        for tally in tallies
    ]


def reasons(tallies: Sequence[Tally]) -> list[str]:
    """A line for each reason that posts or photos were left out for, the commonest first."""
    skipped: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for tally in tallies:
        skipped += tally.skipped
        refused += tally.refused
    return [
        *(
            f"left out {counted(count, 'post')}: {reason}"
            for reason, count in skipped.most_common()
        ),
        *(
            f"refused {counted(count, 'photo')}: {reason}"
            for reason, count in refused.most_common()
        ),
    ]
