"""What is shown of a row of a queue: its photos, what is known of them, and what was decided."""

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
from dataset.review.pagination import ALL, DECIDED, OPEN, ProgressCache, QueueFilters, list_keys
from dataset.review.queues import (
    DUPLICATES,
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

# More posts and tags of one photo than this are not shown.
MOST_POSTS, MOST_TAGS = 12, 200
# Key points of a lower score are not drawn.
FAINTEST = 0.2


@dataclass(frozen=True)
class ShownPost:
    """A post that shows the photo. `url` is empty where it is no web address."""

    site: str
    url: str
    title: str
    facts: str


@dataclass(frozen=True)
class ShownCrop:
    """What is kept of a photo, in its pixels, and why not what was asked."""

    left: float
    top: float
    width: float
    height: float
    outcome: str
    reason: str
    score: float


@dataclass(frozen=True)
class ShownPhoto:
    """An image as it is shown. `points`: x, y in pixels, score; `labels`: by its hashtags."""

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
    """A training photo that looks like the one in question; `id` is None where it is not here."""

    id: int | None
    label: str
    similarity: float


@dataclass(frozen=True)
class QueueItem:
    """A row of a queue. `tagged`: the label in question; `choices`: labels to choose from."""

    key: Key
    photos: tuple[ShownPhoto, ...]
    said: CurrentDecision | None
    tagged: str = ""
    choices: tuple[str, ...] = ()
    judgement: TagVerdictRow | None = None
    nearest: tuple[NearestPhoto, ...] = ()
    similarity: float | None = None
    mirrored: bool = False


def load_item(
    session: Session, queue: ReviewQueue, key: Key, vocabulary: Vocabulary
) -> QueueItem | None:
    """The row of KEY with all that is shown of it; None where it or a photo of it is gone."""
    row = session.execute(
        sa.select(queue.keys[0].class_).where(*key_conditions(queue, key))
    ).scalar()
    if row is None:
        return None
    images = key[:2] if queue is DUPLICATES else key[:1]
    crop = row if isinstance(row, CropRow) else None
    photos = [_photo(session, image, crop, vocabulary) for image in images]
    if any(photo is None for photo in photos):
        return None
    return QueueItem(
        key=key,
        photos=tuple(photo for photo in photos if photo is not None),
        said=current_decision(session, queue, key),
        **_details(session, row),
    )


def _details(session: Session, row: Any) -> dict[str, Any]:
    """What only some queues know of a row."""
    if isinstance(row, TagVerdictRow):
        return {"tagged": row.label, "judgement": row, "nearest": _nearest(session, row.nearest)}
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
    """The crop by the network that looked last."""
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
    seen = rows[rows[:, 2] >= FAINTEST].astype(float)
    return tuple((x, y, score) for x, y, score in seen.round(2).tolist())


def _shows(image: ImageRow) -> Any:
    """Whether a sighting is of IMAGE or of a copy of it."""
    return Sighting.image_id.in_(sa.select(ImageRow.id).where(copies_of([image.id])))


def _posts(session: Session, image: ImageRow) -> tuple[ShownPost, ...]:
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


def _post(row: PostRow) -> ShownPost:
    price = None if row.price is None else f"{row.price:g} {row.currency or ''}".strip()
    facts = " · ".join(fact for fact in (row.brand, price, row.author) if fact)
    # What a site sent is a link only where no browser takes it for a program.
    url = row.url if row.url.startswith(("https://", "http://")) else ""
    return ShownPost(row.site, url, row.title or "", facts)


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


def _nearest(session: Session, packed: str) -> tuple[NearestPhoto, ...]:
    told = json.loads(packed)
    if not told:
        return ()
    names = [str(one.get("sha256")) for one in told]
    query = sa.select(ImageRow.sha256, ImageRow.id).where(
        ImageRow.sha256.in_(names), ImageRow.state == "stored"
    )
    numbers = {name: number for name, number in session.execute(query)}  # noqa: C416
    return tuple(
        NearestPhoto(numbers.get(name), str(one.get("label", "")), float(one.get("similarity", 0)))
        for name, one in zip(names, told, strict=True)
    )


HERE = Path(__file__).parent
LONGEST_FILTER = 200
MOST_LABELS = 2000
# Signs of a title or tag that are shown at once.
SHORT = 160
EMPTY = {
    "mistakes": "No tag was found doubtful: check-tags --catalogue asks a model about all.",
    "conflicts": "No photo has two labels, neither of which holds the other.",
    "duplicates": "No two photos may be one: catalogue dedup compares all.",
    "crops": "No crop is doubtful: build-dataset finds people and crops.",
}
FIRST = "This is the first one."
GONE = "This item is no longer in the catalogue."


def environment() -> jinja2.Environment:
    """How pages are made: everything is escaped, and a name that is missing is an error."""
    made = html.environment(HERE / "templates")
    made.filters["key"] = format_key
    made.globals["SHORT"] = SHORT
    return made


@dataclass(frozen=True)
class ReviewContext:
    """What a server works on, and whose words those are that nobody else says."""

    sessions: Sessions
    store: ImageStore
    vocabulary: Vocabulary
    who: str
    policy: AccessPolicy
    counts: ProgressCache = field(default_factory=ProgressCache)

    @cached_property
    def pages(self) -> jinja2.Environment:
        """The templates."""
        return environment()

    @property
    def who_cookie(self) -> str:
        """The cookie of who decides in this browser."""
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
    asked = request.query_params
    with review.sessions() as session:
        key = key or _wanted(session, review, request, queue, filters)
        item = load_item(session, queue, key, review.vocabulary) if key else None
        if key and item is None:
            message = message or GONE
        following = (
            list_keys(session, queue, filters, review.vocabulary, 1, beyond=key) if key else []
        )
        if key and key == requested_key(queue, asked, "before"):
            message = FIRST
        last = None if key else requested_key(queue, asked, "after")
        context = {
            "item": item,
            "key": key,
            "before": _neighbour(session, queue, filters, review, last),
            "following": _first_image(following),
            "progress": review.counts.of(session, queue, filters, review.vocabulary),
            "labels": known_labels(session, review.vocabulary),
            "sites": known_sites(session),
            "empty_because": EMPTY[queue.name],
            "latest": _to_undo(session, review, request, item.said if item else None),
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


def _wanted(
    session: Session,
    review: ReviewContext,
    request: Request,
    queue: ReviewQueue,
    filters: QueueFilters,
) -> Key | None:
    asked = request.query_params
    if key := requested_key(queue, asked, "item"):
        return key
    if before := requested_key(queue, asked, "before"):
        return _neighbour(session, queue, filters, review, before) or before
    beyond = requested_key(queue, asked, "after")
    found = list_keys(session, queue, filters, review.vocabulary, 1, beyond)
    return found[0] if found else None


def _neighbour(
    session: Session,
    queue: ReviewQueue,
    filters: QueueFilters,
    review: ReviewContext,
    key: Key | None,
) -> Key | None:
    """The row before KEY."""
    if key is None:
        return None
    found = list_keys(session, queue, filters, review.vocabulary, 1, beyond=key, backwards=True)
    return found[0] if found else None


def _first_image(keys: Sequence[Key]) -> int | None:
    return keys[0][0] if keys else None


def _to_undo(
    session: Session,
    review: ReviewContext,
    request: Request,
    here: decisions.CurrentDecision | None,
) -> decisions.CurrentDecision | None:
    """The word that `u` takes back: of the row that is shown, or what was just said, or before."""
    if here and here.ref:
        return here
    ref = request.query_params.get("done", "")
    row = decisions.find_row(session, ref)
    if row is not None and row.undone is None:
        return decisions.find_decision(session, ref)
    return decisions.latest_decision_by(session, reviewer_name(review, request))


def status_message(review: ReviewContext, request: Request, queue: ReviewQueue) -> str:
    """What happened just now, as the address tells."""
    asked = request.query_params
    with review.sessions() as session:
        if said := decisions.find_decision(session, asked.get("done", "")):
            return f"Saved: {said.what}."
        if said := decisions.find_decision(session, asked.get("undone", "")):
            return f"Taken back: {said.what}."
        if key := requested_key(queue, asked, "meanwhile"):
            holds = decisions.current_decision(session, queue, key)
            return f"Not saved: {decisions.DecisionConflict(holds)}."
    return ""


def known_labels(session: Session, vocabulary: Vocabulary) -> list[str]:
    """Labels to complete what is typed."""
    said = session.scalars(
        sa.select(LabelDecision.label)
        .where(LabelDecision.label.is_not(None))
        .distinct()
        .limit(MOST_LABELS)
    )
    return sorted({*vocabulary.labels, *(label for label in said if label)})


def known_sites(session: Session) -> list[str]:
    return list(session.scalars(sa.select(Search.site).distinct().order_by(Search.site)))


def parse_filters(given: Mapping[str, str]) -> QueueFilters:
    """What GIVEN, an address's or a form's fields, narrow a queue to."""
    chosen = {
        f.name: given[f.name].strip()[:LONGEST_FILTER]
        for f in fields(QueueFilters)
        if f.name in given
    }
    if chosen.get("show") not in (OPEN, DECIDED, ALL):
        chosen.pop("show", None)
    return QueueFilters(**chosen)


def requested_queue(request: Request) -> ReviewQueue:
    queue = QUEUES.get(request.path_params["queue"])
    if queue is None:
        raise HTTPException(HTTPStatus.NOT_FOUND, "there is no such queue")
    return queue


def requested_key(queue: ReviewQueue, given: Mapping[str, str], name: str) -> Key | None:
    return parse_key(queue, given[name]) if name in given else None


def reviewer_name(review: ReviewContext, request: Request) -> str:
    name = unquote(request.cookies.get(review.who_cookie, ""))[:MAX_NAME_CHARS]
    return name if name.strip() and name.isprintable() else review.who


def html_page(
    review: ReviewContext,
    request: Request,
    template: str,
    status: int = HTTPStatus.OK,
    **context: Any,
) -> Response:
    text = review.pages.get_template(template).render(
        csrf=csrf_token(request),
        who=reviewer_name(review, request),
        **{"queues": QUEUES, "queue": None, **context},
    )
    return HTMLResponse(text, status)
