"""Write a crawl's results to the catalogue in batches (group commit).

A result waits a moment for others, because a transaction costs much and one more image in it
little. A thread of its own writes, so that a slow disk delays no download.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.orm import Session

from dataset.catalogue.session import Sessions
from dataset.duplicates.index import FingerprintIndex
from dataset.images.store import ImageStore
from dataset.maintenance import takedown
from dataset.maintenance.takedown import TakedownList
from scraper.decoding.inspection import AcceptedImage, RejectedImage
from scraper.persistence.images import (
    Outcome,
    claimed_urls,
    has_sighting,
    is_stored,
    save_outcomes,
)

# Images per transaction, and how long the first one waits for more.
BATCH_IMAGES, MAX_DELAY_SECONDS = 16, 0.05

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Pending:
    url: str
    outcome: Outcome
    names: Sequence[str]
    may_store: "Callable[[Session, str], bool]"
    result: "asyncio.Future[str | RejectedImage | None]"


class CatalogueWriter:
    """Write outcomes of images and other changes, one transaction after the other.

    Args:
        sessions: The catalogue.
        store: The image store, which is synced before its images are recorded.

    Attributes:
        takedowns: What was taken down, up to date at the last commit.
    """

    def __init__(self, sessions: Sessions, store: ImageStore) -> None:
        self._sessions, self._store = sessions, store
        # Loading a million takes seconds, while pages and the first images are downloaded.
        self._index = ThreadPoolExecutor(1, thread_name_prefix="index").submit(
            _load_index, sessions
        )
        self.takedowns = TakedownList()
        with sessions() as session:
            self.takedowns.catch_up(session)
        self._pending: list[_Pending] = []
        self._is_full = asyncio.Event()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="catalogue")
        self._task: asyncio.Task[None] | None = None

    async def save(
        self,
        url: str,
        outcome: Outcome,
        names: Sequence[str] = (),
        may_store: Callable[[Session, str], bool] = lambda *_: True,
    ) -> str | RejectedImage | None:
        """Save the outcome of an image, and return once it is committed.

        Args:
            url: URL of the image, as claimed.
            outcome: Result of its inspection.
            names: Other names of the image, any of which may have been taken down.
            may_store: Returns whether the image may still be stored if its claim was lost.

        Returns:
            Whether the image is new, an exact or a near duplicate; or why it is rejected. None if
            it was not saved, because its claim was lost.

        Raises:
            Failure: The catalogue can't be written.
        """
        loop = asyncio.get_running_loop()
        pending = _Pending(url, outcome, names, may_store, loop.create_future())
        self._pending.append(pending)
        if len(self._pending) >= BATCH_IMAGES:
            self._is_full.set()
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._write_batches())
        return await pending.result

    async def write(self, step: Callable[[Session], Result]) -> Result:
        """Run a step in a transaction of its own, and return its result.

        Raises:
            Failure: The catalogue can't be written.
        """

        def commit() -> Result:
            with self._sessions.begin() as session:
                return step(session)

        return await asyncio.get_running_loop().run_in_executor(self._executor, commit)

    async def _write_batches(self) -> None:
        # Results that arrive while a batch is written form the next one.
        while self._pending:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._is_full.wait(), MAX_DELAY_SECONDS)
            batch, self._pending = self._pending, []
            self._is_full.clear()
            await self._write_batch(batch)

    async def _write_batch(self, batch: list[_Pending]) -> None:
        try:
            loop = asyncio.get_running_loop()
            results = await loop.run_in_executor(self._executor, self._commit, batch)
        except Exception as error:  # noqa: BLE001 - each caller of `save` raises it
            for pending in batch:
                pending.result.set_exception(error)
            return
        for pending, result in zip(batch, results, strict=True):
            pending.result.set_result(result)

    def _commit(self, batch: list[_Pending]) -> list[str | RejectedImage | None]:
        # A row says `stored` only of a file that a power failure can't remove.
        self._store.sync()
        index = self._index.result()
        with self._sessions.begin() as session:
            self.takedowns.catch_up(session)
            index.catch_up(session)
            is_claimed = claimed_urls(session, [pending.url for pending in batch])
            claimed = [pending for pending in batch if is_claimed.get(pending.url)]
            outcomes = [
                (pending.url, self._reject_taken_down(session, pending)) for pending in claimed
            ]
            results: dict[int, str | RejectedImage | None] = {
                id(pending): result
                for pending, result in zip(
                    claimed, save_outcomes(session, outcomes, index, is_claimed), strict=True
                )
            }
            for pending in batch:
                if id(pending) not in results:
                    results[id(pending)] = self._save_unclaimed(session, pending, index)
        return [results[id(pending)] for pending in batch]

    def _save_unclaimed(
        self, session: Session, pending: _Pending, index: FingerprintIndex
    ) -> str | RejectedImage | None:
        """Save the outcome of an image whose claim was lost, if it may still be saved."""
        url, outcome = pending.url, self._reject_taken_down(session, pending)
        if claimed_urls(session, [url]) and pending.may_store(session, url):
            (result,) = save_outcomes(session, [(url, outcome)], index)
            return result
        if isinstance(outcome, AcceptedImage):
            self._remove_file(session, outcome)
        # Without a post, the image or all its posts were taken down meanwhile.
        return None if has_sighting(session, url) else RejectedImage(takedown.REASON)

    def _reject_taken_down(self, session: Session, pending: _Pending) -> Outcome:
        """Return the outcome, or a rejection if the image or one of its names was taken down."""
        outcome = pending.outcome
        if isinstance(outcome, RejectedImage):
            return outcome
        names = (pending.url, *pending.names)
        if not (
            self.takedowns.has_name(takedown.URL, names)
            or self.takedowns.has_image(outcome.sha256, outcome.fingerprint)
        ):
            return outcome
        self._remove_file(session, outcome)
        return RejectedImage(takedown.REASON)

    def _remove_file(self, session: Session, image: AcceptedImage) -> None:
        """Remove the file of an image that is not saved, unless it was stored before."""
        if not is_stored(session, image.sha256):
            self._store.remove(image.store_key)

    def close(self) -> None:
        """Wait for the running transaction and end the thread."""
        self._executor.shutdown()


def _load_index(sessions: Sessions) -> FingerprintIndex:
    with sessions() as session:
        return FingerprintIndex(session)
