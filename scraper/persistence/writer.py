"""Write a crawl's results to the catalogue in batches (group commit).

Results are collected for a moment, because a transaction is expensive and an additional image in
it is cheap. A separate thread writes, so that a slow disk delays no download. The functions below
`CatalogueWriter` are the steps of a transaction: each saves a batch in a few statements.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import Cluster, ImageRow, Sighting, now
from dataset.catalogue.queries import in_batches, table_of
from dataset.catalogue.session import Sessions
from dataset.duplicates.index import FingerprintIndex, duplicate_of, save_new
from dataset.images.store import ImageStore
from dataset.maintenance import takedown
from dataset.maintenance.takedown import TakedownList
from scraper.decoding.inspection import AcceptedImage, RejectedImage

# Images per transaction, and how long the first one waits for more.
BATCH_IMAGES, MAX_DELAY_SECONDS = 16, 0.05

Result = TypeVar("Result")
Outcome = AcceptedImage | RejectedImage
NEW, EXACT, NEAR = "new", "exact duplicate", "near duplicate"
# The statements are built once, because building one takes longer than running it.
_IMAGES, _SIGHTINGS, _CLUSTERS = map(table_of, (ImageRow, Sighting, Cluster))
_SELECT_IMAGES = sa.select(_IMAGES.c.sha256, _IMAGES.c.id, _IMAGES.c.state).where(
    _IMAGES.c.sha256.in_(sa.bindparam("digests", expanding=True))
)
_UPDATE_IMAGE = sa.update(_IMAGES).where(_IMAGES.c.id == sa.bindparam("updated_id"))
_INSERT_IMAGES = sa.insert(_IMAGES).returning(_IMAGES.c.sha256, _IMAGES.c.id)
_SELECT_CLUSTERS = sa.select(_IMAGES.c.id, _IMAGES.c.cluster_id).where(
    _IMAGES.c.id.in_(sa.bindparam("images", expanding=True)), _IMAGES.c.cluster_id.is_not(None)
)
_INSERT_CLUSTERS = sa.insert(_CLUSTERS).returning(_CLUSTERS.c.id)
_SET_CLUSTER = _UPDATE_IMAGE.values(cluster_id=sa.bindparam("new_cluster"))
_IS_PENDING = _SIGHTINGS.c.state == "pending"
_SELECT_PENDING = sa.select(_SIGHTINGS.c.url, _SIGHTINGS.c.worker_id).where(
    _SIGHTINGS.c.url.in_(sa.bindparam("urls", expanding=True)), _IS_PENDING
)
_SET_OUTCOME = (
    sa.update(_SIGHTINGS)
    .where(_SIGHTINGS.c.url == sa.bindparam("updated_url"), _IS_PENDING)
    .values(
        state=sa.bindparam("new_state"),
        reason=sa.bindparam("new_reason"),
        image_id=sa.bindparam("new_image"),
        worker_id=None,
    )
)
_SET_OUTCOME_OF_CLAIMED = _SET_OUTCOME.where(_SIGHTINGS.c.worker_id > 0)


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


def claimed_urls(session: Session, urls: Sequence[str]) -> dict[str, bool]:
    """Return the URLs with pending sightings, and whether any worker has claimed them."""
    states: dict[str, bool] = {}
    for batch in in_batches(urls):
        for url, worker in session.connection().execute(_SELECT_PENDING, {"urls": batch}):
            states[url] = states.get(url, False) or worker is not None
    return states


def has_sighting(session: Session, url: str) -> bool:
    """Return whether any post shows the image at a URL."""
    return session.scalar(sa.select(Sighting.id).where(Sighting.url == url).limit(1)) is not None


def is_stored(session: Session, sha256: str) -> bool:
    """Return whether an image with these bytes is stored."""
    query = sa.select(ImageRow.id).filter_by(sha256=sha256, state="stored")
    return session.scalar(query) is not None


def save_outcomes(
    session: Session,
    outcomes: Sequence[tuple[str, Outcome]],
    index: FingerprintIndex,
    is_claimed: Mapping[str, bool] | None = None,
) -> list[str | RejectedImage]:
    """Save the outcomes of downloads, for every post that shows the images.

    Args:
        session: The session.
        outcomes: URL and outcome of each download.
        index: Fingerprints of the catalogue's images; the new ones are added.
        is_claimed: What `claimed_urls` returns for the URLs; None: it is called.

    Returns:
        For each download, NEW, EXACT (duplicate) or NEAR (duplicate), or the rejected image.
    """
    known = _select_images(session, [outcome.sha256 for _, outcome in outcomes if outcome.sha256])
    # Accepted images that are not stored yet: unknown ones, and ones that were rejected before.
    new_images = {
        outcome.sha256: outcome
        for _, outcome in outcomes
        if isinstance(outcome, AcceptedImage) and known.get(outcome.sha256, ("", ""))[1] != "stored"
    }
    ids = {sha256: image_id for sha256, (image_id, _) in known.items()}
    ids |= _save_images(
        session, [outcome for _, outcome in outcomes if outcome.sha256], ids, new_images
    )
    near_duplicates = _assign_clusters(session, new_images, ids, index)
    if is_claimed is None:
        is_claimed = claimed_urls(session, [url for url, _ in outcomes])
    rows = [(url, outcome, ids.get(outcome.sha256 or "")) for url, outcome in outcomes]
    _save_sightings(session, rows, is_claimed)
    results = []
    for _, outcome in outcomes:
        # If a batch holds the same bytes twice, only the first image is new.
        new = new_images.pop(outcome.sha256, None) if isinstance(outcome, AcceptedImage) else None
        kind = (NEAR if outcome.sha256 in near_duplicates else NEW) if new else EXACT
        results.append(outcome if isinstance(outcome, RejectedImage) else kind)
    return results


def _select_images(session: Session, digests: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Return id and state of the known images, by SHA-256 digest."""
    images: dict[str, tuple[int, str]] = {}
    for batch in in_batches(digests):
        rows = session.connection().execute(_SELECT_IMAGES, {"digests": batch})
        for sha256, image_id, state in rows:
            images[sha256] = (image_id, state)
    return images


def _save_images(
    session: Session,
    outcomes: Sequence[Outcome],
    known_ids: Mapping[str, int],
    new_images: Mapping[str, AcceptedImage],
) -> dict[str, int]:
    """Insert rows for unknown images; update the rows of images that were rejected before.

    Args:
        session: The session.
        outcomes: Outcomes with a digest.
        known_ids: Digest -> id of the images that have a row.
        new_images: Digest -> accepted image that is not stored yet.

    Returns:
        Digest -> id of the inserted rows.
    """
    for image in new_images.values():
        if image.sha256 in known_ids:
            update = _UPDATE_IMAGE.values(_accepted_values(image))
            session.connection().execute(update, {"updated_id": known_ids[image.sha256]})
    rows = {
        str(outcome.sha256): _accepted_values(outcome)
        if isinstance(outcome, AcceptedImage)
        else _rejected_values(outcome)
        for outcome in outcomes
        if outcome.sha256 not in known_ids
    }
    if not rows:
        return {}
    inserted = session.connection().execute(_INSERT_IMAGES, list(rows.values()))
    return {sha256: image_id for sha256, image_id in inserted}  # noqa: C416


def _accepted_values(image: AcceptedImage) -> dict[str, Any]:
    names = ("sha256", "phash", "format", "bytes", "width", "height", "store_key")
    values = {name: getattr(image, name) for name in names}
    return {**values, "state": "stored", "reason": None, "fetched": now()}


def _rejected_values(image: RejectedImage) -> dict[str, Any]:
    empty = dict.fromkeys(("phash", "format", "width", "height", "store_key"))
    values = {"sha256": image.sha256, "bytes": image.bytes, "reason": image.reason}
    return {**empty, **values, "state": "rejected", "fetched": now()}


def _assign_clusters(
    session: Session,
    new_images: Mapping[str, AcceptedImage],
    ids: Mapping[str, int],
    index: FingerprintIndex,
) -> set[str]:
    """Put each new image into the cluster of its near duplicate, or into a new cluster.

    Args:
        session: The session.
        new_images: Digest -> new image.
        ids: Digest -> id of the image.
        index: Fingerprints of the catalogue's images.

    Returns:
        The digests of the images that are near duplicates.
    """
    fingerprints = {ids[sha256]: image.fingerprint for sha256, image in new_images.items()}
    matches = index.find(session, fingerprints)
    save_new(session, fingerprints, matches)
    originals = {
        image_id: duplicate_of(image_matches) for image_id, image_matches in matches.items()
    }
    clusters = _select_clusters(
        session, [original for original in originals.values() if original is not None]
    )
    unique_ids = [image_id for image_id, original in originals.items() if original is None]
    clusters |= dict(zip(unique_ids, _insert_clusters(session, len(unique_ids)), strict=True))
    for image_id, original in originals.items():
        if original is not None:
            clusters[image_id] = clusters[original]
    if originals:
        rows = [
            {"updated_id": image_id, "new_cluster": clusters[image_id]} for image_id in originals
        ]
        session.connection().execute(_SET_CLUSTER, rows)
    return {sha256 for sha256 in new_images if originals[ids[sha256]] is not None}


def _select_clusters(session: Session, images: Sequence[int]) -> dict[int, int]:
    """Return the cluster of each image that has one."""
    clusters: dict[int, int] = {}
    for batch in in_batches(images):
        rows = session.connection().execute(_SELECT_CLUSTERS, {"images": batch})
        clusters |= {image_id: cluster for image_id, cluster in rows}  # noqa: C416
    return clusters


def _insert_clusters(session: Session, count: int) -> Sequence[int]:
    """Create empty clusters and return their ids."""
    if not count:
        return []
    rows = [{"made": now()}] * count
    return session.connection().execute(_INSERT_CLUSTERS, rows).scalars().all()


def _save_sightings(
    session: Session,
    outcomes: Sequence[tuple[str, Outcome, int | None]],
    is_claimed: Mapping[str, bool],
) -> None:
    """Set the state of the images in the posts that show them.

    Args:
        session: The session.
        outcomes: URL, outcome and image id of each download.
        is_claimed: URL -> whether any worker has claimed it.
    """
    # Only claimed sightings are updated: posts saved since the claim may belong to another tag,
    # which has its own quota (see claims.py). If no sighting is claimed, this worker was presumed
    # dead and its claim released; then the outcome holds for all pending sightings of the URL.
    for of_claimed, statement in ((True, _SET_OUTCOME_OF_CLAIMED), (False, _SET_OUTCOME)):
        rows = [
            {
                "updated_url": url,
                "new_state": "stored" if isinstance(outcome, AcceptedImage) else "rejected",
                "new_reason": None if isinstance(outcome, AcceptedImage) else outcome.reason,
                "new_image": image_id,
            }
            for url, outcome, image_id in outcomes
            if is_claimed.get(url, False) is of_claimed
        ]
        if rows:
            session.connection().execute(statement, rows)
