"""Keyset pagination and progress of the review queues, narrowed by filters."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import (
    Hashtag,
    LabelConflict,
    PostHashtag,
    PostRow,
    Sighting,
    TagVerdictRow,
)
from dataset.review.decisions import UNDECIDED
from dataset.review.queues import (
    CONFLICTS,
    MISTAKES,
    PROPOSALS,
    Key,
    ReviewQueue,
    key_conditions,
)
from dataset.vocabulary import Vocabulary

OPEN, DECIDED, ALL = "open", "decided", "all"
LEARNING = "learning"
# Larger than every rank.
NO_RANK = 2**31 - 1


@dataclass(frozen=True)
class QueueFilters:
    """Filters of a queue; an empty value does not filter.

    Attributes:
        label: Label of the row.
        site: Site of one of its posts.
        verdict: Verdict of the model.
        suggested: Label that the model suggests.
        title: Part of the title of one of its posts.
        show: OPEN, DECIDED or ALL rows.
        order: LEARNING for the order of active learning (BADGE); empty for the queue's.
    """

    label: str = ""
    site: str = ""
    verdict: str = ""
    suggested: str = ""
    title: str = ""
    show: str = OPEN
    order: str = ""

    @property
    def chosen(self) -> dict[str, str]:
        """The values that differ from the defaults."""
        defaults = asdict(QueueFilters())
        return {name: value for name, value in asdict(self).items() if value != defaults[name]}


def _is_in_post(queue: ReviewQueue, *conditions: Any) -> Any:
    """Return the condition that an image of the row is in a post that meets conditions."""
    return (
        sa.exists()
        .where(sa.or_(*(Sighting.image_id == image for image in queue.images)))
        .where(Sighting.post_id == PostRow.id, *conditions)
    )


def _has_label(queue: ReviewQueue, label: str, vocabulary: Vocabulary) -> Any:
    if queue is MISTAKES:
        return TagVerdictRow.label == label
    if queue is PROPOSALS:
        return TagVerdictRow.suggested == label
    if queue is CONFLICTS:
        quoted = json.dumps(label, ensure_ascii=False)
        return LabelConflict.labels.contains(quoted, autoescape=True)
    post_ids = (
        sa.select(PostHashtag.post_id)
        .join(Hashtag)
        .where(PostHashtag.source == "search", Hashtag.text.in_(vocabulary.words_of(label)))
    )
    return _is_in_post(queue, PostRow.id.in_(post_ids))


def _is_in_title(text: str) -> Any:
    # SQLite ignores case for ASCII letters only.
    spellings = {text, text.lower(), text.upper(), text.capitalize(), text.title()}
    return sa.or_(
        *(PostRow.title.icontains(spelling, autoescape=True) for spelling in sorted(spellings))
    )


def _conditions(queue: ReviewQueue, filters: QueueFilters, vocabulary: Vocabulary) -> list[Any]:
    conditions = [queue.belongs]
    if filters.label:
        label = vocabulary.label_or_hashtag(filters.label)
        conditions.append(_has_label(queue, label, vocabulary))
    if filters.site:
        conditions.append(_is_in_post(queue, PostRow.site == filters.site))
    if filters.title:
        conditions.append(_is_in_post(queue, _is_in_title(filters.title)))
    if queue is MISTAKES and filters.verdict:
        conditions.append(TagVerdictRow.verdict == filters.verdict)
    if queue is MISTAKES and filters.suggested:
        suggested = vocabulary.label_or_hashtag(filters.suggested)
        conditions.append(TagVerdictRow.suggested == suggested)
    return conditions


def _is_shown(queue: ReviewQueue, show: str) -> list[Any]:
    if show == ALL:
        return []
    return [queue.decided if show == DECIDED else sa.not_(queue.decided)]


def _order(queue: ReviewQueue, filters: QueueFilters) -> tuple[tuple[Any, bool], ...]:
    """Return the columns that sort the rows, and whether in descending order."""
    if queue is MISTAKES and filters.order == LEARNING:
        # Tags without a rank come last.
        rank = sa.func.coalesce(TagVerdictRow.learning_rank, NO_RANK)
        return ((rank, False), *queue.order)
    return queue.order


def list_keys(
    session: Session,
    queue: ReviewQueue,
    filters: QueueFilters,
    vocabulary: Vocabulary,
    size: int,
    beyond: Key | None = None,
    backwards: bool = False,
) -> list[Key]:
    """List the keys of a page of a queue.

    Args:
        session: The session.
        queue: The queue.
        filters: Its filters.
        vocabulary: Maps words to labels.
        size: Largest number of keys.
        beyond: Start after this key; at the first row if None.
        backwards: List the rows before `beyond` instead, the nearest first.
    """
    query = (
        sa.select(*queue.keys)
        .select_from(queue.rows)
        .where(*_conditions(queue, filters, vocabulary), *_is_shown(queue, filters.show))
    )
    columns = _order(queue, filters)
    position = _position(session, queue, columns, beyond)
    if position is not None:
        query = query.where(_is_beyond(columns, position, backwards))
    order = [
        column.desc() if descending != backwards else column.asc() for column, descending in columns
    ]
    return [tuple(row) for row in session.execute(query.order_by(*order).limit(size))]


def _position(
    session: Session,
    queue: ReviewQueue,
    order: Sequence[tuple[Any, bool]],
    key: Key | None,
) -> Sequence[Any] | None:
    """Return the values that a row is sorted by, None if there is no such row."""
    if key is None:
        return None
    columns = [column for column, _ in order]
    return session.execute(sa.select(*columns).where(*key_conditions(queue, key))).one_or_none()


def _is_beyond(order: Sequence[tuple[Any, bool]], position: Sequence[Any], backwards: bool) -> Any:
    alternatives: list[Any] = []
    equal: list[Any] = []
    for (column, descending), value in zip(order, position, strict=True):
        differs = column < value if descending != backwards else column > value
        alternatives.append(sa.and_(*equal, differs))
        equal.append(column == value)
    return sa.or_(*alternatives)


def count_progress(
    session: Session, queue: ReviewQueue, filters: QueueFilters, vocabulary: Vocabulary
) -> tuple[int, int]:
    """Count the rows of a filtered queue that are decided, and those that are left."""
    decided_rows = sa.func.coalesce(sa.func.sum(sa.case((queue.decided, 1), else_=0)), 0)
    decided, total = session.execute(
        sa.select(decided_rows, sa.func.count())
        .select_from(queue.rows)
        .where(*_conditions(queue, filters, vocabulary))
    ).one()
    return int(decided), int(total) - int(decided)


# A count that takes longer is cached for CACHE_FACTOR times its duration, so that counting takes at
# most 2 % of the time.
SLOW_SECONDS, CACHE_FACTOR = 0.03, 50


@dataclass
class ProgressCache:
    """The progress of queues, cached where counting is slow.

    Attributes:
        known: Queue and filters -> decided, left, and until when it is valid.
    """

    known: dict[tuple[str, QueueFilters], tuple[int, int, float]] = field(default_factory=dict)

    def of(
        self, session: Session, queue: ReviewQueue, filters: QueueFilters, vocabulary: Vocabulary
    ) -> tuple[int, int]:
        """Return how many rows are decided, and how many are left."""
        key, started = _cache_key(queue, filters), time.monotonic()
        decided, left, expires = self.known.get(key, (0, 0, 0.0))
        if started >= expires:
            decided, left = count_progress(session, queue, filters, vocabulary)
            seconds = time.monotonic() - started
            expires = started + (CACHE_FACTOR * seconds if seconds > SLOW_SECONDS else 0)
            self.known[key] = decided, left, expires
        return decided, left

    def add_decision(self, queue: ReviewQueue, filters: QueueFilters, state: str) -> None:
        """Count a decision, if the row was open before."""
        decided, left, expires = self.known.get(_cache_key(queue, filters), (0, 0, 0.0))
        if state == UNDECIDED and left:
            self.known[_cache_key(queue, filters)] = decided + 1, left - 1, expires

    def clear(self) -> None:
        """Count again at the next request."""
        self.known.clear()


def _cache_key(queue: ReviewQueue, filters: QueueFilters) -> tuple[str, QueueFilters]:
    return queue.name, replace(filters, show="", order="")
