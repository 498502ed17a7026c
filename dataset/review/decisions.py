"""What people decide: one row each, made from a state that it names, so that nothing is twice.

A state is the reference of the word that holds, such as `label-12`, or `open`.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import CropDecision, ImageRow, LabelDecision, PairDecision, now
from dataset.catalogue.queries import copies_of
from dataset.duplicates import pair_decisions
from dataset.review.queues import (
    CROPS,
    DUPLICATES,
    FIRST,
    ITS,
    MINE,
    ONE,
    OTHER,
    SECOND,
    SEPARATED,
    WORDS_APART,
    Key,
    ReviewQueue,
    cluster_expression,
    cluster_pair_expression,
    key_conditions,
)
from dataset.vocabulary import Vocabulary

UNDECIDED = "open"
MAX_LABEL_CHARS, MAX_NAME_CHARS = 100, 60
LEFT_OUT, APART, FOLDED = "left out", "kept apart", "folded as copies of one photo"
TABLES: dict[str, Any] = {"label": LabelDecision, "pair": PairDecision, "crop": CropDecision}


@dataclass(frozen=True)
class CurrentDecision:
    """A word that holds: WHAT was decided by WHO and WHEN; `ref` names its row if it has one."""

    ref: str
    what: str
    who: str
    when: datetime | None

    @property
    def state(self) -> str:
        """What a decision that is made now is made from."""
        return self.ref or self.what


@dataclass(frozen=True)
class ReviewAnswer:
    """What a person says: `kind` is one of the queue's answers, `label` goes with `label` only."""

    kind: str
    label: str = ""


class DecisionRejected(ValueError):  # noqa: N818 - reads as what happened
    """The decision can't be kept; the message says why."""


class DecisionConflict(DecisionRejected):
    """Something else holds now than what the decision was made from: `said`, None where open."""

    def __init__(self, said: CurrentDecision | None) -> None:
        self.said = said
        told = f"decided meanwhile by {said.who}: {said.what}" if said else "taken back meanwhile"
        super().__init__(told)


def state_of(said: CurrentDecision | None) -> str:
    """The state in which SAID, or nothing, holds."""
    return said.state if said else UNDECIDED


def current_decision(session: Session, queue: ReviewQueue, key: Key) -> CurrentDecision | None:
    """The word that holds on the row of KEY; None where it is open."""
    if queue is DUPLICATES:
        return _on_pair(session, *key)
    if queue is CROPS:
        return _on_crop(session, *key)
    return _on_image(session, key[0])


def _on_image(session: Session, image: int) -> CurrentDecision | None:
    """The latest word on any copy of IMAGE."""
    mine = sa.select(ImageRow.id).where(copies_of([image]))
    latest = session.scalar(
        sa.select(LabelDecision)
        .where(LabelDecision.undone.is_(None), LabelDecision.image_id.in_(mine))
        .order_by(LabelDecision.id.desc())
        .limit(1)
    )
    return _said("label", latest) if latest else None


def _on_crop(session: Session, image: int, model: str, zone: str) -> CurrentDecision | None:
    this = sa.and_(CropDecision.model == model, CropDecision.zone == zone)
    latest = session.scalar(
        sa.select(CropDecision)
        .where(CropDecision.image_id == image, CropDecision.undone.is_(None))
        .where(sa.or_(CropDecision.keep_whole, this))
        .order_by(CropDecision.id.desc())
        .limit(1)
    )
    if latest:
        return _said("crop", latest)
    word = _on_image(session, image)
    return word if word and find_row(session, word.ref).label is None else None


def _on_pair(session: Session, one: int, other: int) -> CurrentDecision | None:
    latest = session.scalar(
        sa.select(PairDecision)
        .where(PairDecision.one_id == one, PairDecision.other_id == other)
        .where(PairDecision.undone.is_(None))
        .order_by(PairDecision.id.desc())
        .limit(1)
    )
    if latest:
        return _said("pair", latest)
    query = sa.select(cluster_expression(ImageRow)).where(ImageRow.id.in_([one, other]))
    if len(set(session.scalars(query))) == 1:
        return CurrentDecision("", FOLDED, "catalogue dedup", None)
    return _apart(session, one, other)


def _apart(session: Session, one: int, other: int) -> CurrentDecision | None:
    """Who took the clusters of the two images apart."""
    undone = SEPARATED.where(MINE.image_id == one, ITS.image_id == other).limit(1)
    both = sa.join(ONE, OTHER, sa.and_(ONE.id == one, OTHER.id == other))
    mine = sa.select(cluster_pair_expression(ONE, OTHER)).select_from(both)
    word = WORDS_APART.where(
        cluster_pair_expression(FIRST, SECOND) == mine.scalar_subquery()
    ).limit(1)
    found = session.scalar(undone) or session.scalar(word)
    return CurrentDecision("", APART, found.who, found.made) if found else None


def _said(kind: str, row: Any) -> CurrentDecision:
    if kind == "label":
        what = LEFT_OUT if row.label is None else row.label
    elif kind == "pair":
        what = "one photo" if row.same else APART
    else:
        what = "the whole photo is kept" if row.keep_whole else "the crop is right"
    return CurrentDecision(f"{kind}-{row.id}", what, row.who, row.made)


def find_row(session: Session, ref: str) -> Any:
    """The row that REF names; None where there is none."""
    kind, _, number = ref.partition("-")
    if kind not in TABLES or not (number.isascii() and number.isdecimal() and len(number) < 18):
        return None
    return session.get(TABLES[kind], int(number))


def find_decision(session: Session, ref: str) -> CurrentDecision | None:
    """What the row of REF says, whether it still holds or not."""
    row = find_row(session, ref)
    return _said(ref.partition("-")[0], row) if row is not None else None


def latest_decision_by(session: Session, who: str) -> CurrentDecision | None:
    """WHO's latest word that nobody took back."""
    found = []
    for kind, table in TABLES.items():
        row = session.scalar(
            sa.select(table)
            .where(table.who == who, table.undone.is_(None))
            .order_by(table.made.desc(), table.id.desc())
            .limit(1)
        )
        found += [(row.made, _said(kind, row))] if row is not None else []
    return max(found, key=lambda one: one[0])[1] if found else None


def clean_label(label: str, vocabulary: Vocabulary) -> str:
    """The label that a person means by LABEL.

    Raises:
        Refused: it is none.
    """
    meant = vocabulary.label_or_own(label[: 10 * MAX_LABEL_CHARS])
    if not meant:
        raise DecisionRejected("a label can't be empty")
    if len(meant) > MAX_LABEL_CHARS or not meant.isprintable():
        raise DecisionRejected(
            f"a label has at most {MAX_LABEL_CHARS} signs, all of which can be seen"
        )
    return meant


def decide(
    session: Session,
    queue: ReviewQueue,
    key: Key,
    answer: ReviewAnswer,
    state: str,
    who: str,
    vocabulary: Vocabulary,
) -> CurrentDecision:
    """Keep WHO's ANSWER on the row of KEY, made from STATE, in SESSION's transaction, which writes.

    Raises:
        Meanwhile: something else holds now.
        Refused: there is no such row, or no such answer.
    """
    if answer.kind not in queue.answers:
        raise DecisionRejected(f"{answer.kind or 'nothing'!r} is no answer here")
    if session.scalar(sa.select(sa.literal(1)).where(*key_conditions(queue, key))) is None:
        raise DecisionRejected("there is no such item any more")
    label = clean_label(answer.label, vocabulary) if answer.kind == "label" else None
    holds = current_decision(session, queue, key)
    if state_of(holds) != state:
        raise DecisionConflict(holds)
    if queue is DUPLICATES:
        one, other = key
        return _said(
            "pair", pair_decisions.decide_pair(session, one, other, answer.kind == "same", who)
        )
    row: Any = LabelDecision(image_id=key[0], label=label, who=who, made=now())
    kind = "label"
    if answer.kind in ("right", "whole"):
        row, kind = _crop_word(session, key, answer.kind == "whole", who), "crop"
    session.add(row)
    session.flush()
    return _said(kind, row)


def _crop_word(session: Session, key: Key, whole: bool, who: str) -> CropDecision:
    """A word on a crop, which takes the place of earlier ones on the image."""
    image, model, zone = key
    session.execute(
        sa.update(CropDecision)
        .where(CropDecision.image_id == image, CropDecision.undone.is_(None))
        .values(undone=now())
    )
    return CropDecision(
        image_id=image, model=model, zone=zone, keep_whole=whole, who=who, made=now()
    )


def undo(session: Session, ref: str) -> CurrentDecision:
    """Undo the word of REF; returns it.

    Raises:
        Refused: there is no such word, or it was taken back already.
    """
    row = find_row(session, ref)
    if row is None:
        raise DecisionRejected("there is nothing to take back")
    said = _said(ref.partition("-")[0], row)
    if row.undone is not None:
        raise DecisionRejected(f"{said.what} (by {said.who}) was taken back already")
    if isinstance(row, PairDecision):
        pair_decisions.undo_decision(session, row)
    else:
        row.undone = now()
    return said


def key_of_decision(session: Session, queue: ReviewQueue, ref: str) -> Key | None:
    """The row of QUEUE that the word of REF was said of; None where it is of no row there."""
    word = find_row(session, ref)
    images = (word.one_id, word.other_id) if isinstance(word, PairDecision) else (word.image_id,)
    if len(images) != len(queue.images):
        return None
    mine = [column == image for column, image in zip(queue.images, images, strict=True)]
    query = sa.select(*queue.keys).select_from(queue.rows).where(queue.belongs, *mine)
    found = session.execute(query.limit(1)).one_or_none()
    return tuple(found) if found else None
