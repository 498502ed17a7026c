"""`catalogue verify`: check that every stored file exists, is unchanged and belongs to an image."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.orm import Session
from tqdm import tqdm

from dataset.catalogue import workers
from dataset.catalogue.models import FingerprintRow, ImageRow, NearDuplicateRow, Sighting
from dataset.catalogue.queries import QUERY_ROWS, in_batches
from dataset.catalogue.session import Sessions
from dataset.errors import Failure
from dataset.images.io import sha256_of
from dataset.images.store import ImageStore

# Reason of an image whose file is missing or damaged; a crawl downloads it again.
LOST = "its file was lost"


@dataclass
class VerifyResult:
    """Result of a verification.

    Attributes:
        checked: How many files were read.
        missing: Keys of images without a file.
        changed: Keys of files with another SHA-256.
        orphaned: Keys of files that belong to no stored image.
    """

    checked: int = 0
    missing: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    orphaned: list[str] = field(default_factory=list)

    @property
    def is_intact(self) -> bool:
        """Whether no file is missing, changed or orphaned."""
        return not (self.missing or self.changed or self.orphaned)


def verify(sessions: Sessions, store: ImageStore, repair: bool = False) -> VerifyResult:
    """Verify the SHA-256 of every stored file.

    Args:
        sessions: The catalogue.
        store: The image store.
        repair: Make images of missing and changed files pending again, and remove changed and
            orphaned files.

    Raises:
        Failure: A crawl is running, whose files would be taken for orphans, or the store cannot be
            read.
    """
    _check_no_crawl(sessions)
    result = VerifyResult()
    try:
        with sessions() as session:
            for key, sha256 in _stored_images(session):
                _check(store, key, sha256, result)
            result.orphaned += _orphans(session, store)
    except OSError as error:
        raise Failure(f"the photos in {store} can't be read: {error}") from error
    if repair:
        _repair(sessions, store, result)
    return result


def _check_no_crawl(sessions: Sessions) -> None:
    with sessions.begin() as session:
        if workers.is_any_alive(session):
            raise Failure("a crawl is writing to this catalogue; verify it when that has finished")


def _stored_images(session: Session) -> Iterator[tuple[str, str]]:
    """Yield key and SHA-256 of each stored image."""
    stored = sa.select(ImageRow.store_key, ImageRow.sha256).where(ImageRow.state == "stored")
    total = session.scalar(
        sa.select(sa.func.count()).select_from(ImageRow).where(ImageRow.state == "stored")
    )
    rows = session.execute(stored.order_by(ImageRow.sha256).execution_options(yield_per=QUERY_ROWS))
    for key, sha256 in tqdm(rows, total=total, desc="verifying", unit=" files", disable=None):
        yield str(key), sha256


def _check(store: ImageStore, key: str, sha256: str, result: VerifyResult) -> None:
    result.checked += 1
    try:
        data = store.read(key)
    except (FileNotFoundError, NotADirectoryError):
        result.missing.append(key)
        return
    if sha256_of(data) != sha256:
        result.changed.append(key)


def _orphans(session: Session, store: ImageStore) -> Iterator[str]:
    """Yield the keys of files that belong to no stored image."""
    for keys in in_batches(store.keys()):
        query = sa.select(ImageRow.store_key).where(
            ImageRow.store_key.in_(keys), ImageRow.state == "stored"
        )
        known = set(session.scalars(query))
        yield from (key for key in keys if key not in known)


def _repair(sessions: Sessions, store: ImageStore, result: VerifyResult) -> None:
    for key in (*result.changed, *result.orphaned):
        store.remove(key)
    for keys in in_batches([*result.missing, *result.changed]):
        with sessions.begin() as session:
            _make_pending(session, keys)


def _make_pending(session: Session, keys: list[str]) -> None:
    """Reject images, so that no build selects them, and make their sightings pending."""
    images = list(session.scalars(sa.select(ImageRow.id).where(ImageRow.store_key.in_(keys))))
    either = sa.or_(NearDuplicateRow.one_id.in_(images), NearDuplicateRow.other_id.in_(images))
    for statement in (
        sa.delete(FingerprintRow).where(FingerprintRow.image_id.in_(images)),
        sa.delete(NearDuplicateRow).where(either),
        sa.update(ImageRow).where(ImageRow.id.in_(images)).values(state="rejected", reason=LOST),
        sa.update(Sighting)
        .where(Sighting.image_id.in_(images))
        .values(state="pending", reason=None, image_id=None),
    ):
        session.execute(statement.execution_options(synchronize_session=False))
