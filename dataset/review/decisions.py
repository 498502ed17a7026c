"""Decisions of reviewers: one row each, made from a state, so that no decision is made twice.

The state of a queue row is the reference of the decision that holds, such as `label-12`, or `open`.
A form names the state that its page has shown; a decision from another state is rejected.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import (
    CropDecision,
    ImageRow,
    LabelConflict,
    LabelDecision,
    PairDecision,
    TagVerdictRow,
    now,
    precise_now,
)
from dataset.catalogue.queries import copies_of
from dataset.duplicates import pair_decisions
from dataset.review.queues import (
    CONFLICTS,
    CROPS,
    DECIDED_ONE,
    DECIDED_OTHER,
    MISTAKES,
    ONE,
    ONE_SEPARATION,
    OTHER,
    OTHER_SEPARATION,
    PROPOSALS,
    SEPARATING_DECISIONS,
    SEPARATIONS,
    Key,
    ReviewQueue,
    cluster_expression,
    cluster_pair_expression,
    key_conditions,
)
from dataset.selection.labeling import LABEL_SEPARATOR
from dataset.vocabulary import Vocabulary

UNDECIDED = "open"
# Answers of a batch that stand for each row's own label: its tag, or the model's suggestion.
OWN_LABELS = ("keep", "suggested")
QUEUES_WITH_SUGGESTIONS = (MISTAKES.name, PROPOSALS.name)
MAX_LABEL_CHARS, MAX_NAME_CHARS = 100, 60
EXCLUDED, SEPARATE, MERGED = "excluded", "different photos", "near duplicates, by their pixels"
TABLES: dict[str, Any] = {"label": LabelDecision, "pair": PairDecision, "crop": CropDecision}


@dataclass(frozen=True)
class CurrentDecision:
    """A decision that holds.

    Attributes:
        ref: The reference of its row, empty if it has none.
        what: What was decided, in words.
        who: Who decided it.
        when: When it was decided, None if unknown.
    """

    ref: str
    what: str
    who: str
    when: datetime | None

    @property
    def state(self) -> str:
        """The state of the queue row, from which the next decision is made."""
        return self.ref or self.what


@dataclass(frozen=True)
class ReviewAnswer:
    """A reviewer's answer.

    Attributes:
        kind: One of the queue's answers.
        label: The label, if `kind` is label.
        labels: The labels, if `kind` is labels.
    """

    kind: str
    label: str = ""
    labels: Sequence[str] = ()


class DecisionRejected(ValueError):  # noqa: N818 - reads as what happened
    """The decision cannot be saved; the message is the reason."""


class DecisionConflict(DecisionRejected):
    """The state has changed since the page was loaded."""

    def __init__(self, current: CurrentDecision | None) -> None:
        """Describe the change.

        Args:
            current: The decision that holds now, None if the row is open again.
        """
        self.current = current
        if current:
            message = f"decided meanwhile by {current.who}: {current.what}"
        else:
            message = "undone meanwhile"
        super().__init__(message)


def state_of(current: CurrentDecision | None) -> str:
    """Return the state of a queue row with a decision or none."""
    return current.state if current else UNDECIDED


def current_decision(session: Session, queue: ReviewQueue, key: Key) -> CurrentDecision | None:
    """Return the decision that holds for a queue row, None if it is open."""
    if queue.has_pairs:
        return _on_pair(session, *key)
    if queue is CROPS:
        return _on_crop(session, *key)
    return _on_image(session, key[0])


def _on_image(session: Session, image: int) -> CurrentDecision | None:
    """Return the latest label decision on any copy of an image."""
    copies = sa.select(ImageRow.id).where(copies_of([image]))
    latest = session.scalar(
        sa.select(LabelDecision)
        .where(LabelDecision.undone.is_(None), LabelDecision.image_id.in_(copies))
        .order_by(LabelDecision.id.desc())
        .limit(1)
    )
    return _describe(session, "label", latest) if latest else None


def _on_crop(session: Session, image: int, model: str, zone: str) -> CurrentDecision | None:
    is_this_crop = sa.and_(CropDecision.model == model, CropDecision.zone == zone)
    latest = session.scalar(
        sa.select(CropDecision)
        .where(CropDecision.image_id == image, CropDecision.undone.is_(None))
        .where(sa.or_(CropDecision.keep_whole, is_this_crop))
        .order_by(CropDecision.id.desc())
        .limit(1)
    )
    if latest:
        return _describe(session, "crop", latest)
    decision = _on_image(session, image)
    is_excluded = decision and find_row(session, decision.ref).label is None
    return decision if is_excluded else None


def _on_pair(session: Session, one: int, other: int) -> CurrentDecision | None:
    latest = session.scalar(
        sa.select(PairDecision)
        .where(PairDecision.one_id == one, PairDecision.other_id == other)
        .where(PairDecision.undone.is_(None))
        .order_by(PairDecision.id.desc())
        .limit(1)
    )
    if latest:
        return _describe(session, "pair", latest)
    query = sa.select(cluster_expression(ImageRow)).where(ImageRow.id.in_([one, other]))
    if len(set(session.scalars(query))) == 1:
        return CurrentDecision("", MERGED, "catalogue dedup", None)
    return _separation(session, one, other)


def _separation(session: Session, one: int, other: int) -> CurrentDecision | None:
    """Return the decision that has separated the clusters of two images."""
    undone = SEPARATIONS.where(
        ONE_SEPARATION.image_id == one, OTHER_SEPARATION.image_id == other
    ).limit(1)
    both = sa.join(ONE, OTHER, sa.and_(ONE.id == one, OTHER.id == other))
    clusters = sa.select(cluster_pair_expression(ONE, OTHER)).select_from(both)
    decision = SEPARATING_DECISIONS.where(
        cluster_pair_expression(DECIDED_ONE, DECIDED_OTHER) == clusters.scalar_subquery()
    ).limit(1)
    row = session.scalar(undone) or session.scalar(decision)
    return CurrentDecision("", SEPARATE, row.who, row.made) if row else None


def _describe(session: Session, kind: str, row: Any) -> CurrentDecision:
    if kind == "label":
        what = LABEL_SEPARATOR.join(
            EXCLUDED if other.label is None else other.label
            for other in session.scalars(_made_together(row).order_by(LabelDecision.id))
        )
    elif kind == "pair":
        what = "near duplicates" if row.same else SEPARATE
    else:
        what = "keep the whole photo" if row.keep_whole else "the crop is correct"
    return CurrentDecision(f"{kind}-{row.id}", what, row.who, row.made)


def _made_together(row: LabelDecision) -> sa.Select[Any]:
    """Return the query of the labels that an image got in one decision."""
    return sa.select(LabelDecision).where(
        LabelDecision.image_id == row.image_id,
        LabelDecision.who == row.who,
        LabelDecision.made == row.made,
    )


def find_row(session: Session, ref: str) -> Any:
    """Return the row of a reference, None if there is none."""
    kind, _, number = ref.partition("-")
    if kind not in TABLES or not (number.isascii() and number.isdecimal() and len(number) < 18):
        return None
    return session.get(TABLES[kind], int(number))


def find_decision(session: Session, ref: str) -> CurrentDecision | None:
    """Return the decision of a reference, whether it still holds or not, None if there is none."""
    row = find_row(session, ref)
    return _describe(session, ref.partition("-")[0], row) if row is not None else None


def latest_decision_by(session: Session, who: str) -> CurrentDecision | None:
    """Return the latest decision of a person that is not undone."""
    decisions = []
    for kind, table in TABLES.items():
        row = session.scalar(
            sa.select(table)
            .where(table.who == who, table.undone.is_(None))
            .order_by(table.made.desc(), table.id.desc())
            .limit(1)
        )
        decisions += [(row.made, _describe(session, kind, row))] if row is not None else []
    return max(decisions, key=lambda decision: decision[0])[1] if decisions else None


def clean_label(label: str, vocabulary: Vocabulary) -> str:
    """Return the label that a reviewer has typed, by the words of the vocabulary.

    Raises:
        DecisionRejected: It is empty, too long or contains control characters.
    """
    cleaned = vocabulary.label_or_hashtag(label[: 10 * MAX_LABEL_CHARS])
    if not cleaned:
        raise DecisionRejected("a label can't be empty")
    if len(cleaned) > MAX_LABEL_CHARS or not cleaned.isprintable():
        raise DecisionRejected(f"a label has at most {MAX_LABEL_CHARS} printable characters")
    return cleaned


def decide(
    session: Session,
    queue: ReviewQueue,
    key: Key,
    answer: ReviewAnswer,
    state: str,
    who: str,
    vocabulary: Vocabulary,
    made: datetime | None = None,
) -> CurrentDecision:
    """Save a decision on a queue row.

    Args:
        session: A session that writes.
        queue: The queue.
        key: The row.
        answer: The reviewer's answer.
        state: The state of the row that the page has shown.
        who: Name of the reviewer.
        vocabulary: Maps words to labels.
        made: When it is decided; now by default.

    Raises:
        DecisionConflict: The row has another state now.
        DecisionRejected: There is no such row or answer.
    """
    if answer.kind not in queue.answers:
        raise DecisionRejected(f"{answer.kind or 'an empty answer'!r} is not an answer here")
    if session.scalar(sa.select(sa.literal(1)).where(*key_conditions(queue, key))) is None:
        raise DecisionRejected("this item no longer exists")
    labels = _labels_of(answer, vocabulary)
    current = current_decision(session, queue, key)
    if state_of(current) != state:
        raise DecisionConflict(current)
    made = made or precise_now()
    if queue.has_pairs:
        one, other = key
        is_same = answer.kind == "same"
        pair = pair_decisions.decide_pair(session, one, other, is_same, who, made)
        return _describe(session, "pair", pair)
    if answer.kind in ("correct", "whole"):
        crop = _crop_decision(session, key, answer.kind == "whole", who, made)
        session.add(crop)
        session.flush()
        return _describe(session, "crop", crop)
    rows = [LabelDecision(image_id=key[0], label=label, who=who, made=made) for label in labels]
    for row in rows:
        # One by one: the ids keep the order of the labels.
        session.add(row)
        session.flush()
    return _describe(session, "label", rows[-1])


def _labels_of(answer: ReviewAnswer, vocabulary: Vocabulary) -> list[str | None]:
    """Return the labels that an answer gives a photo; None excludes it.

    Raises:
        DecisionRejected: There is none, or one is not valid.
    """
    if answer.kind == "label":
        return [clean_label(answer.label, vocabulary)]
    if answer.kind != "labels":
        return [None]
    if not answer.labels:
        raise DecisionRejected("no label is selected")
    return list(dict.fromkeys(clean_label(label, vocabulary) for label in answer.labels))


def _crop_decision(
    session: Session, key: Key, keep_whole: bool, who: str, made: datetime
) -> CropDecision:
    """Create a decision on a crop, which replaces earlier ones on the image."""
    image, model, zone = key
    session.execute(
        sa.update(CropDecision)
        .where(CropDecision.image_id == image, CropDecision.undone.is_(None))
        .values(undone=now())
    )
    return CropDecision(
        image_id=image, model=model, zone=zone, keep_whole=keep_whole, who=who, made=made
    )


@dataclass(frozen=True)
class BatchResult:
    """The result of deciding several rows at once.

    Attributes:
        saved: The decisions that were saved.
        rejected: The other rows, and why their decisions were not saved.
    """

    saved: Sequence[CurrentDecision]
    rejected: Sequence[tuple[Key, DecisionRejected]]


def decide_batch(
    session: Session,
    queue: ReviewQueue,
    states: Mapping[Key, str],
    answer: ReviewAnswer,
    who: str,
    vocabulary: Vocabulary,
) -> BatchResult:
    """Save the same answer on several queue rows; rows that changed meanwhile are left as they are.

    All decisions of a batch have the same time, by which `undo_batch` finds them.

    Args:
        session: A session that writes.
        queue: The queue.
        states: Row -> its state that the page has shown.
        answer: An answer of the queue, or `keep`, `suggested` or `all` for each row's own labels.
        who: Name of the reviewer.
        vocabulary: Maps words to labels.
    """
    saved: list[CurrentDecision] = []
    rejected: list[tuple[Key, DecisionRejected]] = []
    made = precise_now()
    for key, state in states.items():
        try:
            own = _own_answer(session, queue, key, answer)
            with session.begin_nested():
                saved.append(decide(session, queue, key, own, state, who, vocabulary, made))
        except DecisionRejected as error:
            rejected.append((key, error))
    return BatchResult(saved, rejected)


def _own_answer(
    session: Session, queue: ReviewQueue, key: Key, answer: ReviewAnswer
) -> ReviewAnswer:
    """Return the answer on one row of a batch.

    Raises:
        DecisionRejected: The model suggests no label for the row.
    """
    if queue is CONFLICTS and answer.kind == "all":
        conflict = session.get(LabelConflict, key)
        return ReviewAnswer("labels", labels=json.loads(conflict.labels) if conflict else ())
    if queue.name not in QUEUES_WITH_SUGGESTIONS or answer.kind not in OWN_LABELS:
        return answer
    image, tagged = key
    if answer.kind == "keep":
        return ReviewAnswer("label", tagged)
    verdict = session.get(TagVerdictRow, (image, tagged))
    if verdict is None or not verdict.suggested:
        raise DecisionRejected("the model suggests no label")
    return ReviewAnswer("label", verdict.suggested)


def _holds_with(row: Any) -> sa.ColumnElement[bool]:
    """Return the condition of decisions that were made together with one and still hold."""
    table = type(row)
    return sa.and_(table.who == row.who, table.made == row.made, table.undone.is_(None))


def undo_batch(session: Session, ref: str) -> Sequence[CurrentDecision]:
    """Undo all decisions of the batch that a decision belongs to, and return them.

    Raises:
        DecisionRejected: There is no such decision, or all of them are undone already.
    """
    row = find_row(session, ref)
    if row is None:
        raise DecisionRejected("there is no decision to undo")
    kind, table = ref.partition("-")[0], type(row)
    batch = session.scalars(
        sa.select(table).where(_holds_with(row)).order_by(table.id.desc())
    ).all()
    if not batch:
        raise DecisionRejected("these decisions are undone already")
    # The labels that an image got together are undone together.
    return [undo(session, f"{kind}-{decision.id}") for decision in batch if decision.undone is None]


def batch_size(session: Session, ref: str) -> int:
    """Return how many decisions of the batch of a decision hold."""
    row = find_row(session, ref)
    if row is None:
        return 0
    table: Any = type(row)
    subject = table.image_id if table is LabelDecision else table.id
    count = session.scalar(
        sa.select(sa.func.count(subject.distinct())).select_from(table).where(_holds_with(row))
    )
    return count or 0


def undo(session: Session, ref: str) -> CurrentDecision:
    """Undo the decision of a reference and return it.

    Raises:
        DecisionRejected: There is no such decision, or it is undone already.
    """
    row = find_row(session, ref)
    if row is None:
        raise DecisionRejected("there is no decision to undo")
    decision = _describe(session, ref.partition("-")[0], row)
    if row.undone is not None:
        raise DecisionRejected(f"{decision.what} (by {decision.who}) is undone already")
    if isinstance(row, PairDecision):
        pair_decisions.undo_decision(session, row)
    elif isinstance(row, LabelDecision):
        for other in session.scalars(_made_together(row)):
            other.undone = now()
    else:
        row.undone = now()
    return decision


def key_of_decision(session: Session, queue: ReviewQueue, ref: str) -> Key | None:
    """Return the key of the queue row that a decision is on, None if it is on none."""
    row = find_row(session, ref)
    images = (row.one_id, row.other_id) if isinstance(row, PairDecision) else (row.image_id,)
    if len(images) != len(queue.images):
        return None
    is_shown = [column == image for column, image in zip(queue.images, images, strict=True)]
    query = sa.select(*queue.keys).select_from(queue.rows).where(queue.belongs, *is_shown)
    key = session.execute(query.limit(1)).one_or_none()
    return tuple(key) if key else None
