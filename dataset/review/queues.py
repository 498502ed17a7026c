"""What a person is asked about: four queues, each a query in an order.

A row of a queue is known by its key, the values of its `keys`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
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
from dataset.duplicates.alignment import DUPLICATE_SIMILARITY
from dataset.selection.candidates import Exclusions, load_candidates, select_best_copies
from dataset.selection.labeling import matching_labels
from dataset.selection.quality_gates import apply_quality_gates, load_quality_gates
from dataset.vocabulary import Vocabulary

Key = tuple[Any, ...]
# A crop from key points of a lower mean score is doubtful: of hrnet-small's on photos of athletes
# (LSP) the lowest tenth.
LOW_SCORE = 0.33


@dataclass(frozen=True)
class ReviewQueue:
    """A queue: `rows` are what it is taken from, those that `belong` are in it.

    `keys` tell rows apart, `order` sorts them: columns, and whether the highest comes first.
    `images`: the columns of the images that a row is about.
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


ONE, OTHER, WORDED = aliased(ImageRow), aliased(ImageRow), aliased(ImageRow)
MINE, ITS = aliased(Separation), aliased(Separation)


def cluster_expression(image: Any) -> Any:
    """The cluster of an image's row; one of its own where it has none yet."""
    return sa.func.coalesce(image.cluster_id, -image.id)


def cluster_pair_expression(one: Any, other: Any) -> Any:
    """Two clusters as one text, the same in either order."""
    low, high = (
        sa.cast(cluster_expression(one), sa.String),
        sa.cast(cluster_expression(other), sa.String),
    )
    ordered = cluster_expression(one) < cluster_expression(other)
    return sa.case((ordered, low + ":" + high), else_=high + ":" + low)


_words = (
    sa.select(cluster_expression(WORDED))
    .join(LabelDecision, LabelDecision.image_id == WORDED.id)
    .where(LabelDecision.undone.is_(None))
)
_latest = (
    sa.select(sa.func.max(LabelDecision.id))
    .join(WORDED, LabelDecision.image_id == WORDED.id)
    .where(LabelDecision.undone.is_(None))
    .group_by(cluster_expression(WORDED))
)
_left_out = _words.where(LabelDecision.id.in_(_latest), LabelDecision.label.is_(None))
_pair_said = sa.exists().where(
    PairDecision.one_id == NearDuplicateRow.one_id,
    PairDecision.other_id == NearDuplicateRow.other_id,
    PairDecision.undone.is_(None),
)
FIRST, SECOND = aliased(ImageRow), aliased(ImageRow)
# Words that keep two photos apart, and so all of their clusters.
WORDS_APART = (
    sa.select(PairDecision)
    .join(FIRST, FIRST.id == PairDecision.one_id)
    .join(SECOND, SECOND.id == PairDecision.other_id)
    .where(PairDecision.undone.is_(None), sa.not_(PairDecision.same))
)
_apart = WORDS_APART.with_only_columns(cluster_pair_expression(FIRST, SECOND))
# Undone clusters that held two images.
SEPARATED = sa.select(MINE).join(ITS, MINE.cluster_id == ITS.cluster_id)
_separated = SEPARATED.where(
    MINE.image_id == NearDuplicateRow.one_id, ITS.image_id == NearDuplicateRow.other_id
).exists()
_crop_said = sa.exists().where(
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
    "Tags that a model doubts, the costliest first: those that it takes for wrong, then those of"
    " which it is unsure.",
    sa.join(TagVerdictRow, ImageRow, TagVerdictRow.image_id == ImageRow.id),
    sa.and_(TagVerdictRow.verdict.in_(["mistake", "unsure"]), is_stored(ImageRow)),
    cluster_expression(ImageRow).in_(_words),
    (TagVerdictRow.image_id, TagVerdictRow.label),
    (
        (TagVerdictRow.verdict, False),
        (TagVerdictRow.cost, True),
        (TagVerdictRow.image_id, False),
        (TagVerdictRow.label, False),
    ),
    (TagVerdictRow.image_id,),
    ("label", "out"),
)
CONFLICTS = ReviewQueue(
    "conflicts",
    "Conflicts of labels",
    "Photos found under words of several labels, none of which holds the other. Builds leave them"
    " out until somebody decides.",
    sa.join(LabelConflict, ImageRow, LabelConflict.image_id == ImageRow.id),
    is_stored(ImageRow),
    cluster_expression(ImageRow).in_(_words),
    (LabelConflict.image_id,),
    ((LabelConflict.image_id, False),),
    (LabelConflict.image_id,),
    ("label", "out"),
)
DUPLICATES = ReviewQueue(
    "duplicates",
    "Possible duplicates",
    "Pairs of photos that may be one, the likest first.",
    sa.join(NearDuplicateRow, ONE, NearDuplicateRow.one_id == ONE.id).join(
        OTHER, NearDuplicateRow.other_id == OTHER.id
    ),
    sa.and_(
        NearDuplicateRow.similarity < DUPLICATE_SIMILARITY,
        is_stored(ONE),
        is_stored(OTHER),
        sa.or_(cluster_expression(ONE) != cluster_expression(OTHER), _pair_said),
    ),
    sa.or_(_pair_said, _separated, cluster_pair_expression(ONE, OTHER).in_(_apart)),
    (NearDuplicateRow.one_id, NearDuplicateRow.other_id),
    (
        (NearDuplicateRow.similarity, True),
        (NearDuplicateRow.one_id, False),
        (NearDuplicateRow.other_id, False),
    ),
    (NearDuplicateRow.one_id, NearDuplicateRow.other_id),
    ("same", "apart"),
)
CROPS = ReviewQueue(
    "crops",
    "Doubtful crops",
    "Photos that stayed whole or were not cropped as asked, and crops around key points of which"
    " the network is unsure, the most doubtful first.",
    sa.join(CropRow, ImageRow, CropRow.image_id == ImageRow.id),
    sa.and_(sa.or_(CropRow.reason != "", CropRow.score < LOW_SCORE), is_stored(ImageRow)),
    sa.or_(_crop_said, cluster_expression(ImageRow).in_(_left_out)),
    (CropRow.image_id, CropRow.model, CropRow.zone),
    (
        (CropRow.score, False),
        (CropRow.image_id, False),
        (CropRow.model, False),
        (CropRow.zone, False),
    ),
    (CropRow.image_id,),
    ("right", "whole", "out"),
)
QUEUES = {queue.name: queue for queue in (MISTAKES, CONFLICTS, DUPLICATES, CROPS)}


def format_key(key: Key) -> str:
    """KEY as it stands in addresses and forms."""
    return "/".join(quote(str(part), safe="") for part in key)


def parse_key(queue: ReviewQueue, text: str) -> Key | None:
    """The key that TEXT is; None where it can't be one of QUEUE."""
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
    """Conditions that hold for the row of KEY alone."""
    return [column == part for column, part in zip(queue.keys, key, strict=True)]


# Rows that are read together.
LOADED = 10_000


def find_conflicts(sessions: Sessions, vocabulary: Vocabulary) -> int:
    """Bring the catalogue's conflicts of labels up to date, decided or not; returns how many."""
    found: dict[int, str] = {}
    with sessions() as session:
        suspects = _suspects(session, vocabulary)
        for part in in_batches(suspects):
            found |= _conflicts(session, part, vocabulary)
    with sessions.begin() as session:
        query = sa.select(LabelConflict.image_id, LabelConflict.labels)
        known = {image: labels for image, labels in session.execute(query)}  # noqa: C416
        gone = [image for image, labels in known.items() if found.get(image) != labels]
        for part in in_batches(gone):
            session.execute(sa.delete(LabelConflict).where(LabelConflict.image_id.in_(part)))
        new = [
            {"image_id": image, "labels": labels}
            for image, labels in found.items()
            if known.get(image) != labels
        ]
        if new:
            session.execute(sa.insert(LabelConflict), new)
    return len(found)


def _suspects(session: Session, vocabulary: Vocabulary) -> list[int]:
    """Clusters that were found under words of several labels."""
    searched = sa.select(PostHashtag.hashtag_id).where(PostHashtag.source == "search").distinct()
    words = session.execute(sa.select(Hashtag.id, Hashtag.text).where(Hashtag.id.in_(searched)))
    label_of = {number: vocabulary.label_or_own(text) for number, text in words}
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
        .execution_options(yield_per=LOADED)
    )
    return [
        cluster
        for cluster, members in groupby(rows, itemgetter(0))
        if len({label_of.get(hashtag) for _, hashtag in members}) > 1
    ]


def _conflicts(session: Session, clusters: Sequence[int], vocabulary: Vocabulary) -> dict[int, str]:
    """Of CLUSTERS those whose photo is good enough and has several labels: image -> them."""
    photos = select_best_copies(load_candidates(session, clusters=clusters), Exclusions())
    found = {}
    for photo in apply_quality_gates(photos, load_quality_gates(), Exclusions()):
        labels = matching_labels(photo, vocabulary)
        if len(labels) > 1:
            found[photo.image_id] = json.dumps(labels, ensure_ascii=False)
    return found
