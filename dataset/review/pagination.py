"""Pages of a queue, narrowed by filters; each begins beyond a key and reads what it shows."""

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
from dataset.review.queues import CONFLICTS, MISTAKES, Key, ReviewQueue, key_conditions
from dataset.vocabulary import Vocabulary

OPEN, DECIDED, ALL = "open", "decided", "all"


@dataclass(frozen=True)
class QueueFilters:
    """What a queue is narrowed to; an empty one narrows nothing. `show`: open, decided or all."""

    label: str = ""
    site: str = ""
    verdict: str = ""
    suggested: str = ""
    title: str = ""
    show: str = OPEN

    @property
    def chosen(self) -> dict[str, str]:
        """Those that are not as they are without anybody's choice."""
        plain = asdict(QueueFilters())
        return {name: value for name, value in asdict(self).items() if value != plain[name]}


def _shown(queue: ReviewQueue, *conditions: Any) -> Any:
    """Whether one of a row's images stands in a post that fulfils CONDITIONS."""
    return (
        sa.exists()
        .where(sa.or_(*(Sighting.image_id == image for image in queue.images)))
        .where(Sighting.post_id == PostRow.id, *conditions)
    )


def _has_label(queue: ReviewQueue, label: str, vocabulary: Vocabulary) -> Any:
    if queue is MISTAKES:
        return TagVerdictRow.label == label
    if queue is CONFLICTS:
        quoted = json.dumps(label, ensure_ascii=False)
        return LabelConflict.labels.contains(quoted, autoescape=True)
    words = (
        sa.select(PostHashtag.post_id)
        .join(Hashtag)
        .where(PostHashtag.source == "search", Hashtag.text.in_(vocabulary.words_of(label)))
    )
    return _shown(queue, PostRow.id.in_(words))


def _in_title(text: str) -> Any:
    # SQLite knows upper and lower case of English only.
    spellings = {text, text.lower(), text.upper(), text.capitalize(), text.title()}
    return sa.or_(*(PostRow.title.icontains(one, autoescape=True) for one in sorted(spellings)))


def _conditions(queue: ReviewQueue, filters: QueueFilters, vocabulary: Vocabulary) -> list[Any]:
    wanted = [queue.belongs]
    if filters.label:
        wanted.append(_has_label(queue, vocabulary.label_or_own(filters.label), vocabulary))
    if filters.site:
        wanted.append(_shown(queue, PostRow.site == filters.site))
    if filters.title:
        wanted.append(_shown(queue, _in_title(filters.title)))
    if queue is MISTAKES and filters.verdict:
        wanted.append(TagVerdictRow.verdict == filters.verdict)
    if queue is MISTAKES and filters.suggested:
        wanted.append(TagVerdictRow.suggested == vocabulary.label_or_own(filters.suggested))
    return wanted


def _is_shown(queue: ReviewQueue, show: str) -> list[Any]:
    if show == ALL:
        return []
    return [queue.decided if show == DECIDED else sa.not_(queue.decided)]


def list_keys(
    session: Session,
    queue: ReviewQueue,
    filters: QueueFilters,
    vocabulary: Vocabulary,
    size: int,
    beyond: Key | None = None,
    backwards: bool = False,
) -> list[Key]:
    """The keys of at most SIZE rows of QUEUE that come after the key BEYOND, or before it.

    BACKWARDS: those nearest before it, the nearest first. From the start without BEYOND.
    """
    query = (
        sa.select(*queue.keys)
        .select_from(queue.rows)
        .where(*_conditions(queue, filters, vocabulary), *_is_shown(queue, filters.show))
    )
    place = _place(session, queue, beyond)
    if place is not None:
        query = query.where(_beyond(queue, place, backwards))
    order = [c.desc() if high != backwards else c.asc() for c, high in queue.order]
    return [tuple(row) for row in session.execute(query.order_by(*order).limit(size))]


def _place(session: Session, queue: ReviewQueue, key: Key | None) -> Sequence[Any] | None:
    """Where KEY stands in the order; None where there is no such row."""
    if key is None:
        return None
    columns = [column for column, _ in queue.order]
    return session.execute(sa.select(*columns).where(*key_conditions(queue, key))).one_or_none()


def _beyond(queue: ReviewQueue, place: Sequence[Any], backwards: bool) -> Any:
    ways: list[Any] = []
    equal: list[Any] = []
    for (column, high), value in zip(queue.order, place, strict=True):
        ways.append(sa.and_(*equal, column < value if high != backwards else column > value))
        equal.append(column == value)
    return sa.or_(*ways)


def count_progress(
    session: Session, queue: ReviewQueue, filters: QueueFilters, vocabulary: Vocabulary
) -> tuple[int, int]:
    """How many rows of QUEUE, as FILTERS narrow it, are decided, and how many are left."""
    done = sa.func.coalesce(sa.func.sum(sa.case((queue.decided, 1), else_=0)), 0)
    decided, all_ = session.execute(
        sa.select(done, sa.func.count())
        .select_from(queue.rows)
        .where(*_conditions(queue, filters, vocabulary))
    ).one()
    return int(decided), int(all_) - int(decided)


# Counting that takes longer is remembered so many times as long: it costs 2 % of the time.
QUICK_SECONDS, TIMES = 0.03, 50


@dataclass
class ProgressCache:
    """What was counted of a queue under filters: decided, left, and until when that is told."""

    known: dict[tuple[str, QueueFilters], tuple[int, int, float]] = field(default_factory=dict)

    def of(
        self, session: Session, queue: ReviewQueue, filters: QueueFilters, vocabulary: Vocabulary
    ) -> tuple[int, int]:
        """How many rows of QUEUE are decided, and how many are left."""
        key, began = _key(queue, filters), time.monotonic()
        decided, left, until = self.known.get(key, (0, 0, 0.0))
        if began >= until:
            decided, left = count_progress(session, queue, filters, vocabulary)
            took = time.monotonic() - began
            until = began + (TIMES * took if took > QUICK_SECONDS else 0)
            self.known[key] = decided, left, until
        return decided, left

    def decided(self, queue: ReviewQueue, filters: QueueFilters, state: str) -> None:
        """One more row is decided, if it was open in the STATE that the decision was made from."""
        decided, left, until = self.known.get(_key(queue, filters), (0, 0, 0.0))
        if state == UNDECIDED and left:
            self.known[_key(queue, filters)] = decided + 1, left - 1, until

    def forget(self) -> None:
        """Count all anew: a word was taken back."""
        self.known.clear()


def _key(queue: ReviewQueue, filters: QueueFilters) -> tuple[str, QueueFilters]:
    return queue.name, replace(filters, show="")
