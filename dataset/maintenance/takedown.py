"""Taking something down for good: its rows and files go, and its digests keep it from coming back.

Files go first: who is killed in between repeats the command and nothing is left.
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
# Why a photo is refused that was taken down.
REASON = "taken down"
# Bits of a whole photo's hash in which a re-encoded or resized copy differs at most.
MAX_COPY_DISTANCE_BITS = 4
# Tables with one image a row.
OF_IMAGES = (
    *(SplitAssignment, KeptSplit, CropRow, PoseRow, FingerprintRow, Separation),
    *(LabelDecision, CropDecision, TagVerdictRow, LabelConflict),
)
# Made once: a crawl asks with each batch.
_FORGOTTEN = table_of(TakedownRow)
_FORGOTTEN_AFTER = (
    sa.select(_FORGOTTEN).where(_FORGOTTEN.c.id > sa.bindparam("after")).order_by(_FORGOTTEN.c.id)
)


@dataclass(frozen=True)
class TakedownResult:
    """What was taken down: posts, and images with all their copies."""

    posts: int
    images: int


def name_digest(value: str) -> str:
    """By which an address or a name is remembered."""
    return sha256_of(value.strip().removeprefix("@").casefold().encode())


def take_down(sessions: Sessions, store: ImageStore, what: str, who: str) -> TakedownResult:
    """Take down WHAT, an address, an author's name or an image, on WHO's word.

    Raises:
        BadInput: it is an image's digits, and no image has them.
        Failure: a file can't be removed.
    """
    with sessions.begin() as session:
        if session.get_bind().dialect.name == "sqlite":
            # What is deleted is overwritten, too.
            session.execute(sa.text("PRAGMA secure_delete = ON"))
        kind, posts, images = _found(session, what)
        if kind != IMAGE:
            record_takedown(session, kind, name_digest(what), None, who)
        count = delete_rows(session, store, posts, images, who)
    overwrite_journal(sessions)
    return TakedownResult(len(posts), count)


def delete_rows(
    session: Session, store: ImageStore, posts: Sequence[int], images: Sequence[int], who: str
) -> int:
    """Take down POSTS, and IMAGES with their copies, and remember these; returns how many."""
    copies = with_copies(session, images)
    for image in copies:
        record_takedown(session, IMAGE, image.sha256, _whole(session, store, image), who)
        if image.store_key:
            store.remove(image.store_key)
    _delete_posts(session, posts)
    _delete_images(session, [image.id for image in copies])
    return len(copies)


def find_named(session: Session, forgotten: "TakedownList") -> tuple[list[int], list[int]]:
    """Posts of a catalogue that FORGOTTEN names by address or author, and images shown there."""
    if not forgotten.any_names:
        return [], []
    posts = {
        number
        for number, url, author in session.execute(
            sa.select(PostRow.id, PostRow.url, PostRow.author).execution_options(
                yield_per=QUERY_ROWS
            )
        )
        if forgotten.names(URL, [url]) or forgotten.names(AUTHOR, [author])
    }
    shown = sa.select(Sighting.post_id, Sighting.url, Sighting.fallbacks, Sighting.image_id)
    images = {
        image
        for post, url, fallbacks, image in session.execute(
            shown.execution_options(yield_per=QUERY_ROWS)
        )
        if image and (post in posts or forgotten.names(URL, [url, *fallbacks.split("\n")]))
    }
    return sorted(posts), sorted(images)


def _found(session: Session, what: str) -> tuple[str, list[int], list[int]]:
    """The kind of WHAT, the posts that go, and the images."""
    if what.startswith(("http://", "https://")):
        posts = _ids(session, sa.select(PostRow.id).where(PostRow.url == what))
        shown = sa.or_(Sighting.url == what, Sighting.post_id.in_(posts))
        images = sa.select(Sighting.image_id).where(shown, Sighting.image_id.is_not(None))
        return URL, posts, _ids(session, images.distinct())
    name = what.strip().removeprefix("@")
    named = sa.select(PostRow.id).where(
        sa.func.lower(PostRow.author).in_([name.lower(), f"@{name.lower()}"])
    )
    posts = _ids(session, named)
    if not posts and _may_be_image(what):
        return IMAGE, [], [find_image(session, what).id]
    images = sa.select(Sighting.image_id).where(
        Sighting.post_id.in_(named), Sighting.image_id.is_not(None)
    )
    return AUTHOR, posts, _ids(session, images.distinct())


def _may_be_image(what: str) -> bool:
    stem = what.rpartition("/")[2].partition(".")[0]
    return len(stem) >= MIN_DIGITS and not set(stem) - set("0123456789abcdef")


def _ids(session: Session, query: sa.Select) -> list[int]:
    return list(session.scalars(query))


def with_copies(session: Session, images: Sequence[int]) -> list[ImageRow]:
    """The rows of IMAGES and of all that were folded with them: to the eye they are one photo."""
    found: dict[int, ImageRow] = {}
    for part in in_batches(images):
        found |= {
            one.id: one for one in session.scalars(sa.select(ImageRow).where(copies_of(part)))
        }
    return list(found.values())


def _whole(session: Session, store: ImageStore, image: ImageRow) -> bytes | None:
    """The hash of the whole photo, None where it has neither a fingerprint nor a file."""
    views = session.scalar(sa.select(FingerprintRow.views).filter_by(image_id=image.id))
    if views is None and image.store_key:
        with contextlib.suppress(OSError, Unreadable):
            views, _ = fingerprint(
                open_photo(store.read(image.store_key), MIN_DECODED_PIXELS)
            ).packed
    return views[:8] if views else None


def record_takedown(session: Session, kind: str, value: str, whole: bytes | None, who: str) -> None:
    """Keep WHO's word that what has the digest VALUE, and WHOLE as its hash, never comes back."""
    if session.scalar(sa.select(TakedownRow.id).filter_by(kind=kind, digest=value)) is None:
        session.add(TakedownRow(kind=kind, digest=value, view_hash=whole, who=who))
        session.flush()


def _delete_posts(session: Session, posts: Sequence[int]) -> None:
    for part in in_batches(posts):
        _delete(session, Sighting, Sighting.post_id.in_(part))
        _delete(session, PostHashtag, PostHashtag.post_id.in_(part))
        _delete(session, PostRow, PostRow.id.in_(part))


def _delete_images(session: Session, images: Sequence[int]) -> None:
    for part in in_batches(images):
        for table in OF_IMAGES:
            _delete(session, table, table.image_id.in_(part))
        for pair in (NearDuplicateRow, PairDecision):
            _delete(session, pair, sa.or_(pair.one_id.in_(part), pair.other_id.in_(part)))
        session.execute(
            sa.update(Sighting)
            .where(Sighting.image_id.in_(part))
            .values(state="rejected", reason=REASON, image_id=None)
            .execution_options(synchronize_session=False)
        )
        _delete(session, ImageRow, ImageRow.id.in_(part))


def _delete(session: Session, table: type, which: sa.ColumnElement[bool]) -> None:
    session.execute(sa.delete(table).where(which).execution_options(synchronize_session=False))


class TakedownList:
    """What was taken down, to ask before anything is kept; it learns of what others take down."""

    def __init__(self) -> None:
        self._newest = 0
        self._known: set[tuple[str, str]] = set()
        self._wholes: list[int] = []

    def catch_up(self, session: Session) -> None:
        """Learn of what was taken down since."""
        for row in session.connection().execute(_FORGOTTEN_AFTER, {"after": self._newest}):
            self._newest = row.id
            self._known.add((row.kind, row.digest))
            if row.view_hash:
                self._wholes.append(int.from_bytes(row.view_hash, "little"))

    @property
    def any_names(self) -> bool:
        """Whether an address or an author was taken down, and not only images."""
        return any(kind != IMAGE for kind, _ in self._known)

    def names(self, kind: str, values: Iterable[str | None]) -> bool:
        """Whether one of VALUES, addresses or authors, was taken down."""
        return bool(self._known) and any(
            (kind, name_digest(value)) in self._known for value in values if value
        )

    def has_bytes(self, sha256: str) -> bool:
        """Whether the file of SHA256 was taken down."""
        return (IMAGE, sha256) in self._known

    def is_image(self, sha256: str, fingerprint: Fingerprint) -> bool:
        """Whether the photo of SHA256 was taken down, or one that it is a copy of."""
        if self.has_bytes(sha256):
            return True
        wholes = np.array(self._wholes, np.uint64)
        return bool(
            (np.bitwise_count(wholes ^ fingerprint.views[0]) <= MAX_COPY_DISTANCE_BITS).any()
        )
