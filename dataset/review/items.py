"""What is shown of a row of a queue: its photos, what is known of them, and what was decided."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.candidates import Drops, fold, load
from dataset.catalogue.check_tables import Judgement
from dataset.catalogue.queries import copies_of
from dataset.catalogue.review_tables import Conflict
from dataset.catalogue.tables import (
    CropRow,
    Hashtag,
    ImageRow,
    Pose,
    PostHashtag,
    PostRow,
    ResemblanceRow,
    Sighting,
)
from dataset.labelling import labels_of
from dataset.labels import Vocabulary
from dataset.review.decisions import Said, current
from dataset.review.queues import DUPLICATES, Key, Queue, is_key

# More posts and tags of one photo than this are not shown.
MOST_POSTS, MOST_TAGS = 12, 200
# Key points of a lower score are not drawn.
FAINTEST = 0.2


@dataclass(frozen=True)
class Post:
    """A post that shows the photo. `url` is empty where it is no web address."""

    site: str
    url: str
    title: str
    facts: str


@dataclass(frozen=True)
class Crop:
    """What is kept of a photo, in its pixels, and why not what was asked."""

    left: float
    top: float
    width: float
    height: float
    outcome: str
    reason: str
    score: float


@dataclass(frozen=True)
class Photo:
    """An image as it is shown. `points`: x, y in pixels, score; `labels`: by its hashtags."""

    id: int
    sha256: str
    width: int
    height: int
    labels: tuple[str, ...]
    posts: tuple[Post, ...]
    tags: tuple[str, ...]
    crop: Crop | None
    points: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Near:
    """A training photo that looks like the one in question; `id` is None where it is not here."""

    id: int | None
    label: str
    likeness: float


@dataclass(frozen=True)
class Item:
    """A row of a queue. `tagged`: the label in question; `choices`: labels to choose from."""

    key: Key
    photos: tuple[Photo, ...]
    said: Said | None
    tagged: str = ""
    choices: tuple[str, ...] = ()
    judgement: Judgement | None = None
    nearest: tuple[Near, ...] = ()
    likeness: float | None = None
    mirrored: bool = False


def load_item(session: Session, queue: Queue, key: Key, vocabulary: Vocabulary) -> Item | None:
    """The row of KEY with all that is shown of it; None where it or a photo of it is gone."""
    row = session.execute(sa.select(queue.keys[0].class_).where(*is_key(queue, key))).scalar()
    if row is None:
        return None
    images = key[:2] if queue is DUPLICATES else key[:1]
    crop = row if isinstance(row, CropRow) else None
    photos = [_photo(session, image, crop, vocabulary) for image in images]
    if any(photo is None for photo in photos):
        return None
    return Item(
        key=key,
        photos=tuple(photo for photo in photos if photo is not None),
        said=current(session, queue, key),
        **_details(session, row),
    )


def _details(session: Session, row: Any) -> dict[str, Any]:
    """What only some queues know of a row."""
    if isinstance(row, Judgement):
        return {"tagged": row.label, "judgement": row, "nearest": _nearest(session, row.nearest)}
    if isinstance(row, Conflict):
        return {"choices": tuple(json.loads(row.labels))}
    if isinstance(row, ResemblanceRow):
        return {"likeness": row.likeness, "mirrored": row.mirrored}
    return {}


def _photo(
    session: Session, number: int, crop: CropRow | None, vocabulary: Vocabulary
) -> Photo | None:
    image = session.get(ImageRow, number)
    if image is None or image.state != "stored" or not image.width or not image.height:
        return None
    crop = crop or _latest_crop(session, number)
    return Photo(
        id=image.id,
        sha256=image.sha256,
        width=image.width,
        height=image.height,
        labels=_labels(session, image, vocabulary),
        posts=_posts(session, image),
        tags=_tags(session, image),
        crop=_crop(crop) if crop else None,
        points=_points(session, number, crop),
    )


def _labels(session: Session, image: ImageRow, vocabulary: Vocabulary) -> tuple[str, ...]:
    clusters = [] if image.cluster_id is None else [image.cluster_id]
    folded = fold(load(session, clusters=clusters), Drops())
    return tuple(label for photo in folded for label in labels_of(photo, vocabulary))


def _latest_crop(session: Session, image: int) -> CropRow | None:
    """The crop by the network that looked last."""
    return session.scalar(
        sa.select(CropRow)
        .join(Pose, sa.and_(Pose.image_id == CropRow.image_id, Pose.model == CropRow.model))
        .where(CropRow.image_id == image)
        .order_by(Pose.made.desc(), CropRow.model, CropRow.zone)
        .limit(1)
    )


def _crop(row: CropRow) -> Crop:
    width, height = row.right - row.left, row.bottom - row.top
    return Crop(row.left, row.top, width, height, row.outcome, row.reason, row.score)


def _points(
    session: Session, image: int, crop: CropRow | None
) -> tuple[tuple[float, float, float], ...]:
    if crop is None:
        return ()
    packed = session.scalar(sa.select(Pose.points).filter_by(image_id=image, model=crop.model))
    if packed is None:
        return ()
    rows = np.frombuffer(packed, "<f4").reshape(-1, 7)[:, :3]
    seen = rows[rows[:, 2] >= FAINTEST].astype(float)
    return tuple((x, y, score) for x, y, score in seen.round(2).tolist())


def _shows(image: ImageRow) -> Any:
    """Whether a sighting is of IMAGE or of a copy of it."""
    return Sighting.image_id.in_(sa.select(ImageRow.id).where(copies_of([image.id])))


def _posts(session: Session, image: ImageRow) -> tuple[Post, ...]:
    """Its own posts first, then those of its copies."""
    own = sa.func.max(sa.case((Sighting.image_id == image.id, 1), else_=0))
    chosen = (
        sa.select(Sighting.post_id, own.label("own"))
        .where(_shows(image))
        .group_by(Sighting.post_id)
        .order_by(own.desc(), Sighting.post_id)
        .limit(MOST_POSTS)
        .subquery()
    )
    rows = session.scalars(
        sa.select(PostRow)
        .join(chosen, chosen.c.post_id == PostRow.id)
        .order_by(chosen.c.own.desc(), PostRow.id)
    )
    return tuple(_post(row) for row in rows)


def _post(row: PostRow) -> Post:
    price = None if row.price is None else f"{row.price:g} {row.currency or ''}".strip()
    facts = " · ".join(fact for fact in (row.brand, price, row.author) if fact)
    # What a site sent is a link only where no browser takes it for a program.
    url = row.url if row.url.startswith(("https://", "http://")) else ""
    return Post(row.site, url, row.title or "", facts)


def _tags(session: Session, image: ImageRow) -> tuple[str, ...]:
    """All hashtags of the photo's posts, those that it was found under first."""
    found = sa.func.max(sa.case((PostHashtag.source == "search", 1), else_=0))
    return tuple(
        session.scalars(
            sa.select(Hashtag.text)
            .join(PostHashtag, PostHashtag.hashtag_id == Hashtag.id)
            .where(PostHashtag.post_id.in_(sa.select(Sighting.post_id).where(_shows(image))))
            .group_by(Hashtag.id, Hashtag.text)
            .order_by(found.desc(), Hashtag.id)
            .limit(MOST_TAGS)
        )
    )


def _nearest(session: Session, packed: str) -> tuple[Near, ...]:
    told = json.loads(packed)
    if not told:
        return ()
    names = [str(one.get("sha256")) for one in told]
    query = sa.select(ImageRow.sha256, ImageRow.id).where(
        ImageRow.sha256.in_(names), ImageRow.state == "stored"
    )
    numbers = {name: number for name, number in session.execute(query)}  # noqa: C416
    return tuple(
        Near(numbers.get(name), str(one.get("label", "")), float(one.get("likeness", 0)))
        for name, one in zip(names, told, strict=True)
    )
