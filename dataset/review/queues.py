"""The queues of `review`: each is a query in an order.

A row of a queue is identified by its key, the values of the queue's `keys`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import itemgetter
from typing import Any
from urllib.parse import quote, unquote

import sqlalchemy as sa
from sqlalchemy.orm import Session, aliased

from dataset.catalogue.models import (
    CropDecision,
    CropRow,
    Hashtag,
    ImageRow,
    LabelConflict,
    LabelDecision,
    NearDuplicateRow,
    PairDecision,
    PostHashtag,
    Separation,
    Sighting,
    TagVerdictRow,
)
from dataset.catalogue.queries import in_batches, is_stored
from dataset.catalogue.session import Sessions
from dataset.duplicates.verification import Relation
from dataset.selection.candidates import (
    Exclusions,
    apply_quality_gates,
    load_candidates,
    load_quality_gates,
    select_best_copies,
)
from dataset.selection.labeling import matching_labels
from dataset.vocabulary import Vocabulary

Key = tuple[Any, ...]
# Crops from key points with a lower mean score are uncertain: the lowest tenth of the scores of
# hrnet-small on photos of athletes (LSP).
MIN_CROP_SCORE = 0.32


@dataclass(frozen=True)
class ReviewQueue:
    """A queue of rows to review.

    Attributes:
        name: Its name in URLs.
        title: Its title.
        about: What it contains.
        rows: The tables that rows are selected from.
        belongs: The condition of rows in the queue.
        decided: The condition of rows with a decision.
        keys: The columns that identify a row.
        order: Columns that sort the rows, and whether in descending order.
        images: The columns of the images of a row.
        answers: The kinds of answers that a reviewer may give.
    """

    name: str
    title: str
    about: str
    rows: Any
    belongs: Any
    decided: Any
    keys: tuple[Any, ...]
    order: tuple[tuple[Any, bool], ...]
    images: tuple[Any, ...]
    answers: tuple[str, ...]

    @property
    def has_pairs(self) -> bool:
        """Return whether a row is a pair of images."""
        return len(self.images) == 2


ONE, OTHER, DECIDED_IMAGE = aliased(ImageRow), aliased(ImageRow), aliased(ImageRow)
ONE_SEPARATION, OTHER_SEPARATION = aliased(Separation), aliased(Separation)


def cluster_expression(image: Any) -> Any:
    """Return the expression of an image's cluster: a negative number if it has none yet."""
    return sa.func.coalesce(image.cluster_id, -image.id)


def cluster_pair_expression(one: Any, other: Any) -> Any:
    """Return the expression of the clusters of two images as text, the same in either order."""
    low, high = (
        sa.cast(cluster_expression(one), sa.String),
        sa.cast(cluster_expression(other), sa.String),
    )
    ordered = cluster_expression(one) < cluster_expression(other)
    return sa.case((ordered, low + ":" + high), else_=high + ":" + low)


_decided_clusters = (
    sa.select(cluster_expression(DECIDED_IMAGE))
    .join(LabelDecision, LabelDecision.image_id == DECIDED_IMAGE.id)
    .where(LabelDecision.undone.is_(None))
)
_latest_decisions = (
    sa.select(sa.func.max(LabelDecision.id))
    .join(DECIDED_IMAGE, LabelDecision.image_id == DECIDED_IMAGE.id)
    .where(LabelDecision.undone.is_(None))
    .group_by(cluster_expression(DECIDED_IMAGE))
)
_excluded_clusters = _decided_clusters.where(
    LabelDecision.id.in_(_latest_decisions), LabelDecision.label.is_(None)
)
_has_pair_decision = sa.exists().where(
    PairDecision.one_id == NearDuplicateRow.one_id,
    PairDecision.other_id == NearDuplicateRow.other_id,
    PairDecision.undone.is_(None),
)
DECIDED_ONE, DECIDED_OTHER = aliased(ImageRow), aliased(ImageRow)
# Decisions that separate two images, and so their clusters.
SEPARATING_DECISIONS = (
    sa.select(PairDecision)
    .join(DECIDED_ONE, DECIDED_ONE.id == PairDecision.one_id)
    .join(DECIDED_OTHER, DECIDED_OTHER.id == PairDecision.other_id)
    .where(PairDecision.undone.is_(None), sa.not_(PairDecision.same))
)
_separated_clusters = SEPARATING_DECISIONS.with_only_columns(
    cluster_pair_expression(DECIDED_ONE, DECIDED_OTHER)
)
# Undone clusters that had two images.
SEPARATIONS = sa.select(ONE_SEPARATION).join(
    OTHER_SEPARATION, ONE_SEPARATION.cluster_id == OTHER_SEPARATION.cluster_id
)
_is_separated = SEPARATIONS.where(
    ONE_SEPARATION.image_id == NearDuplicateRow.one_id,
    OTHER_SEPARATION.image_id == NearDuplicateRow.other_id,
).exists()
_has_crop_decision = sa.exists().where(
    CropDecision.image_id == CropRow.image_id,
    CropDecision.undone.is_(None),
    sa.or_(
        CropDecision.keep_whole,
        sa.and_(CropDecision.model == CropRow.model, CropDecision.zone == CropRow.zone),
    ),
)

MISTAKES = ReviewQueue(
    "mistakes",
    "Suspected mistakes",
    "Tags that a model considers wrong, then those it is unsure of, ranked by expected cost.",
    sa.join(TagVerdictRow, ImageRow, TagVerdictRow.image_id == ImageRow.id),
    sa.and_(TagVerdictRow.verdict.in_(["mistake", "unsure"]), is_stored(ImageRow)),
    cluster_expression(ImageRow).in_(_decided_clusters),
    (TagVerdictRow.image_id, TagVerdictRow.label),
    (
        (TagVerdictRow.verdict, False),
        (TagVerdictRow.cost, True),
        (TagVerdictRow.image_id, False),
        (TagVerdictRow.label, False),
    ),
    (TagVerdictRow.image_id,),
    ("label", "exclude"),
)
# The verdict of proposed labels, whose rows have an empty label.
PROPOSED = "proposed"
PROPOSALS = replace(
    MISTAKES,
    name="proposals",
    title="Proposed labels",
    about="Labels that a model proposes for photos without a usable one, the least certain first.",
    belongs=sa.and_(TagVerdictRow.verdict == PROPOSED, is_stored(ImageRow)),
)
CONFLICTS = ReviewQueue(
    "conflicts",
    "Label conflicts",
    "Photos found under hashtags of several labels, none of which includes the other. Builds"
    " exclude them until they are decided.",
    sa.join(LabelConflict, ImageRow, LabelConflict.image_id == ImageRow.id),
    is_stored(ImageRow),
    cluster_expression(ImageRow).in_(_decided_clusters),
    (LabelConflict.image_id,),
    ((LabelConflict.image_id, False),),
    (LabelConflict.image_id,),
    ("label", "labels", "exclude"),
)
DUPLICATES = ReviewQueue(
    "duplicates",
    "Possible duplicates",
    "Pairs of photos that show the same photo in part or changed, the most similar first.",
    sa.join(NearDuplicateRow, ONE, NearDuplicateRow.one_id == ONE.id).join(
        OTHER, NearDuplicateRow.other_id == OTHER.id
    ),
    sa.and_(
        NearDuplicateRow.relation == Relation.POSSIBLE,
        is_stored(ONE),
        is_stored(OTHER),
        sa.or_(cluster_expression(ONE) != cluster_expression(OTHER), _has_pair_decision),
    ),
    sa.or_(
        _has_pair_decision,
        _is_separated,
        cluster_pair_expression(ONE, OTHER).in_(_separated_clusters),
    ),
    (NearDuplicateRow.one_id, NearDuplicateRow.other_id),
    (
        (NearDuplicateRow.similarity, True),
        (NearDuplicateRow.one_id, False),
        (NearDuplicateRow.other_id, False),
    ),
    (NearDuplicateRow.one_id, NearDuplicateRow.other_id),
    ("same", "separate"),
)
CLOSEST = replace(
    DUPLICATES,
    name="closest",
    title="Closest pairs across splits",
    about="Pairs of photos in different splits that come closest to showing the same, as the audit"
    " of the latest build found them.",
    belongs=sa.and_(
        NearDuplicateRow.relation == Relation.UNRELATED, is_stored(ONE), is_stored(OTHER)
    ),
)
CROPS = ReviewQueue(
    "crops",
    "Uncertain crops",
    "Crops with a low key point score or not as requested, the lowest score first; then photos that"
    " were left whole.",
    sa.join(CropRow, ImageRow, CropRow.image_id == ImageRow.id),
    sa.and_(sa.or_(CropRow.reason != "", CropRow.score < MIN_CROP_SCORE), is_stored(ImageRow)),
    sa.or_(_has_crop_decision, cluster_expression(ImageRow).in_(_excluded_clusters)),
    (CropRow.image_id, CropRow.model, CropRow.zone),
    (
        (sa.case((CropRow.outcome == "whole", 1), else_=0), False),
        (CropRow.score, False),
        (CropRow.image_id, False),
        (CropRow.model, False),
        (CropRow.zone, False),
    ),
    (CropRow.image_id,),
    ("correct", "whole", "exclude"),
)
QUEUES = {
    queue.name: queue for queue in (MISTAKES, PROPOSALS, CONFLICTS, DUPLICATES, CLOSEST, CROPS)
}


def format_key(key: Key) -> str:
    """Return a key as text for URLs and forms."""
    return "/".join(quote(str(part), safe="") for part in key)


def parse_key(queue: ReviewQueue, text: str) -> Key | None:
    """Parse a key; None if it cannot be a key of the queue."""
    parts = [unquote(part) for part in text.split("/")]
    if len(parts) != len(queue.keys):
        return None
    key: list[Any] = []
    for part, column in zip(parts, queue.keys, strict=True):
        if isinstance(column.type, sa.Integer):
            if not (part.isascii() and part.isdecimal() and len(part) < 18):
                return None
            key.append(int(part))
        else:
            key.append(part)
    return tuple(key)


def key_conditions(queue: ReviewQueue, key: Key) -> list[Any]:
    """Return the conditions that select the row of a key."""
    return [column == part for column, part in zip(queue.keys, key, strict=True)]


# Rows that are read at a time.
READ_ROWS = 10_000


def find_conflicts(sessions: Sessions, vocabulary: Vocabulary) -> int:
    """Update the table of label conflicts, decided or not; returns how many there are."""
    conflicts: dict[int, str] = {}
    with sessions() as session:
        clusters = _candidate_clusters(session, vocabulary)
        for batch in in_batches(clusters):
            conflicts |= _conflicts(session, batch, vocabulary)
    with sessions.begin() as session:
        query = sa.select(LabelConflict.image_id, LabelConflict.labels)
        known = {image: labels for image, labels in session.execute(query)}  # noqa: C416
        obsolete = [image for image, labels in known.items() if conflicts.get(image) != labels]
        for batch in in_batches(obsolete):
            session.execute(sa.delete(LabelConflict).where(LabelConflict.image_id.in_(batch)))
        new = [
            {"image_id": image, "labels": labels}
            for image, labels in conflicts.items()
            if known.get(image) != labels
        ]
        if new:
            session.execute(sa.insert(LabelConflict), new)
    return len(conflicts)


def _candidate_clusters(session: Session, vocabulary: Vocabulary) -> list[int]:
    """Return the clusters that were found under hashtags of several labels."""
    searched = sa.select(PostHashtag.hashtag_id).where(PostHashtag.source == "search").distinct()
    words = session.execute(sa.select(Hashtag.id, Hashtag.text).where(Hashtag.id.in_(searched)))
    label_of = {number: vocabulary.label_or_hashtag(text) for number, text in words}
    if len(set(label_of.values())) < 2:
        return []
    rows = session.execute(
        sa.select(ImageRow.cluster_id, PostHashtag.hashtag_id)
        .join(Sighting, Sighting.image_id == ImageRow.id)
        .join(PostHashtag, PostHashtag.post_id == Sighting.post_id)
        .where(
            ImageRow.state == "stored",
            ImageRow.cluster_id.is_not(None),
            PostHashtag.source == "search",
        )
        .order_by(ImageRow.cluster_id)
        .execution_options(yield_per=READ_ROWS)
    )
    return [
        cluster
        for cluster, members in groupby(rows, itemgetter(0))
        if len({label_of.get(hashtag) for _, hashtag in members}) > 1
    ]


def _conflicts(session: Session, clusters: Sequence[int], vocabulary: Vocabulary) -> dict[int, str]:
    """Return the best copies with several labels that pass the quality gates: image -> labels."""
    photos = select_best_copies(load_candidates(session, clusters=clusters), Exclusions())
    conflicts = {}
    for photo in apply_quality_gates(photos, load_quality_gates(), Exclusions()):
        labels = matching_labels(photo, vocabulary)
        if len(labels) > 1:
            conflicts[photo.image_id] = json.dumps(labels, ensure_ascii=False)
    return conflicts
