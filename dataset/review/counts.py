"""How far each queue is: counted anew where that is quick, else remembered for a while."""

import time
from dataclasses import dataclass, field, replace

from sqlalchemy.orm import Session

from dataset.labels import Vocabulary
from dataset.review.decisions import UNDECIDED
from dataset.review.paging import Filters, progress
from dataset.review.queues import Queue

# Counting that takes longer is remembered so many times as long: it costs 2 % of the time.
QUICK_SECONDS, TIMES = 0.03, 50


@dataclass
class Counts:
    """What was counted of a queue under filters: decided, left, and until when that is told."""

    known: dict[tuple[str, Filters], tuple[int, int, float]] = field(default_factory=dict)

    def of(
        self, session: Session, queue: Queue, filters: Filters, vocabulary: Vocabulary
    ) -> tuple[int, int]:
        """How many rows of QUEUE are decided, and how many are left."""
        key, began = _key(queue, filters), time.monotonic()
        decided, left, until = self.known.get(key, (0, 0, 0.0))
        if began >= until:
            decided, left = progress(session, queue, filters, vocabulary)
            took = time.monotonic() - began
            until = began + (TIMES * took if took > QUICK_SECONDS else 0)
            self.known[key] = decided, left, until
        return decided, left

    def decided(self, queue: Queue, filters: Filters, state: str) -> None:
        """One more row is decided, if it was open in the STATE that the decision was made from."""
        decided, left, until = self.known.get(_key(queue, filters), (0, 0, 0.0))
        if state == UNDECIDED and left:
            self.known[_key(queue, filters)] = decided + 1, left - 1, until

    def forget(self) -> None:
        """Count all anew: a word was taken back."""
        self.known.clear()


def _key(queue: Queue, filters: Filters) -> tuple[str, Filters]:
    return queue.name, replace(filters, show="")
