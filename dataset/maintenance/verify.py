"""`catalogue verify`: is every stored file there, unchanged, and known?"""

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

# Why an image is no longer there; a crawl fetches it again.
LOST = "its file was lost"


@dataclass
class VerifyResult:
    """Keys of files by what is wrong with them; `checked`: how many were read."""

    checked: int = 0
    missing: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    orphaned: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not (self.missing or self.changed or self.orphaned)


def verify(sessions: Sessions, store: ImageStore, repair: bool = False) -> VerifyResult:
    """Hash every stored file anew; REPAIR wants lost photos again and removes strange files.

    Raises:
        Failure: a crawl is at work, whose files would be taken for orphans, or the store can't be
            read.
    """
    _refuse_crawl(sessions)
    found = VerifyResult()
    try:
        with sessions() as session:
            for key, sha256 in _stored(session):
                _check(store, key, sha256, found)
            found.orphaned += _orphans(session, store)
    except OSError as error:
        raise Failure(f"the photos in {store} can't be read: {error}") from error
    if repair:
        _repair(sessions, store, found)
    return found


def _refuse_crawl(sessions: Sessions) -> None:
    with sessions.begin() as session:
        if workers.is_any_alive(session):
            raise Failure("a crawl is at work in this catalogue; verify it when that has ended")


def _stored(session: Session) -> Iterator[tuple[str, str]]:
    """Key and SHA-256 of each stored image."""
    stored = sa.select(ImageRow.store_key, ImageRow.sha256).where(ImageRow.state == "stored")
    total = session.scalar(
        sa.select(sa.func.count()).select_from(ImageRow).where(ImageRow.state == "stored")
    )
    rows = session.execute(stored.order_by(ImageRow.sha256).execution_options(yield_per=QUERY_ROWS))
    for key, sha256 in tqdm(rows, total=total, desc="verifying", unit=" files", disable=None):
        yield str(key), sha256


def _check(store: ImageStore, key: str, sha256: str, found: VerifyResult) -> None:
    found.checked += 1
    try:
        data = store.read(key)
    except (FileNotFoundError, NotADirectoryError):
        found.missing.append(key)
        return
    if sha256_of(data) != sha256:
        found.changed.append(key)


def _orphans(session: Session, store: ImageStore) -> Iterator[str]:
    """Keys of files that no stored image has."""
    for part in in_batches(store.keys()):
        query = sa.select(ImageRow.store_key).where(
            ImageRow.store_key.in_(part), ImageRow.state == "stored"
        )
        known = set(session.scalars(query))
        yield from (key for key in part if key not in known)


def _repair(sessions: Sessions, store: ImageStore, found: VerifyResult) -> None:
    for key in (*found.changed, *found.orphaned):
        store.remove(key)
    lost = [*found.missing, *found.changed]
    for part in in_batches(lost):
        with sessions.begin() as session:
            _want_again(session, part)


def _want_again(session: Session, keys: list[str]) -> None:
    """The images of KEYS are to be fetched again, and are in no build until then."""
    images = list(session.scalars(sa.select(ImageRow.id).where(ImageRow.store_key.in_(keys))))
    either = sa.or_(NearDuplicateRow.one_id.in_(images), NearDuplicateRow.other_id.in_(images))
    for change in (
        sa.delete(FingerprintRow).where(FingerprintRow.image_id.in_(images)),
        sa.delete(NearDuplicateRow).where(either),
        sa.update(ImageRow).where(ImageRow.id.in_(images)).values(state="rejected", reason=LOST),
        sa.update(Sighting)
        .where(Sighting.image_id.in_(images))
        .values(state="pending", reason=None, image_id=None),
    ):
        session.execute(change.execution_options(synchronize_session=False))
