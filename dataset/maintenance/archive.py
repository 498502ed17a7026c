"""`catalogue export` and `catalogue import`: a catalogue and its images in a tar archive.

An export writes an archive; an import merges one into another catalogue.
"""

import contextlib
import io
import lzma
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from tqdm import tqdm

from dataset.catalogue.models import (
    CropDecision,
    CropRow,
    FingerprintRow,
    Hashtag,
    HostBackoff,
    ImageRow,
    KeptSplit,
    LabelConflict,
    LabelDecision,
    NearDuplicateRow,
    PairDecision,
    PoseRow,
    PostHashtag,
    PostRow,
    RequestedHashtag,
    Search,
    Separation,
    Sighting,
    TagVerdictRow,
    TakedownRow,
    Worker,
)
from dataset.catalogue.session import Sessions, open_catalogue
from dataset.duplicates import pair_decisions
from dataset.duplicates.hashing import unpack
from dataset.errors import BadInput, Failure, first_line, shorten_for_display
from dataset.images.io import sha256_of
from dataset.images.store import ImageStore
from dataset.maintenance.takedown import (
    IMAGE,
    REASON,
    TakedownList,
    delete_rows,
    find_named,
    record_takedown,
    with_copies,
)
from dataset.maintenance.verify import find_damage
from dataset.utils.files import atomic_path

CATALOGUE, IMAGES = "catalogue.sqlite", "images"
EXPORT_BATCH_ROWS = 1000
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
    rows = source.execute(
        sa.select(table).execution_options(yield_per=EXPORT_BATCH_ROWS)
    ).mappings()
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


def values_of(row: Any, *excluded: str) -> dict[str, Any]:
    """Return the values of a row by column, except those of some columns."""
    return {c.name: getattr(row, c.name) for c in row.__table__.c if c.name not in excluded}


def merge_pairs(session: Session, source: Session) -> None:
    """Merge near duplicates, separations and pair decisions of images that both catalogues have."""
    targets = {
        source_id: session.scalar(sa.select(ImageRow.id).filter_by(sha256=sha256))
        for source_id, sha256 in source.execute(sa.select(ImageRow.id, ImageRow.sha256))
    }
    image_ids = {key: value for key, value in targets.items() if value is not None}
    for row in source.scalars(sa.select(NearDuplicateRow)):
        if pair := _pair(row, image_ids):
            session.merge(
                NearDuplicateRow(
                    **values_of(row, "one_id", "other_id"), one_id=pair[0], other_id=pair[1]
                )
            )
    _merge_separations(session, source, image_ids)
    for decision in source.scalars(sa.select(PairDecision).order_by(PairDecision.id)):
        if pair := _pair(decision, image_ids):
            pair_decisions.import_decision(session, decision, pair, image_ids)


def _merge_separations(session: Session, source: Session, image_ids: Mapping[int, int]) -> None:
    """Separate the images of clusters that were undone in the source, under new cluster ids."""
    separated: dict[int, list[Separation]] = {}
    for row in source.scalars(sa.select(Separation).order_by(Separation.image_id)):
        if row.image_id in image_ids:
            separated.setdefault(row.cluster_id, []).append(row)
    known = pair_decisions.separated_images(session) if separated else {}
    for rows in separated.values():
        images = {image_ids[row.image_id] for row in rows}
        separations = [known.get(image, frozenset()) for image in images]
        if len(images) < 2 or frozenset.intersection(*separations):
            continue
        number = pair_decisions.create_cluster(session)
        for row in rows:
            values = values_of(row) | {"image_id": image_ids[row.image_id], "cluster_id": number}
            session.add(Separation(**values))
        session.flush()


def _pair(row: Any, image_ids: Mapping[int, int]) -> tuple[int, int] | None:
    """Return the images of a pair by their ids in this catalogue, None if one is missing."""
    first, second = image_ids.get(row.one_id), image_ids.get(row.other_id)
    if first is None or second is None or first == second:
        return None
    return min(first, second), max(first, second)


IMPORT_BATCH_ROWS = 200
# Recorded as reviewer of takedowns that an import derives from a taken-down URL or author.
IMPORTER = "catalogue import"
# Tables with an image per row that are copied as they are.
COPIED_TABLES = (
    FingerprintRow,
    PoseRow,
    CropRow,
    KeptSplit,
    LabelDecision,
    CropDecision,
    TagVerdictRow,
)


@dataclass
class ImportResult:
    """Result of an import.

    Attributes:
        images: New images.
        posts: New posts.
        searches: New searches.
        lost: Images whose file was missing or damaged in the archive.
        taken_down: Images and posts that were taken down in either catalogue.
    """

    images: int = 0
    posts: int = 0
    searches: int = 0
    lost: int = 0
    taken_down: int = 0


def import_archive(sessions: Sessions, store: ImageStore, file: Path) -> ImportResult:
    """Merge an archive of `catalogue export` into a catalogue.

    Args:
        sessions: The catalogue.
        store: The image store.
        file: The archive.

    Raises:
        BadInput: The file is not an archive, or cannot be read.
        Failure: The archive is damaged or of a newer version, or the store cannot be written.
    """
    with open_archive(file) as archive:
        return merge_archive(sessions, store, archive)


def merge_archive(
    sessions: Sessions, store: ImageStore, archive: tuple[Sessions, tarfile.TarFile]
) -> ImportResult:
    """Merge an open archive, see `open_archive`, into a catalogue.

    Raises:
        Failure: The store cannot be written.
    """
    result, (archived, tar) = ImportResult(), archive
    with store.in_use(), archived() as source:
        with sessions.begin() as session:
            result.taken_down = _apply_takedowns(session, store, source)
            result.searches = _copy_new(session, source, Search, ("site", "hashtag"))
            _copy_new(
                session, source, RequestedHashtag, ("site", "account", "hashtag", "requested")
            )
        for images in _batches(source, ImageRow, "importing images"):
            with sessions.begin() as session:
                _merge_images(session, store, source, tar, images, result)
                store.sync()
        for posts in _batches(source, PostRow, "importing posts"):
            with sessions.begin() as session:
                _merge_posts(session, source, posts, result)
        with sessions.begin() as session:
            merge_pairs(session, source)
    return result


def _batches(source: Session, table: Any, name: str) -> Iterator[Sequence[Any]]:
    last, total = 0, source.scalar(sa.select(sa.func.count()).select_from(table)) or 0
    with tqdm(total=total, desc=name, unit="", disable=None) as bar:
        while rows := source.scalars(
            sa.select(table).where(table.id > last).order_by(table.id).limit(IMPORT_BATCH_ROWS)
        ).all():
            last = rows[-1].id
            yield rows
            bar.update(len(rows))
            source.expunge_all()


def _copy_new(session: Session, source: Session, table: Any, names: tuple[str, ...]) -> int:
    """Copy rows whose values of the named columns are new; returns how many."""
    count = 0
    for row in source.scalars(sa.select(table)):
        known = {name: getattr(row, name) for name in names}
        if session.scalar(sa.select(table.id).filter_by(**known)) is None:
            session.add(table(**values_of(row, "id", "worker_id")))
            count += 1
    session.flush()
    return count


def _apply_takedowns(session: Session, store: ImageStore, source: Session) -> int:
    """Merge the takedowns of both catalogues and delete what they name in this one.

    Images of the source that belong to a URL or author that was taken down are recorded too.

    Returns:
        How many images were deleted.
    """
    _copy_new(session, source, TakedownRow, ("kind", "digest"))
    takedowns = TakedownList()
    takedowns.catch_up(session)
    _, shown = find_named(source, takedowns)
    for image in with_copies(source, shown):
        print_row = source.get(FingerprintRow, image.id)
        view_hash = print_row.views[:8] if print_row else None
        record_takedown(session, IMAGE, image.sha256, view_hash, IMPORTER)
    takedowns.catch_up(session)
    posts, images = find_named(session, takedowns)
    images += [
        number
        for number, sha256 in session.execute(sa.select(ImageRow.id, ImageRow.sha256))
        if takedowns.has_file(sha256)
    ]
    return delete_rows(session, store, posts, images, IMPORTER)


def _merge_images(
    session: Session,
    store: ImageStore,
    source: Session,
    tar: tarfile.TarFile,
    rows: Sequence[ImageRow],
    result: ImportResult,
) -> None:
    takedowns = TakedownList()
    takedowns.catch_up(session)
    for row in rows:
        existing = session.scalar(sa.select(ImageRow).filter_by(sha256=row.sha256))
        if existing is None and _is_taken_down(source, row, takedowns):
            result.taken_down += 1
        elif existing is None or (existing.state != "stored" and row.state == "stored"):
            _merge_image(session, store, source, tar, row, existing, result)


def _is_taken_down(source: Session, row: ImageRow, takedowns: TakedownList) -> bool:
    print_row = source.get(FingerprintRow, row.id)
    if print_row is None:
        return takedowns.has_file(row.sha256)
    return takedowns.has_image(row.sha256, unpack(print_row.views, print_row.pixels))


def _merge_image(
    session: Session,
    store: ImageStore,
    source: Session,
    tar: tarfile.TarFile,
    row: ImageRow,
    existing: ImageRow | None,
    result: ImportResult,
) -> None:
    if row.state == "stored":
        key = str(row.store_key)
        data = read_archived_image(tar, key)
        if data is None or sha256_of(data) != row.sha256 or not _is_key(key, row.sha256):
            result.lost += 1
            return
        store.put(data, key)
        result.images += 1
    image = existing or ImageRow(sha256=row.sha256)
    for name, value in values_of(row, "id", "cluster_id").items():
        setattr(image, name, value)
    image.cluster_id = _cluster(session, source, row)
    session.add(image)
    session.flush()
    for table in COPIED_TABLES:
        _copy_of_image(session, source, table, row.id, image.id)


def _is_key(key: str, sha256: str) -> bool:
    # A key of an archive must not be another path.
    extension = key.rpartition(".")[2]
    return extension.isalnum() and key == ImageStore.key(sha256, extension)


def _cluster(session: Session, source: Session, row: ImageRow) -> int | None:
    """Return the cluster of the images that share a cluster with an archived one, or a new one."""
    if row.cluster_id is None:
        return None
    members = source.scalars(sa.select(ImageRow.sha256).filter_by(cluster_id=row.cluster_id)).all()
    known = session.scalar(
        sa.select(sa.func.min(ImageRow.cluster_id)).where(ImageRow.sha256.in_(members))
    )
    if known is None:
        known = pair_decisions.create_cluster(session)
    return known


def _copy_of_image(
    session: Session, source: Session, table: Any, source_id: int, target_id: int
) -> None:
    for row in source.scalars(sa.select(table).filter_by(image_id=source_id)):
        values = values_of(row, "id") | {"image_id": target_id}
        if "compared" in values:
            values["compared"] = False
        keys = {n: v for n, v in values.items() if table.__table__.c[n].primary_key}
        known = sa.select(table).filter_by(**(keys or values))
        if session.scalar(known) is None:
            session.execute(sa.insert(table), [values])


def _merge_posts(
    session: Session, source: Session, rows: Sequence[PostRow], result: ImportResult
) -> None:
    takedowns = TakedownList()
    takedowns.catch_up(session)
    for row in rows:
        if takedowns.has_post(row.site, row.site_id, row.url, row.author):
            result.taken_down += 1
            continue
        post = session.scalar(sa.select(PostRow).filter_by(site=row.site, site_id=row.site_id))
        if post is None:
            post = PostRow(**values_of(row, "id"))
            session.add(post)
            session.flush()
            result.posts += 1
        _merge_hashtags(session, source, row.id, post.id)
        _merge_sightings(session, source, row, post.id, takedowns)


def _merge_hashtags(session: Session, source: Session, source_id: int, target_id: int) -> None:
    rows = source.execute(
        sa.select(Hashtag.text, PostHashtag.source)
        .join(PostHashtag, PostHashtag.hashtag_id == Hashtag.id)
        .where(PostHashtag.post_id == source_id)
    )
    for text, kind in rows:
        tag = session.scalar(sa.select(Hashtag).filter_by(text=text))
        if tag is None:
            tag = Hashtag(text=text)
            session.add(tag)
            session.flush()
        session.merge(PostHashtag(post_id=target_id, hashtag_id=tag.id, source=kind))


def _merge_sightings(
    session: Session, source: Session, post: PostRow, target_id: int, takedowns: TakedownList
) -> None:
    known_sightings = {
        s.url: s for s in session.scalars(sa.select(Sighting).filter_by(post_id=target_id))
    }
    rows = source.execute(
        sa.select(Sighting, ImageRow.sha256)
        .outerjoin(ImageRow, ImageRow.id == Sighting.image_id)
        .where(Sighting.post_id == post.id)
        .order_by(Sighting.position)
    )
    for row, sha256 in rows:
        if takedowns.has_photo(post.site, row.key, [row.url, *row.fallbacks.split("\n")]):
            continue
        image = session.scalar(sa.select(ImageRow.id).filter_by(sha256=sha256)) if sha256 else None
        # An image that was lost in the archive stays pending.
        state = "pending" if row.state == "stored" and image is None else row.state
        reason = row.reason
        if sha256 and takedowns.has_file(sha256):
            state, reason = "rejected", REASON
        known = known_sightings.get(row.url)
        if known is None:
            values = values_of(row, "id", "worker_id") | {
                "post_id": target_id,
                "position": len(known_sightings),
            }
            known = known_sightings[row.url] = Sighting(**values)
            session.add(known)
        elif known.state == "stored" or state == "pending":
            continue
        known.state, known.reason, known.image_id = state, reason, image
    session.flush()
