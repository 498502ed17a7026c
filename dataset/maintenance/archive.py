"""`catalogue export`: a catalogue with its images as one tar file, that `import` reads anywhere."""

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
AT_ONCE = 1000
# What only says who is at work now, is found anew, or says of which revision the file is.
PASSING = (
    Worker.__tablename__,
    HostBackoff.__tablename__,
    LabelConflict.__tablename__,
    "alembic_version",
)


@dataclass(frozen=True)
class ExportResult:
    """How many images went into the file, and keys of those that are missing."""

    images: int
    missing: list[str]


def export_catalogue(sessions: Sessions, store: ImageStore, file: Path) -> ExportResult:
    """Write the catalogue as an SQLite file, and its images, into the tar FILE.

    Raises:
        Failure: FILE can't be written, or the store can't be read.
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
        # Rows come in an order of their own, those that they point to perhaps later.
        session.execute(sa.text("PRAGMA defer_foreign_keys = ON"))
        for table in tables.sorted_tables:
            if table.name not in PASSING:
                _copy_table(source, session, table)
    target.kw["bind"].dispose()


def _copy_table(source: Session, target: Session, table: sa.Table) -> None:
    rows = source.execute(sa.select(table).execution_options(yield_per=AT_ONCE)).mappings()
    free = {"worker_id": None} if "worker_id" in table.c else {}
    for part in rows.partitions():
        target.execute(sa.insert(table), [{**row, **free} for row in part])


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
    """The catalogue in the exported FILE, and the file for its images.

    Raises:
        BadInput: FILE is none that `export_catalogue` wrote, or can't be read.
        Failure: the catalogue in it is damaged, or of a newer program.
    """
    try:
        with tarfile.open(file) as tar, tempfile.TemporaryDirectory() as folder:
            inside = tar.extractfile(CATALOGUE)
            if inside is None:
                raise KeyError(CATALOGUE)
            copy = Path(folder) / CATALOGUE
            with copy.open("wb") as out:
                while block := inside.read(1 << 20):
                    out.write(block)
            sessions = open_catalogue(str(copy), must_exist=True)
            yield sessions, tar
            sessions.kw["bind"].dispose()
    except (OSError, KeyError, tarfile.TarError) as error:
        raise BadInput(
            f"{file}: {first_line(error)}; name a file that `catalogue export` wrote"
        ) from error


def read_archived_image(tar: tarfile.TarFile, key: str) -> bytes | None:
    """The image of KEY in TAR, None where it is missing."""
    with contextlib.suppress(KeyError):
        inside = tar.extractfile(f"{IMAGES}/{key}")
        return inside.read() if inside is not None else None
    return None
