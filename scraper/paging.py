"""Pages that come back: a site whose cursor leads in a circle, or nowhere new."""

from dataclasses import dataclass, field, replace
from datetime import datetime

from scraper.spiders.base import Page, Post

# So many pages in a row that are each like one before are a circle.
SEEN_BEFORE = 5
# One list of a site may repeat much of another, and an archive has times without a post; but so
# many pages in a row with nothing new lead nowhere.
NOTHING_NEW = 100
# So many pages in a row of nothing but old posts end a search that asks for newer ones.
OLD_PAGES = 2
OLDER = "older than --since"


@dataclass
class Paging:
    """What one run of one search has seen."""

    cursors: set[str | None] = field(default_factory=set)
    pages: set[frozenset[str]] = field(default_factory=set)
    posts: set[str] = field(default_factory=set)
    again: int = 0
    barren: int = 0
    old: int = 0
    circle: bool = False

    def checked(self, page: Page, cursor: str | None) -> Page:
        """PAGE, which came for CURSOR; without its next cursor where paging has come to repeat.

        `circle` says then that this was no natural end.
        """
        self.cursors.add(cursor)
        ids = frozenset(post.site_id for post in page.posts)
        self.again = self.again + 1 if ids in self.pages and ids else 0
        self.barren = 0 if ids - self.posts else self.barren + 1
        self.pages.add(ids)
        self.posts |= ids
        over = self.again >= SEEN_BEFORE or self.barren >= NOTHING_NEW
        self.circle = page.next_cursor is not None and (page.next_cursor in self.cursors or over)
        return page.as_last() if self.circle else page

    def not_older(self, page: Page, since: datetime | None) -> Page:
        """PAGE without posts that are known to be older than SINCE; the last one after a few such.

        Posts come newest first where they have a date, but for some that are pinned.
        """
        new = tuple(post for post in page.posts if not _is_older(post, since))
        left_out = len(page.posts) - len(new)
        self.old = self.old + 1 if page.posts and not new else 0
        if left_out:
            skipped = {**page.skipped, OLDER: left_out}
            page = replace(page, posts=new, skipped=skipped)
        return page.as_last() if self.old >= OLD_PAGES else page


def _is_older(post: Post, since: datetime | None) -> bool:
    return since is not None and post.posted is not None and post.posted < since
