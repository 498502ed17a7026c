"""Why the yield is what it is: counts of a crawl -> rows of a table."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

HEAD = ("tag", "search", "pages", "posts", "new", "duplicates", "near dup.", "refused", "ended")


@dataclass
class Tally:
    """What a crawl of one search came to. `refused`: reason -> photos."""

    tag: str
    hashtag: str
    pages: int = 0
    posts: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    ended: str = "interrupted"


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
    """A line for each reason that photos were refused for, the commonest first."""
    total: Counter[str] = Counter()
    for tally in tallies:
        total += tally.refused
    return [f"refused {count} photos: {reason}" for reason, count in total.most_common()]
