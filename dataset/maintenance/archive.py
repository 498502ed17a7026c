"""`catalogue export`: write a catalogue and its images to a tar archive, and read one."""

import contextlib
import io
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session
from tqdm import tqdm

from dataset.catalogue.models import HostBackoff, ImageRow, LabelConflict, Worker
from dataset.catalogue.session import Sessions, open_catalogue
from dataset.errors import BadInput, Failure, first_line
from dataset.images.store import ImageStore
from dataset.utils.files import atomic_path

CATALOGUE, IMAGES = "catalogue.sqlite", "images"
BATCH_ROWS = 1000
# Tables of running crawls, derived rows, and the revision, which the copy has already.
SKIPPED_TABLES = (
    Worker.__tablename__,
    HostBackoff.__tablename__,
    LabelConflict.__tablename__,
    "alembic_version",
)


@dataclass(frozen=True)
class ExportResult:
    """Result of an export.

    Attributes:
        images: How many images were written.
        missing: Keys of images without a file.
    """

    images: int
    missing: list[str]


def export_catalogue(sessions: Sessions, store: ImageStore, file: Path) -> ExportResult:
    """Write a catalogue, as an SQLite file, and its images to a tar archive.

    Args:
        sessions: The catalogue.
        store: The image store.
        file: The archive.

    Raises:
        Failure: The archive cannot be written, or the store cannot be read.
    """
    try:
        with (
            atomic_path(file) as temporary,
            tarfile.open(temporary, "w") as tar,
            tempfile.TemporaryDirectory() as folder,
        ):
            copy = Path(folder) / CATALOGUE
            _copy_rows(sessions, copy)
            tar.add(copy, CATALOGUE)
            return _add_images(sessions, store, tar)
    except OSError as error:
        raise Failure(f"{file} can't be written: {first_line(error)}") from error


def _copy_rows(sessions: Sessions, path: Path) -> None:
    target = open_catalogue(str(path))
    tables = sa.MetaData()
    tables.reflect(target.kw["bind"])
    with sessions() as source, target.begin() as session:
        # A row may be copied before the row that it refers to.
        session.execute(sa.text("PRAGMA defer_foreign_keys = ON"))
        for table in tables.sorted_tables:
            if table.name not in SKIPPED_TABLES:
                _copy_table(source, session, table)
    target.kw["bind"].dispose()


def _copy_table(source: Session, target: Session, table: sa.Table) -> None:
    rows = source.execute(sa.select(table).execution_options(yield_per=BATCH_ROWS)).mappings()
    unclaimed = {"worker_id": None} if "worker_id" in table.c else {}
    for batch in rows.partitions():
        target.execute(sa.insert(table), [{**row, **unclaimed} for row in batch])


def _add_images(sessions: Sessions, store: ImageStore, tar: tarfile.TarFile) -> ExportResult:
    count, missing = 0, []
    with sessions() as session:
        query = sa.select(ImageRow.store_key).where(ImageRow.state == "stored")
        keys = session.scalars(query.order_by(ImageRow.sha256)).all()
    for key in tqdm(keys, desc="exporting", unit=" images", disable=None):
        try:
            data = store.read(str(key))
        except FileNotFoundError:
            missing.append(str(key))
            continue
        entry = tarfile.TarInfo(f"{IMAGES}/{key}")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
        count += 1
    return ExportResult(count, missing)


@contextlib.contextmanager
def open_archive(file: Path) -> Iterator[tuple[Sessions, tarfile.TarFile]]:
    """Open an archive: yield its catalogue, migrated if it is older, and the tar file.

    Raises:
        BadInput: It is not an archive of `catalogue export`, or cannot be read.
        Failure: Its catalogue is damaged, or was written by a newer version.
    """
    try:
        with tarfile.open(file) as tar, tempfile.TemporaryDirectory() as folder:
            member = tar.extractfile(CATALOGUE)
            if member is None:
                raise KeyError(CATALOGUE)
            copy = Path(folder) / CATALOGUE
            with copy.open("wb") as out:
                while block := member.read(1 << 20):
                    out.write(block)
            sessions = open_catalogue(str(copy), must_exist=True)
            yield sessions, tar
            sessions.kw["bind"].dispose()
    except (OSError, KeyError, tarfile.TarError) as error:
        raise BadInput(
            f"{file}: {first_line(error)}; name an archive of `catalogue export`"
        ) from error


def read_archived_image(tar: tarfile.TarFile, key: str) -> bytes | None:
    """Return the image of a key, None if the archive lacks it."""
    with contextlib.suppress(KeyError):
        member = tar.extractfile(f"{IMAGES}/{key}")
        return member.read() if member is not None else None
    return None
