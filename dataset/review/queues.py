"""What a person is asked about: four queues, each a query in an order.

A row of a queue is known by its key, the values of its `keys`.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import sqlalchemy as sa
from sqlalchemy.orm import aliased

from dataset.catalogue.check_tables import Judgement
from dataset.catalogue.queries import is_stored
from dataset.catalogue.review_tables import Conflict, CropDecision, PairDecision
from dataset.catalogue.tables import (
    CropRow,
    Decision,
    ImageRow,
    ResemblanceRow,
    Separation,
)
from dataset.duplicates.likeness import FOLD

Key = tuple[Any, ...]
# A crop from key points of a lower mean score is doubtful: of hrnet-small's on photos of athletes
# (LSP) the lowest tenth.
LOW_SCORE = 0.33


@dataclass(frozen=True)
class Queue:
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


def cluster_of(image: Any) -> Any:
    """The cluster of an image's row; one of its own where it has none yet."""
    return sa.func.coalesce(image.cluster_id, -image.id)


def pair_of(one: Any, other: Any) -> Any:
    """Two clusters as one text, the same in either order."""
    low, high = sa.cast(cluster_of(one), sa.String), sa.cast(cluster_of(other), sa.String)
    ordered = cluster_of(one) < cluster_of(other)
    return sa.case((ordered, low + ":" + high), else_=high + ":" + low)


_words = (
    sa.select(cluster_of(WORDED))
    .join(Decision, Decision.image_id == WORDED.id)
    .where(Decision.undone.is_(None))
)
_latest = (
    sa.select(sa.func.max(Decision.id))
    .join(WORDED, Decision.image_id == WORDED.id)
    .where(Decision.undone.is_(None))
    .group_by(cluster_of(WORDED))
)
_left_out = _words.where(Decision.id.in_(_latest), Decision.label.is_(None))
_pair_said = sa.exists().where(
    PairDecision.one_id == ResemblanceRow.one_id,
    PairDecision.other_id == ResemblanceRow.other_id,
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
_apart = WORDS_APART.with_only_columns(pair_of(FIRST, SECOND))
# Undone clusters that held two images.
SEPARATED = sa.select(MINE).join(ITS, MINE.cluster_id == ITS.cluster_id)
_separated = SEPARATED.where(
    MINE.image_id == ResemblanceRow.one_id, ITS.image_id == ResemblanceRow.other_id
).exists()
_crop_said = sa.exists().where(
    CropDecision.image_id == CropRow.image_id,
    CropDecision.undone.is_(None),
    sa.or_(
        CropDecision.whole,
        sa.and_(CropDecision.model == CropRow.model, CropDecision.zone == CropRow.zone),
    ),
)

MISTAKES = Queue(
    "mistakes",
    "Suspected mistakes",
    "Tags that a model doubts, the costliest first: those that it takes for wrong, then those of"
    " which it is unsure.",
    sa.join(Judgement, ImageRow, Judgement.image_id == ImageRow.id),
    sa.and_(Judgement.verdict.in_(["mistake", "unsure"]), is_stored(ImageRow)),
    cluster_of(ImageRow).in_(_words),
    (Judgement.image_id, Judgement.label),
    (
        (Judgement.verdict, False),
        (Judgement.cost, True),
        (Judgement.image_id, False),
        (Judgement.label, False),
    ),
    (Judgement.image_id,),
    ("label", "out"),
)
CONFLICTS = Queue(
    "conflicts",
    "Conflicts of labels",
    "Photos found under words of several labels, none of which holds the other. Builds leave them"
    " out until somebody decides.",
    sa.join(Conflict, ImageRow, Conflict.image_id == ImageRow.id),
    is_stored(ImageRow),
    cluster_of(ImageRow).in_(_words),
    (Conflict.image_id,),
    ((Conflict.image_id, False),),
    (Conflict.image_id,),
    ("label", "out"),
)
DUPLICATES = Queue(
    "duplicates",
    "Possible duplicates",
    "Pairs of photos that may be one, the likest first.",
    sa.join(ResemblanceRow, ONE, ResemblanceRow.one_id == ONE.id).join(
        OTHER, ResemblanceRow.other_id == OTHER.id
    ),
    sa.and_(
        ResemblanceRow.likeness < FOLD,
        is_stored(ONE),
        is_stored(OTHER),
        sa.or_(cluster_of(ONE) != cluster_of(OTHER), _pair_said),
    ),
    sa.or_(_pair_said, _separated, pair_of(ONE, OTHER).in_(_apart)),
    (ResemblanceRow.one_id, ResemblanceRow.other_id),
    (
        (ResemblanceRow.likeness, True),
        (ResemblanceRow.one_id, False),
        (ResemblanceRow.other_id, False),
    ),
    (ResemblanceRow.one_id, ResemblanceRow.other_id),
    ("same", "apart"),
)
CROPS = Queue(
    "crops",
    "Doubtful crops",
    "Photos that stayed whole or were not cropped as asked, and crops around key points of which"
    " the network is unsure, the most doubtful first.",
    sa.join(CropRow, ImageRow, CropRow.image_id == ImageRow.id),
    sa.and_(sa.or_(CropRow.reason != "", CropRow.score < LOW_SCORE), is_stored(ImageRow)),
    sa.or_(_crop_said, cluster_of(ImageRow).in_(_left_out)),
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


def key_text(key: Key) -> str:
    """KEY as it stands in addresses and forms."""
    return "/".join(quote(str(part), safe="") for part in key)


def parse_key(queue: Queue, text: str) -> Key | None:
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


def is_key(queue: Queue, key: Key) -> list[Any]:
    """Conditions that hold for the row of KEY alone."""
    return [column == part for column, part in zip(queue.keys, key, strict=True)]
