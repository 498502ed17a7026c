"""Load what the review pages show of a queue row, and render the pages."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import jinja2
import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from dataset.catalogue.models import (
    CropRow,
    Hashtag,
    ImageRow,
    LabelConflict,
    LabelDecision,
    NearDuplicateRow,
    PoseRow,
    PostHashtag,
    PostRow,
    Search,
    Sighting,
    TagVerdictRow,
)
from dataset.catalogue.queries import copies_of
from dataset.catalogue.session import Sessions
from dataset.images.store import ImageStore
from dataset.review import decisions
from dataset.review.decisions import MAX_NAME_CHARS, CurrentDecision, current_decision
from dataset.review.pagination import (
    ALL,
    DECIDED,
    LEARNING,
    OPEN,
    ProgressCache,
    QueueFilters,
    list_keys,
)
from dataset.review.queues import (
    QUEUES,
    Key,
    ReviewQueue,
    format_key,
    key_conditions,
    parse_key,
)
from dataset.review.security import AccessPolicy, csrf_token
from dataset.selection.candidates import Exclusions, load_candidates, select_best_copies
from dataset.selection.labeling import matching_labels
from dataset.utils import html
from dataset.vocabulary import Vocabulary

MAX_SHOWN_POSTS, MAX_SHOWN_TAGS = 12, 200
# Key points with a lower score are not drawn.
MIN_POINT_SCORE = 0.2


@dataclass(frozen=True)
class ShownPost:
    """A post with the photo.

    Attributes:
        url: Its URL, empty if it is not an HTTP one.
        facts: Brand, price and author.
    """

    site: str
    url: str
    title: str
    facts: str


@dataclass(frozen=True)
class ShownCrop:
    """The crop of a photo in pixels, and why it is not what was requested."""

    left: float
    top: float
    width: float
    height: float
    outcome: str
    reason: str
    score: float


@dataclass(frozen=True)
class ShownPhoto:
    """An image as it is shown.

    Attributes:
        labels: Labels of its hashtags.
        tags: All hashtags of its posts.
        points: x and y in pixels, and score of each key point.
    """

    id: int
    sha256: str
    width: int
    height: int
    labels: tuple[str, ...]
    posts: tuple[ShownPost, ...]
    tags: tuple[str, ...]
    crop: ShownCrop | None
    points: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class NearestPhoto:
    """A training photo that is similar to the one in question.

    Attributes:
        id: Its image, None if the catalogue does not have it.
    """

    id: int | None
    label: str
    similarity: float


@dataclass(frozen=True)
class QueueItem:
    """A queue row as it is shown.

    Attributes:
        decision: The decision that holds.
        tagged: The label in question.
        choices: Labels to choose from.
    """

    key: Key
    photos: tuple[ShownPhoto, ...]
    decision: CurrentDecision | None
    tagged: str = ""
    choices: tuple[str, ...] = ()
    verdict: TagVerdictRow | None = None
    nearest: tuple[NearestPhoto, ...] = ()
    similarity: float | None = None
    mirrored: bool = False


def load_item(
    session: Session, queue: ReviewQueue, key: Key, vocabulary: Vocabulary
) -> QueueItem | None:
    """Load a queue row; None if it or one of its photos no longer exists."""
    row = session.execute(
        sa.select(queue.keys[0].class_).where(*key_conditions(queue, key))
    ).scalar()
    if row is None:
        return None
    images = key[:2] if queue.has_pairs else key[:1]
    crop = row if isinstance(row, CropRow) else None
    photos = [_photo(session, image, crop, vocabulary) for image in images]
    if any(photo is None for photo in photos):
        return None
    return QueueItem(
        key=key,
        photos=tuple(photo for photo in photos if photo is not None),
        decision=current_decision(session, queue, key),
        **_details(session, row),
    )


def _details(session: Session, row: Any) -> dict[str, Any]:
    """Return the details that rows of some queues have."""
    if isinstance(row, TagVerdictRow):
        return {"tagged": row.label, "verdict": row, "nearest": _nearest(session, row.nearest)}
    if isinstance(row, LabelConflict):
        return {"choices": tuple(json.loads(row.labels))}
    if isinstance(row, NearDuplicateRow):
        return {"similarity": row.similarity, "mirrored": row.mirrored}
    return {}


def _photo(
    session: Session, number: int, crop: CropRow | None, vocabulary: Vocabulary
) -> ShownPhoto | None:
    image = session.get(ImageRow, number)
    if image is None or image.state != "stored" or not image.width or not image.height:
        return None
    crop = crop or _latest_crop(session, number)
    return ShownPhoto(
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
    folded = select_best_copies(load_candidates(session, clusters=clusters), Exclusions())
    return tuple(label for photo in folded for label in matching_labels(photo, vocabulary))


def _latest_crop(session: Session, image: int) -> CropRow | None:
    """Return the crop of the pose network that ran last."""
    return session.scalar(
        sa.select(CropRow)
        .join(
            PoseRow, sa.and_(PoseRow.image_id == CropRow.image_id, PoseRow.model == CropRow.model)
        )
        .where(CropRow.image_id == image)
        .order_by(PoseRow.made.desc(), CropRow.model, CropRow.zone)
        .limit(1)
    )


def _crop(row: CropRow) -> ShownCrop:
    width, height = row.right - row.left, row.bottom - row.top
    return ShownCrop(row.left, row.top, width, height, row.outcome, row.reason, row.score)


def _points(
    session: Session, image: int, crop: CropRow | None
) -> tuple[tuple[float, float, float], ...]:
    if crop is None:
        return ()
    packed = session.scalar(sa.select(PoseRow.points).filter_by(image_id=image, model=crop.model))
    if packed is None:
        return ()
    rows = np.frombuffer(packed, "<f4").reshape(-1, 7)[:, :3]
    visible = rows[rows[:, 2] >= MIN_POINT_SCORE].astype(float)
    return tuple((x, y, score) for x, y, score in visible.round(2).tolist())


def _is_copy_of(image: ImageRow) -> Any:
    """Return the condition that a sighting is of an image or a copy of it."""
    return Sighting.image_id.in_(sa.select(ImageRow.id).where(copies_of([image.id])))


def _posts(session: Session, image: ImageRow) -> tuple[ShownPost, ...]:
    """Return the posts of an image, then those of its copies."""
    own = sa.func.max(sa.case((Sighting.image_id == image.id, 1), else_=0))
    chosen = (
        sa.select(Sighting.post_id, own.label("own"))
        .where(_is_copy_of(image))
        .group_by(Sighting.post_id)
        .order_by(own.desc(), Sighting.post_id)
        .limit(MAX_SHOWN_POSTS)
        .subquery()
    )
    rows = session.scalars(
        sa.select(PostRow)
        .join(chosen, chosen.c.post_id == PostRow.id)
        .order_by(chosen.c.own.desc(), PostRow.id)
    )
    return tuple(_post(row) for row in rows)


def _post(row: PostRow) -> ShownPost:
    price = None if row.price is None else f"{row.price:g} {row.currency or ''}".strip()
    facts = " · ".join(fact for fact in (row.brand, price, row.author) if fact)
    # A `javascript:` URL of a site must not become a link.
    url = row.url if row.url.startswith(("https://", "http://")) else ""
    return ShownPost(row.site, url, row.title or "", facts)


def _tags(session: Session, image: ImageRow) -> tuple[str, ...]:
    """Return all hashtags of the photo's posts, those that it was found under first."""
    is_searched = sa.func.max(sa.case((PostHashtag.source == "search", 1), else_=0))
    return tuple(
        session.scalars(
            sa.select(Hashtag.text)
            .join(PostHashtag, PostHashtag.hashtag_id == Hashtag.id)
            .where(PostHashtag.post_id.in_(sa.select(Sighting.post_id).where(_is_copy_of(image))))
            .group_by(Hashtag.id, Hashtag.text)
            .order_by(is_searched.desc(), Hashtag.id)
            .limit(MAX_SHOWN_TAGS)
        )
    )


def _nearest(session: Session, packed: str) -> tuple[NearestPhoto, ...]:
    photos = json.loads(packed)
    if not photos:
        return ()
    digests = [str(photo.get("sha256")) for photo in photos]
    query = sa.select(ImageRow.sha256, ImageRow.id).where(
        ImageRow.sha256.in_(digests), ImageRow.state == "stored"
    )
    image_ids = {digest: image_id for digest, image_id in session.execute(query)}  # noqa: C416
    return tuple(
        NearestPhoto(
            image_ids.get(digest), str(photo.get("label", "")), float(photo.get("similarity", 0))
        )
        for digest, photo in zip(digests, photos, strict=True)
    )


HERE = Path(__file__).parent
MAX_FILTER_CHARS, MAX_LABELS = 200, 2000
# Characters of a title or tag that are shown before it is expanded.
MAX_PREVIEW_CHARS = 160
EMPTY = {
    "mistakes": "No tag is suspected: run check-tags --catalogue to let a model check all tags.",
    "proposals": "No label is proposed: run tag-photos without names to let a model label photos.",
    "conflicts": "No photo has several labels, none of which includes the other.",
    "duplicates": "No possible near duplicates: run catalogue dedup to compare all photos.",
    "crops": "No crop is uncertain: build-dataset finds people and crops photos.",
}
FIRST = "This is the first item."
GONE = "This item is no longer in the catalogue."


def environment() -> jinja2.Environment:
    """Return the templates of the pages."""
    templates = html.environment(HERE / "templates")
    templates.filters["key"] = format_key
    templates.globals["MAX_PREVIEW_CHARS"] = MAX_PREVIEW_CHARS
    return templates


@dataclass(frozen=True)
class ReviewContext:
    """The catalogue, image store and settings of a review server.

    Attributes:
        who: The reviewer of browsers that have not named one.
        policy: Who may use the server.
        progress: Cached progress of the queues.
    """

    sessions: Sessions
    store: ImageStore
    vocabulary: Vocabulary
    who: str
    policy: AccessPolicy
    progress: ProgressCache = field(default_factory=ProgressCache)

    @cached_property
    def pages(self) -> jinja2.Environment:
        """The templates."""
        return environment()

    @property
    def who_cookie(self) -> str:
        """Name of the cookie with the reviewer's name."""
        return f"{self.policy.name}-who"


def item_page(
    review: ReviewContext,
    request: Request,
    queue: ReviewQueue,
    filters: QueueFilters,
    message: str,
    status: int = HTTPStatus.OK,
    key: Key | None = None,
) -> Response:
    """Render the page of one queue row.

    Args:
        review: The server.
        request: The request.
        queue: The queue.
        filters: Its filters.
        message: Message about the previous request.
        status: HTTP status.
        key: The row; by default the one that the request names, or the first one.
    """
    query = request.query_params
    with review.sessions() as session:
        key = key or _requested(session, review, request, queue, filters)
        item = load_item(session, queue, key, review.vocabulary) if key else None
        if key and item is None:
            message = message or GONE
        next_keys = (
            list_keys(session, queue, filters, review.vocabulary, 1, beyond=key) if key else []
        )
        if key and key == requested_key(queue, query, "before"):
            message = FIRST
        last = None if key else requested_key(queue, query, "after")
        context = {
            "item": item,
            "key": key,
            "before": _neighbour(session, queue, filters, review, last),
            "following": _first_image(next_keys),
            "progress": review.progress.of(session, queue, filters, review.vocabulary),
            "labels": known_labels(session, review.vocabulary),
            "sites": known_sites(session),
            "empty_because": EMPTY[queue.name],
            "latest": _undoable(session, review, request, item.decision if item else None),
        }
    return html_page(
        review,
        request,
        "item.html",
        status,
        queue=queue,
        filters=filters,
        message=message,
        **context,
    )


def _requested(
    session: Session,
    review: ReviewContext,
    request: Request,
    queue: ReviewQueue,
    filters: QueueFilters,
) -> Key | None:
    query = request.query_params
    if key := requested_key(queue, query, "item"):
        return key
    if before := requested_key(queue, query, "before"):
        return _neighbour(session, queue, filters, review, before) or before
    beyond = requested_key(queue, query, "after")
    keys = list_keys(session, queue, filters, review.vocabulary, 1, beyond)
    return keys[0] if keys else None


def _neighbour(
    session: Session,
    queue: ReviewQueue,
    filters: QueueFilters,
    review: ReviewContext,
    key: Key | None,
) -> Key | None:
    """Return the row before a key."""
    if key is None:
        return None
    keys = list_keys(session, queue, filters, review.vocabulary, 1, beyond=key, backwards=True)
    return keys[0] if keys else None


def _first_image(keys: Sequence[Key]) -> int | None:
    return keys[0][0] if keys else None


def _undoable(
    session: Session,
    review: ReviewContext,
    request: Request,
    shown: decisions.CurrentDecision | None,
) -> decisions.CurrentDecision | None:
    """Return the decision that the undo button undoes.

    It is that of the shown row, or the one just made, or the reviewer's latest one.
    """
    if shown and shown.ref:
        return shown
    ref = request.query_params.get("done", "")
    row = decisions.find_row(session, ref)
    if row is not None and row.undone is None:
        return decisions.find_decision(session, ref)
    return decisions.latest_decision_by(session, reviewer_name(review, request))


def status_message(review: ReviewContext, request: Request, queue: ReviewQueue) -> str:
    """Return the message about the previous request, which the URL identifies."""
    query = request.query_params
    with review.sessions() as session:
        if decision := decisions.find_decision(session, query.get("done", "")):
            return f"Saved: {decision.what}."
        if decision := decisions.find_decision(session, query.get("undone", "")):
            return f"Undone: {decision.what}."
        if key := requested_key(queue, query, "meanwhile"):
            current = decisions.current_decision(session, queue, key)
            return f"Not saved: {decisions.DecisionConflict(current)}."
    return ""


def known_labels(session: Session, vocabulary: Vocabulary) -> list[str]:
    """Return the labels that complete what a reviewer types."""
    decided = session.scalars(
        sa.select(LabelDecision.label)
        .where(LabelDecision.label.is_not(None))
        .distinct()
        .limit(MAX_LABELS)
    )
    return sorted({*vocabulary.labels, *(label for label in decided if label)})


def known_sites(session: Session) -> list[str]:
    """Return the sites of all searches."""
    return list(session.scalars(sa.select(Search.site).distinct().order_by(Search.site)))


def parse_filters(fields_sent: Mapping[str, str]) -> QueueFilters:
    """Parse the filters of a query string or form."""
    chosen = {
        f.name: fields_sent[f.name].strip()[:MAX_FILTER_CHARS]
        for f in fields(QueueFilters)
        if f.name in fields_sent
    }
    if chosen.get("show") not in (OPEN, DECIDED, ALL):
        chosen.pop("show", None)
    if chosen.get("order") != LEARNING:
        chosen.pop("order", None)
    return QueueFilters(**chosen)


def requested_queue(request: Request) -> ReviewQueue:
    """Return the queue that a URL names.

    Raises:
        HTTPException: There is no such queue.
    """
    queue = QUEUES.get(request.path_params["queue"])
    if queue is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such queue")
    return queue


def requested_key(queue: ReviewQueue, sent: Mapping[str, str], name: str) -> Key | None:
    """Parse the key in a field of a query string or form."""
    return parse_key(queue, sent[name]) if name in sent else None


def reviewer_name(review: ReviewContext, request: Request) -> str:
    """Return who decides in a browser: the name in its cookie, or the server's default."""
    name = unquote(request.cookies.get(review.who_cookie, ""))[:MAX_NAME_CHARS]
    return name if name.strip() and name.isprintable() else review.who


def html_page(
    review: ReviewContext,
    request: Request,
    template: str,
    status: int = HTTPStatus.OK,
    **context: Any,
) -> Response:
    """Render a template.

    Args:
        review: The server.
        request: The request.
        template: Name of the template.
        status: HTTP status.
        **context: Variables of the template.
    """
    text = review.pages.get_template(template).render(
        csrf=csrf_token(request),
        who=reviewer_name(review, request),
        **{"queues": QUEUES, "queue": None, **context},
    )
    return HTMLResponse(text, status)
