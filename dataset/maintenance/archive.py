"""`catalogue export`: write a catalogue and its images to a tar archive, and read one."""

import contextlib
import io
import lzma
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session
from tqdm import tqdm

from dataset.catalogue.models import HostBackoff, ImageRow, LabelConflict, Worker
from dataset.catalogue.session import Sessions, open_catalogue
from dataset.errors import BadInput, Failure, first_line, shorten_for_display
from dataset.images.store import ImageStore
from dataset.maintenance.verify import find_damage
from dataset.utils.files import atomic_path

CATALOGUE, IMAGES = "catalogue.sqlite", "images"
BATCH_ROWS = 1000
# An export is not compressed. If people compress it, an entry is at most this many times as large
# as the archive.
MAX_COMPRESSION = 100
# Photos of a crawl have at most 20 MB.
MAX_IMAGE_BYTES = 100_000_000
BLOCK_BYTES = 1 << 20
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

    The whole archive and all rows of its catalogue are checked first, so that an import of a
    damaged one does not stop half-way.

    Raises:
        BadInput: It is not an archive of `catalogue export`, or cannot be read.
        Failure: It is damaged, or was written by a newer version.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            tar = stack.enter_context(tarfile.open(file))
            copy = Path(folder) / CATALOGUE
            _extract_catalogue(tar, file, copy)
        except (tarfile.TarError, KeyError) as error:
            # tarfile lists the reason of each kind of compression on further lines.
            reason = first_line(error).rstrip(":")
            raise BadInput(f"{file}: {reason}; name an archive of `catalogue export`") from error
        except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
            raise BadInput(
                f"{file} can't be read: {first_line(error)}; name an archive of `catalogue export`"
            ) from error
        sessions = _open_archived(copy, file)
        stack.callback(sessions.kw["bind"].dispose)
        yield sessions, tar


def _extract_catalogue(tar: tarfile.TarFile, file: Path, target: Path) -> None:
    """Check the entries of an archive and extract its catalogue.

    Raises:
        KeyError: It has no catalogue.
        Failure: It is cut off, or an entry is too large.
    """
    limit = MAX_COMPRESSION * file.stat().st_size
    end = 0
    # Headers are read one by one: an entry that is too large is never unpacked.
    for member in tar:
        is_image = member.name.startswith(f"{IMAGES}/")
        if member.size > (min(limit, MAX_IMAGE_BYTES) if is_image else limit):
            raise Failure(
                f"{file}: its entry {shorten_for_display(member.name)} has {member.size:,} bytes,"
                " more than an archive of `catalogue export` of this size can have; export again"
            )
        end = member.offset_data + member.size
    if tar.fileobj is not None and end:
        tar.fileobj.seek(end - 1)
        if not tar.fileobj.read(1):
            raise Failure(f"{file} is cut off; copy it again, or export again")
        # The checksum of a compressed archive is at its end.
        while tar.fileobj.read(BLOCK_BYTES):
            pass
    member = tar.getmember(CATALOGUE)
    source = tar.extractfile(member)
    if source is None:
        raise KeyError(f"{CATALOGUE} is not a file")
    with target.open("wb") as out:
        shutil.copyfileobj(source, out, BLOCK_BYTES)


def _open_archived(copy: Path, file: Path) -> Sessions:
    """Open the catalogue of an archive.

    Raises:
        Failure: It is damaged, or was written by a newer version.
    """
    try:
        sessions = open_catalogue(str(copy), must_exist=True)
        with sessions() as session:
            damage = find_damage(session)
    except Failure as failure:
        reason = failure.message.replace(str(copy), CATALOGUE)
        raise Failure(f"{file}: {reason.partition('; name another')[0]}") from failure
    if damage:
        raise Failure(
            f"{file}: its catalogue is damaged ({damage[0]}), and nothing was imported; verify the"
            " catalogue that was exported, and export it again"
        )
    return sessions


def read_archived_image(tar: tarfile.TarFile, key: str) -> bytes | None:
    """Return the image of a key, None if the archive lacks it."""
    with contextlib.suppress(KeyError):
        member = tar.extractfile(f"{IMAGES}/{key}")
        return member.read() if member is not None else None
    return None
