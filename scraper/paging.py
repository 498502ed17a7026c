"""Pages that come back: a site whose cursor leads in a circle, or nowhere new."""

from dataclasses import dataclass, field, replace

from scraper.spiders.base import Page

# So many pages in a row without a post that this search has not shown yet are a circle.
NOTHING_NEW = 5
# Searches of an archive pass through times without a post, but not through so many.
EMPTY = 100


@dataclass
class Paging:
    """What one run of one search has seen."""

    cursors: set[str | None] = field(default_factory=set)
    posts: set[str] = field(default_factory=set)
    idle: int = 0
    empty: int = 0

    def checked(self, page: Page, cursor: str | None) -> Page:
        """PAGE, which came for CURSOR; without its next cursor where paging has come to repeat."""
        self.cursors.add(cursor)
        ids = {post.site_id for post in page.posts}
        self.idle = 0 if ids - self.posts or not ids else self.idle + 1
        self.empty = 0 if ids or page.skipped else self.empty + 1
        self.posts |= ids
        over = self.idle >= NOTHING_NEW or self.empty >= EMPTY
        if page.next_cursor in self.cursors or over:
            return replace(page, next_cursor=None)
        return page
