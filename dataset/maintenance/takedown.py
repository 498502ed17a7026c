"""`catalogue forget`: take down images, posts or authors for good.

Rows and files are deleted, and digests keep crawls and imports from adding them again. Files are
deleted first, so repeating an interrupted command completes it.
"""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import (
    CropDecision,
    CropRow,
    FingerprintRow,
    ImageRow,
    KeptSplit,
    LabelConflict,
    LabelDecision,
    NearDuplicateRow,
    PairDecision,
    PoseRow,
    PostHashtag,
    PostRow,
    Separation,
    Sighting,
    SplitAssignment,
    TagVerdictRow,
    TakedownRow,
)
from dataset.catalogue.queries import (
    MIN_DIGITS,
    QUERY_ROWS,
    copies_of,
    find_image,
    in_batches,
    table_of,
)
from dataset.catalogue.session import Sessions, overwrite_journal
from dataset.duplicates.hashing import MIN_DECODED_PIXELS, Fingerprint, fingerprint
from dataset.images.io import Unreadable, open_photo, sha256_of
from dataset.images.store import ImageStore

IMAGE, URL, AUTHOR = "image", "url", "author"
# Why an image that was taken down is rejected.
REASON = "taken down"
# Maximum distance between the hashes of a whole photo and of a re-encoded or resized copy.
MAX_COPY_DISTANCE_BITS = 4
# Tables with an image per row.
IMAGE_TABLES = (
    *(SplitAssignment, KeptSplit, CropRow, PoseRow, FingerprintRow, Separation),
    *(LabelDecision, CropDecision, TagVerdictRow, LabelConflict),
)
# Built once: a crawl runs it with each batch.
_TAKEDOWNS = table_of(TakedownRow)
_SELECT_TAKEDOWNS = (
    sa.select(_TAKEDOWNS).where(_TAKEDOWNS.c.id > sa.bindparam("after")).order_by(_TAKEDOWNS.c.id)
)


@dataclass(frozen=True)
class TakedownResult:
    """Result of a takedown.

    Attributes:
        posts: How many posts were deleted.
        images: How many images were deleted, with near duplicates.
    """

    posts: int
    images: int


def name_digest(value: str) -> str:
    """Return the digest of a URL or an author's name."""
    return sha256_of(value.strip().removeprefix("@").casefold().encode())


def take_down(sessions: Sessions, store: ImageStore, what: str, who: str) -> TakedownResult:
    """Take down an image, a URL or an author.

    Args:
        sessions: The catalogue.
        store: The image store.
        what: A URL, an author's name, or an image (see `find_image`).
        who: Who decides.

    Raises:
        BadInput: It looks like a SHA-256, and no image has it.
        Failure: A file cannot be removed.
    """
    with sessions.begin() as session:
        if session.get_bind().dialect.name == "sqlite":
            # Overwrite deleted data with zeros.
            session.execute(sa.text("PRAGMA secure_delete = ON"))
        kind, posts, images = _resolve(session, what)
        if kind != IMAGE:
            record_takedown(session, kind, name_digest(what), None, who)
        count = delete_rows(session, store, posts, images, who)
    overwrite_journal(sessions)
    return TakedownResult(len(posts), count)


def delete_rows(
    session: Session, store: ImageStore, posts: Sequence[int], images: Sequence[int], who: str
) -> int:
    """Delete posts, and images with their near duplicates, and record the takedown of these.

    Returns:
        How many images were deleted.
    """
    copies = with_copies(session, images)
    for image in copies:
        record_takedown(session, IMAGE, image.sha256, _view_hash(session, store, image), who)
        if image.store_key:
            store.remove(image.store_key)
    _delete_posts(session, posts)
    _delete_images(session, [image.id for image in copies])
    return len(copies)


def find_named(session: Session, takedowns: "TakedownList") -> tuple[list[int], list[int]]:
    """Find the posts of a catalogue whose URL or author was taken down, and images to go.

    Returns:
        Ids of the posts, and of images in these posts or with a URL that was taken down.
    """
    if not takedowns.has_names:
        return [], []
    posts = {
        number
        for number, url, author in session.execute(
            sa.select(PostRow.id, PostRow.url, PostRow.author).execution_options(
                yield_per=QUERY_ROWS
            )
        )
        if takedowns.has_name(URL, [url]) or takedowns.has_name(AUTHOR, [author])
    }
    shown = sa.select(Sighting.post_id, Sighting.url, Sighting.fallbacks, Sighting.image_id)
    images = {
        image
        for post, url, fallbacks, image in session.execute(
            shown.execution_options(yield_per=QUERY_ROWS)
        )
        if image and (post in posts or takedowns.has_name(URL, [url, *fallbacks.split("\n")]))
    }
    return sorted(posts), sorted(images)


def _resolve(session: Session, what: str) -> tuple[str, list[int], list[int]]:
    """Return the kind of a takedown, its posts and its images."""
    if what.startswith(("http://", "https://")):
        posts = _ids(session, sa.select(PostRow.id).where(PostRow.url == what))
        shown = sa.or_(Sighting.url == what, Sighting.post_id.in_(posts))
        images = sa.select(Sighting.image_id).where(shown, Sighting.image_id.is_not(None))
        return URL, posts, _ids(session, images.distinct())
    name = what.strip().removeprefix("@")
    by_author = sa.select(PostRow.id).where(
        sa.func.lower(PostRow.author).in_([name.lower(), f"@{name.lower()}"])
    )
    posts = _ids(session, by_author)
    if not posts and _may_be_image(what):
        return IMAGE, [], [find_image(session, what).id]
    images = sa.select(Sighting.image_id).where(
        Sighting.post_id.in_(by_author), Sighting.image_id.is_not(None)
    )
    return AUTHOR, posts, _ids(session, images.distinct())


def _may_be_image(what: str) -> bool:
    stem = what.rpartition("/")[2].partition(".")[0]
    return len(stem) >= MIN_DIGITS and not set(stem) - set("0123456789abcdef")


def _ids(session: Session, query: sa.Select) -> list[int]:
    return list(session.scalars(query))


def with_copies(session: Session, images: Sequence[int]) -> list[ImageRow]:
    """Return the rows of images and of all near duplicates in their clusters."""
    rows: dict[int, ImageRow] = {}
    for batch in in_batches(images):
        rows |= {
            row.id: row for row in session.scalars(sa.select(ImageRow).where(copies_of(batch)))
        }
    return list(rows.values())


def _view_hash(session: Session, store: ImageStore, image: ImageRow) -> bytes | None:
    """Return the hash of the whole image, None if it has neither a fingerprint nor a file."""
    views = session.scalar(sa.select(FingerprintRow.views).filter_by(image_id=image.id))
    if views is None and image.store_key:
        with contextlib.suppress(OSError, Unreadable):
            photo = open_photo(store.read(image.store_key), MIN_DECODED_PIXELS)
            views, _ = fingerprint(photo).packed
    return views[:8] if views else None


def record_takedown(
    session: Session, kind: str, digest: str, view_hash: bytes | None, who: str
) -> None:
    """Save that an image, a URL or an author was taken down, unless it is saved already.

    Args:
        session: The session.
        kind: IMAGE, URL or AUTHOR.
        digest: SHA-256 of the file, or `name_digest`.
        view_hash: Hash of the whole image.
        who: Who decided.
    """
    if session.scalar(sa.select(TakedownRow.id).filter_by(kind=kind, digest=digest)) is None:
        session.add(TakedownRow(kind=kind, digest=digest, view_hash=view_hash, who=who))
        session.flush()


def _delete_posts(session: Session, posts: Sequence[int]) -> None:
    for batch in in_batches(posts):
        _delete(session, Sighting, Sighting.post_id.in_(batch))
        _delete(session, PostHashtag, PostHashtag.post_id.in_(batch))
        _delete(session, PostRow, PostRow.id.in_(batch))


def _delete_images(session: Session, images: Sequence[int]) -> None:
    for batch in in_batches(images):
        for table in IMAGE_TABLES:
            _delete(session, table, table.image_id.in_(batch))
        for pair in (NearDuplicateRow, PairDecision):
            _delete(session, pair, sa.or_(pair.one_id.in_(batch), pair.other_id.in_(batch)))
        session.execute(
            sa.update(Sighting)
            .where(Sighting.image_id.in_(batch))
            .values(state="rejected", reason=REASON, image_id=None)
            .execution_options(synchronize_session=False)
        )
        _delete(session, ImageRow, ImageRow.id.in_(batch))


def _delete(session: Session, table: type, condition: sa.ColumnElement[bool]) -> None:
    session.execute(sa.delete(table).where(condition).execution_options(synchronize_session=False))


class TakedownList:
    """The takedowns of a catalogue in memory, to check what is added."""

    def __init__(self) -> None:
        """Start with an empty list; `catch_up` loads it."""
        self._newest = 0
        self._known: set[tuple[str, str]] = set()
        self._view_hashes: list[int] = []

    def catch_up(self, session: Session) -> None:
        """Load the takedowns since the last call."""
        for row in session.connection().execute(_SELECT_TAKEDOWNS, {"after": self._newest}):
            self._newest = row.id
            self._known.add((row.kind, row.digest))
            if row.view_hash:
                self._view_hashes.append(int.from_bytes(row.view_hash, "little"))

    @property
    def has_names(self) -> bool:
        """Whether a URL or an author was taken down, and not only images."""
        return any(kind != IMAGE for kind, _ in self._known)

    def has_name(self, kind: str, values: Iterable[str | None]) -> bool:
        """Return whether one of several URLs or authors was taken down."""
        return bool(self._known) and any(
            (kind, name_digest(value)) in self._known for value in values if value
        )

    def has_file(self, sha256: str) -> bool:
        """Return whether the image with a SHA-256 was taken down."""
        return (IMAGE, sha256) in self._known

    def has_image(self, sha256: str, fingerprint: Fingerprint) -> bool:
        """Return whether an image, or one that it is a copy of, was taken down."""
        if self.has_file(sha256):
            return True
        hashes = np.array(self._view_hashes, np.uint64)
        distances = np.bitwise_count(hashes ^ fingerprint.views[0])
        return bool((distances <= MAX_COPY_DISTANCE_BITS).any())
