"""Write crawl results to the catalogue in batches (group commit).

Each waits a moment for others, since a transaction costs much and one more photo in it little.
A thread of its own writes, so that a disk that takes its time holds up no download.
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy.orm import Session

from dataset.catalogue.session import Sessions
from dataset.duplicates.index import FingerprintIndex
from dataset.images.store import ImageStore
from dataset.maintenance import takedown
from dataset.maintenance.takedown import TakedownList
from scraper.examining import Fetched, Refused
from scraper.outcomes import settle

# Images per write, and seconds to wait for more of them.
BATCH, MOMENT = 16, 0.05

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Waiting:
    url: str
    outcome: Fetched | Refused
    done: "asyncio.Future[str | Refused]"


class Keeper:
    """Writes outcomes of photos; each is kept when its caller goes on."""

    def __init__(self, sessions: Sessions, store: ImageStore) -> None:
        self._sessions, self._store = sessions, store
        # Of a million it takes seconds, while pages and the first photos come.
        self._known = ThreadPoolExecutor(1, thread_name_prefix="known").submit(_known, sessions)
        self.forgotten = TakedownList()
        with sessions() as session:
            self.forgotten.catch_up(session)
        self._waiting: list[_Waiting] = []
        self._enough = asyncio.Event()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="catalogue")
        self._writing: asyncio.Task[None] | None = None

    async def keep(self, url: str, outcome: Fetched | Refused) -> str | Refused:
        """Keep OUTCOME of the photo URL: new, exact or near duplicate, or why it is refused.

        Raises:
            Failure: the catalogue can't be written.
        """
        loop = asyncio.get_running_loop()
        mine = _Waiting(url, outcome, loop.create_future())
        self._waiting.append(mine)
        if len(self._waiting) >= BATCH:
            self._enough.set()
        if self._writing is None or self._writing.done():
            self._writing = loop.create_task(self._write_all())
        return await mine.done

    async def write(self, step: Callable[[Session], Result]) -> Result:
        """What STEP returns, done in a transaction of its own between those of photos.

        Raises:
            Failure: the catalogue can't be written.
        """

        def commit() -> Result:
            with self._sessions.begin() as session:
                return step(session)

        return await asyncio.get_running_loop().run_in_executor(self._writer, commit)

    async def _write_all(self) -> None:
        # What comes while one batch is written is the next, all of it together.
        while self._waiting:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._enough.wait(), MOMENT)
            batch, self._waiting = self._waiting, []
            self._enough.clear()
            await self._write(batch)

    async def _write(self, batch: list[_Waiting]) -> None:
        try:
            loop = asyncio.get_running_loop()
            kept = await loop.run_in_executor(self._writer, self._commit, batch)
        except Exception as error:  # noqa: BLE001 - each that waits for it raises it
            for one in batch:
                one.done.set_exception(error)
            return
        for one, outcome in zip(batch, kept, strict=True):
            one.done.set_result(outcome)

    def _commit(self, batch: list[_Waiting]) -> list[str | Refused]:
        # A row says `stored` of what a power cut can't take back.
        self._store.sync()
        known = self._known.result()
        with self._sessions.begin() as session:
            self.forgotten.catch_up(session)
            known.catch_up(session)
            outcomes = [(one.url, self._unless_forgotten(one.outcome)) for one in batch]
            return settle(session, outcomes, known)

    def _unless_forgotten(self, outcome: Fetched | Refused) -> Fetched | Refused:
        if isinstance(outcome, Refused):
            return outcome
        if not self.forgotten.has_image(outcome.sha256, outcome.fingerprint):
            return outcome
        self._store.remove(outcome.store_key)
        return Refused(takedown.REASON)


def _known(sessions: Sessions) -> FingerprintIndex:
    with sessions() as session:
        return FingerprintIndex(session)
