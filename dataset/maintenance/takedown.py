"""`catalogue forget`: take down images, posts or authors for good.

Rows and files are deleted, and digests keep crawls and imports from adding them again. Files are
deleted first, so repeating an interrupted command completes it.
"""

import contextlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlencode, urlsplit

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
from dataset.errors import Failure, shorten_for_display
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


# Query parameters that say where a visitor comes from, and not what a page shows.
_TRACKING = re.compile(
    r"(utm|mc|pk|hsa|mtm|vero|oly|stm)_\w+|_?(ga|gl|hsenc|openstat)|(fb|g|y|ms|tw|dc)clid|gbraid|"
    r"wbraid|igsh(id)?|ref(_\w+|errer)?|share_?id|s|t|si|source|from|feature",
    re.IGNORECASE,
)
_URL_START = re.compile(r"https?://|[\w-]+(\.[\w-]+)*\.[a-z]{2,}(:\d+)?/", re.IGNORECASE)
# Parts of an address that are shorter are no ids; a word is an id only if it has a digit.
_MIN_ID_CHARACTERS = 5


def name_digest(value: str) -> str:
    """Return the digest of a URL, of an author's name, or of the id of a post or photo."""
    value = canonical_url(value) if "://" in value else value.strip().removeprefix("@").casefold()
    return sha256_of(value.encode())


def canonical_url(url: str, fold_case: bool = True) -> str:
    """Return a URL without what does not change the page that it names.

    These are the scheme, `www.` and `m.`, the last slash, parameters for tracking, their order, and
    the fragment.

    Args:
        url: The URL.
        fold_case: Fold the case of the path and the query as well. Ids of some sites differ in
            their case only.
    """
    parts = _split(url)
    if parts is None:
        return url.strip().casefold()
    host = re.sub(r"^(www|m|mobile)\.", "", parts.netloc.rpartition("@")[2].casefold())
    path = re.sub("/+", "/", unquote(parts.path)).rstrip("/")
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = urlencode(sorted(pair for pair in pairs if not _TRACKING.fullmatch(pair[0])))
    rest = f"{path}?{query}" if query else path
    return host + (rest.casefold() if fold_case else rest)


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url.strip() if "://" in url else f"https://{url.strip()}")
    except ValueError:
        return None


def post_name(site: str, site_id: str) -> str:
    """Return the name under which the takedown of a post is saved, whatever its URL is."""
    return f"{site}:{site_id}"


def photo_name(site: str, key: str) -> str:
    """Return the name under which the takedown of a photo with a key is saved."""
    return f"{site}:photo:{key}"


def take_down(
    sessions: Sessions, store: ImageStore, what: str, who: str, kind: str | None = None
) -> TakedownResult:
    """Take down an image, a URL or an author.

    Args:
        sessions: The catalogue.
        store: The image store.
        what: A URL, an author's name, or an image (see `find_image`).
        who: Name of the reviewer.
        kind: URL or AUTHOR, which is then saved for later crawls even if the catalogue has nothing
            of it; None: by the form of `what`.

    Raises:
        BadInput: It looks like a SHA-256, and no image has it.
        Failure: The catalogue has nothing of it, several posts or photos could be meant, or a file
            cannot be removed.
    """
    with sessions.begin() as session:
        if session.get_bind().dialect.name == "sqlite":
            # Overwrite deleted data with zeros.
            session.execute(sa.text("PRAGMA secure_delete = ON"))
        target = _resolve(session, what, kind)
        if kind is None and not (target.posts or target.images or target.sightings):
            raise Failure(
                f"{shorten_for_display(what)} is not in the catalogue, and nothing was changed;"
                " to block it in later crawls and imports anyway, add --url or --author"
            )
        for name in sorted(target.names):
            record_takedown(session, target.kind, name_digest(name), None, who)
        _reject(session, target.sightings)
        count = delete_rows(session, store, target.posts, target.images, who)
    overwrite_journal(sessions)
    return TakedownResult(len(target.posts), count)


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
    """Find the posts of a catalogue whose URL, id or author was taken down, and images to delete.

    Returns:
        Ids of the posts, and of images in these posts or with a URL that was taken down.
    """
    if not takedowns.has_names:
        return [], []
    columns = sa.select(PostRow.id, PostRow.site, PostRow.site_id, PostRow.url, PostRow.author)
    posts = {
        number
        for number, site, site_id, url, author in session.execute(
            columns.execution_options(yield_per=QUERY_ROWS)
        )
        if takedowns.has_post(site, site_id, url, author)
    }
    shown = sa.select(
        *(Sighting.post_id, PostRow.site, Sighting.key),
        *(Sighting.url, Sighting.fallbacks, Sighting.image_id),
    ).join(PostRow, PostRow.id == Sighting.post_id)
    images = {
        image
        for post, site, key, url, fallbacks, image in session.execute(
            shown.execution_options(yield_per=QUERY_ROWS)
        )
        if image
        and (post in posts or takedowns.has_photo(site, key, [url, *fallbacks.split("\n")]))
    }
    return sorted(posts), sorted(images)


@dataclass(frozen=True)
class _Target:
    """What is to be taken down.

    Attributes:
        kind: IMAGE, URL or AUTHOR.
        names: Names to save.
        posts: Ids of posts.
        images: Ids of images.
        sightings: Ids of photos in posts, with images or without.
    """

    kind: str
    names: set[str] = field(default_factory=set)
    posts: list[int] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    sightings: list[int] = field(default_factory=list)


def _resolve(session: Session, what: str, kind: str | None) -> _Target:
    """Find what is to be taken down."""
    if kind == URL or (kind is None and _URL_START.match(what.strip())):
        return _resolve_url(session, what.strip())
    posts = [post.id for post in _rows_of_author(session, what)]
    if kind is None and not posts and (_may_be_image(what) or Path(what).is_file()):
        return _Target(IMAGE, images=[find_image(session, what).id])
    return _Target(AUTHOR, {what}, posts, _images_of_posts(session, posts))


def _rows_of_author(session: Session, name: str) -> list[Any]:
    # SQLite's lower() changes ASCII letters only.
    digest = name_digest(name)
    authors = session.scalars(sa.select(PostRow.author).distinct())
    same = [author for author in authors if author and name_digest(author) == digest]
    columns = sa.select(PostRow.id, PostRow.site, PostRow.url)
    return list(session.execute(columns.where(PostRow.author.in_(same))))


def _images_of_posts(session: Session, posts: Sequence[int]) -> list[int]:
    images: set[int] = set()
    for batch in in_batches(posts):
        is_shown = (Sighting.post_id.in_(batch), Sighting.image_id.is_not(None))
        images |= {*_ids(session, sa.select(Sighting.image_id).where(*is_shown))}
    return sorted(images)


@dataclass(frozen=True)
class _Address:
    """A URL that names a post or a photo.

    Attributes:
        url: The URL.
    """

    url: str

    @property
    def segments(self) -> list[str]:
        """The parts of the path."""
        parts = _split(self.url)
        return [part for part in unquote(parts.path).split("/") if part] if parts else []

    @property
    def ids(self) -> set[str]:
        """What may be an id: parts of the path, parts of a slug, and values of parameters."""
        parts = _split(self.url)
        values = [value for _, value in parse_qsl(parts.query)] if parts else []
        pieces = {piece for part in self.segments for piece in part.split("-")}
        return {*self.segments, *values, *filter(_is_id, pieces)}

    @property
    def file(self) -> str:
        """The name of the file without its extension, in lower case."""
        return self.segments[-1].partition(".")[0].casefold() if self.segments else ""

    def is_on(self, site: str, other: "_Address") -> bool:
        """Return whether the URL is on the site of another one: lamoda.ru and lamoda.by are."""
        host, other_host = (
            canonical_url(url).partition("/")[0].partition(":")[0] for url in (self.url, other.url)
        )
        name, other_name = (text.split(".")[-2:][0] for text in (host, other_host))
        return host == other_host or name == other_name or site in host.split(".")

    def distance(self, other: "_Address") -> int | None:
        """Return how much two URLs differ that name the same; None if they do not."""
        if self.url == other.url:
            return 0
        for fold_case, distance in ((False, 1), (True, 4)):
            first, second = (canonical_url(url, fold_case) for url in (self.url, other.url))
            if first == second:
                return distance
            if first.partition("?")[0] == second.partition("?")[0]:
                return distance + 1
        return None


def _is_id(text: str) -> bool:
    return len(text) >= _MIN_ID_CHARACTERS and any(map(str.isdigit, text))


def _resolve_url(session: Session, url: str) -> _Target:
    """Find the posts and photos that a URL names: by the URL, or by the ids within it."""
    address, names = _Address(url), {url if "://" in url else f"https://{url}"}
    posts = _nearest(
        ((_post_distance(address, post), post) for post in _posts_like(session, address)),
        lambda post: (post.site, post.site_id),
    )
    if posts:
        ids = [post.id for post in posts]
        names |= {name for post in posts for name in (post.url, post_name(post.site, post.site_id))}
        return _Target(URL, names, ids, _images_of_posts(session, ids))
    photos = _nearest(
        ((_photo_distance(address, photo), photo) for photo in _photos_like(session, address)),
        lambda photo: photo.image_id or canonical_url(photo.url),
    )
    for photo in photos:
        names |= {photo.url, *filter(None, photo.fallbacks.split("\n"))}
        if photo.key:
            names.add(photo_name(photo.site, photo.key))
    images = {photo.image_id for photo in photos if photo.image_id}
    if not photos and len(address.segments) == 1:
        # The page of an author.
        name = address.segments[0]
        rows = _rows_of_author(session, name)
        posts = [post.id for post in rows if address.is_on(post.site, _Address(post.url))]
        if posts:
            return _Target(AUTHOR, {name}, posts, _images_of_posts(session, posts))
    return _Target(URL, names, [], sorted(images), [photo.id for photo in photos])


def _nearest(rows: Iterable[tuple[int | None, Any]], identity: Callable[[Any], Any]) -> list[Any]:
    """Return the rows of the least distance.

    Raises:
        Failure: The URL only resembles those of the rows, and they are of several things.
    """
    ranked = [(distance, row) for distance, row in rows if distance is not None]
    if not ranked:
        return []
    least = min(distance for distance, _ in ranked)
    nearest = [row for distance, row in ranked if distance == least]
    if least > 1 and len({identity(row) for row in nearest}) > 1:
        raise Failure(
            f"several posts or photos may be meant: {nearest[0].url}, {nearest[1].url}; give the"
            " whole address of one"
        )
    return nearest


def _posts_like(session: Session, address: _Address) -> Iterator[Any]:
    ids = {variant for text in address.ids for variant in (text, text.upper(), text.lower())}
    columns = sa.select(PostRow.id, PostRow.site, PostRow.site_id, PostRow.url)
    if address.segments:
        similar = PostRow.url.icontains(address.segments[-1], autoescape=True)
        yield from session.execute(columns.where(PostRow.site_id.in_(ids) | similar))


def _post_distance(address: _Address, post: Any) -> int | None:
    stored = _Address(post.url)
    distance = address.distance(stored)
    if (distance is None or distance > 3) and address.is_on(post.site, stored):
        # The last part of a stored URL is an id, or a name such as detail.aspx.
        own = {post.site_id, *(text for text in stored.segments[-1:] if not text.islower())}
        own = {text for text in own if len(text) >= _MIN_ID_CHARACTERS}
        if not address.ids.isdisjoint(own):
            return 3
        ids = {text.casefold() for text in address.ids}
        if distance is None and not ids.isdisjoint(text.casefold() for text in own):
            return 6
    return distance


def _photos_like(session: Session, address: _Address) -> Iterator[Any]:
    columns = sa.select(
        *(Sighting.id, Sighting.url, Sighting.fallbacks, Sighting.key, Sighting.image_id),
        PostRow.site,
    ).join(PostRow, PostRow.id == Sighting.post_id)
    if address.segments:
        # The longest part is the rarest.
        part = max((text.partition(".")[0] for text in address.segments), key=len)
        urls = (Sighting.url, Sighting.fallbacks)
        similar = sa.or_(*(column.icontains(part, autoescape=True) for column in urls))
        yield from session.execute(columns.where(similar | Sighting.key.in_(address.ids)))


def _photo_distance(address: _Address, photo: Any) -> int | None:
    stored = [_Address(url) for url in (photo.url, *filter(None, photo.fallbacks.split("\n")))]
    distances = [distance for url in stored if (distance := address.distance(url)) is not None]
    if distances:
        return min(distances)
    if not any(address.is_on(photo.site, url) for url in stored):
        return None
    is_same_file = _is_id(address.file) and any(address.file == url.file for url in stored)
    return 3 if is_same_file or photo.key in address.ids else None


def _reject(session: Session, sightings: Sequence[int]) -> None:
    """Reject photos, so that pending ones are not downloaded."""
    for batch in in_batches(sightings):
        session.execute(
            sa.update(Sighting)
            .where(Sighting.id.in_(batch))
            .values(state="rejected", reason=REASON, image_id=None)
            .execution_options(synchronize_session=False)
        )


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
            (kind, digest) in self._known
            for value in values
            if value
            # Earlier versions saved the digest of the whole URL.
            for digest in {name_digest(value), sha256_of(value.strip().casefold().encode())}
        )

    def has_post(self, site: str, site_id: str, url: str, author: str | None) -> bool:
        """Return whether a post, its URL or its author was taken down."""
        return self.has_name(AUTHOR, [author]) or self.has_name(
            URL, [url, post_name(site, site_id)]
        )

    def has_photo(self, site: str, key: str | None, urls: Iterable[str]) -> bool:
        """Return whether a photo was taken down by its key or one of its URLs."""
        return self.has_name(URL, [*urls, photo_name(site, key) if key else None])

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
