"""`catalogue verify`: check the database, and that every stored file exists and is unchanged."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import sqlalchemy as sa
from sqlalchemy.orm import Session
from tqdm import tqdm

from dataset.catalogue import workers
from dataset.catalogue.models import (
    Base,
    FingerprintRow,
    ImageRow,
    NearDuplicateRow,
    Sighting,
    TakedownRow,
)
from dataset.catalogue.queries import QUERY_ROWS, in_batches
from dataset.catalogue.session import Sessions
from dataset.duplicates.hashing import COLOUR_PIXELS, THUMBNAIL_PIXELS, VIEW_COUNT
from dataset.errors import Failure, first_line, replace_control_characters
from dataset.images.io import sha256_of
from dataset.images.store import ImageStore

# Lines about a damaged database.
MAX_DAMAGE = 20
# Sizes of hashes.
BLOB_BYTES = {
    f"{FingerprintRow.__tablename__}.views": VIEW_COUNT * 8,
    f"{FingerprintRow.__tablename__}.pixels": THUMBNAIL_PIXELS**2 + 2 * COLOUR_PIXELS**2,
    f"{TakedownRow.__tablename__}.view_hash": 8,
}
# Reason of an image whose file is missing or damaged; a crawl downloads it again.
LOST = "its file was lost"


@dataclass
class VerifyResult:
    """Result of a verification.

    Attributes:
        damaged: What is wrong with the database. If anything is, no file was checked.
        checked: How many files were read.
        missing: Keys of images without a file.
        changed: Keys of files with another SHA-256.
        orphaned: Keys of files that belong to no stored image.
    """

    damaged: list[str] = field(default_factory=list)
    checked: int = 0
    missing: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    orphaned: list[str] = field(default_factory=list)

    @property
    def is_intact(self) -> bool:
        """Whether nothing is damaged, missing, changed or orphaned."""
        return not (self.damaged or self.missing or self.changed or self.orphaned)


def verify(sessions: Sessions, store: ImageStore, repair: bool = False) -> VerifyResult:
    """Verify the database, and the SHA-256 of every stored file.

    Args:
        sessions: The catalogue.
        store: The image store.
        repair: Make images of missing and changed files pending again, and remove changed and
            orphaned files, unless the database is damaged.

    Raises:
        Failure: A crawl is running, whose files would be taken for orphans, or the store cannot be
            read.
    """
    _check_no_crawl(sessions)
    with sessions() as session:
        result = VerifyResult(find_damage(session))
    if result.damaged:
        return result
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


def find_damage(session: Session) -> list[str]:
    """Return what is wrong with a database, a line each, at most MAX_DAMAGE."""
    return list(islice(_damage(session), MAX_DAMAGE))


def _damage(session: Session) -> Iterator[str]:
    if session.get_bind().dialect.name == "sqlite":
        for message in session.scalars(sa.text(f"PRAGMA integrity_check({MAX_DAMAGE})")):
            if message != "ok":
                yield replace_control_characters(message)
        for table, row, parent, _ in session.execute(sa.text("PRAGMA foreign_key_check")):
            yield f"row {row} of {table} refers to a missing row of {parent}"
    for table in Base.metadata.sorted_tables:
        yield from _damaged_rows(session, table)


def _damaged_rows(session: Session, table: sa.Table) -> Iterator[str]:
    """Yield the rows of a table with a value of another type: SQLite stores any."""
    columns = [(index, column) for index, column in enumerate(table.columns)]
    keys = [index for index, column in columns if column.primary_key]
    try:
        for row in session.execute(sa.select(table).execution_options(yield_per=QUERY_ROWS)):
            for index, column in columns:
                if not _fits(row[index], column):
                    key = ", ".join(str(row[index]) for index in keys)
                    yield f"row {key} of {table.name} has no valid {column.name}"
    except (ValueError, TypeError, Failure) as error:
        # A failure names the catalogue as well.
        reason = first_line(error.__cause__ or error)
        yield f"a row of {table.name} can't be read: {replace_control_characters(reason)}"


def _fits(value: object, column: sa.Column) -> bool:
    if value is None:
        return bool(column.nullable)
    size = BLOB_BYTES.get(f"{column.table.name}.{column.name}")
    if size is not None and (not isinstance(value, bytes) or len(value) != size):
        return False
    expected = column.type.python_type
    return isinstance(value, (float, int) if expected is float else expected)


def _check_no_crawl(sessions: Sessions) -> None:
    with sessions() as session:
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
