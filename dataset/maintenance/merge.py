"""What `catalogue import` takes over of two images each: similarity, and people's words on it."""

import tarfile
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
    ImageRow,
    KeptSplit,
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
)
from dataset.catalogue.session import Sessions
from dataset.duplicates import pair_decisions
from dataset.duplicates.hashing import unpack
from dataset.images.io import sha256_of
from dataset.images.store import ImageStore
from dataset.maintenance.archive import open_archive, read_archived_image
from dataset.maintenance.takedown import (
    AUTHOR,
    IMAGE,
    REASON,
    URL,
    TakedownList,
    delete_rows,
    find_named,
    record_takedown,
    with_copies,
)


def values_of(row: Any, *without: str) -> dict[str, Any]:
    """The columns of ROW but those WITHOUT."""
    return {c.name: getattr(row, c.name) for c in row.__table__.c if c.name not in without}


def merge_pairs(session: Session, source: Session) -> None:
    """Take over which images of SOURCE that are here resemble each other, and people's words."""
    numbers = {
        theirs: session.scalar(sa.select(ImageRow.id).filter_by(sha256=sha256))
        for theirs, sha256 in source.execute(sa.select(ImageRow.id, ImageRow.sha256))
    }
    here = {theirs: mine for theirs, mine in numbers.items() if mine is not None}
    for row in source.scalars(sa.select(NearDuplicateRow)):
        if pair := _pair(row, here):
            session.merge(
                NearDuplicateRow(
                    **values_of(row, "one_id", "other_id"), one_id=pair[0], other_id=pair[1]
                )
            )
    _merge_separations(session, source, here)
    for word in source.scalars(sa.select(PairDecision).order_by(PairDecision.id)):
        if pair := _pair(word, here):
            pair_decisions.import_decision(session, word, pair, here)


def _merge_separations(session: Session, source: Session, here: Mapping[int, int]) -> None:
    """Images that a person took apart there stay apart here, under a number of ours."""
    apart: dict[int, list[Separation]] = {}
    for row in source.scalars(sa.select(Separation).order_by(Separation.image_id)):
        if row.image_id in here:
            apart.setdefault(row.cluster_id, []).append(row)
    known = pair_decisions.separated_images(session) if apart else {}
    for rows in apart.values():
        images = {here[row.image_id] for row in rows}
        ours = [known.get(image, frozenset()) for image in images]
        if len(images) < 2 or frozenset.intersection(*ours):
            continue
        number = pair_decisions.create_cluster(session)
        for row in rows:
            values = values_of(row) | {"image_id": here[row.image_id], "cluster_id": number}
            session.add(Separation(**values))
        session.flush()


def _pair(row: Any, here: Mapping[int, int]) -> tuple[int, int] | None:
    """ROW's images by our numbers; None where they are not two here."""
    one, other = here.get(row.one_id), here.get(row.other_id)
    if one is None or other is None or one == other:
        return None
    return min(one, other), max(one, other)


BATCH = 200
# On whose word images are taken down that an import shows under what was.
BROUGHT = "catalogue import"
# Rows of one image each, known by their other columns, which are copied as they are.
OF_IMAGES = (
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
    """What came: new images, posts and searches; `lost`: images whose file was not in the archive
    or not what it should be; `forgotten`: images and posts that were taken down here or there.
    """

    images: int = 0
    posts: int = 0
    searches: int = 0
    lost: int = 0
    forgotten: int = 0


def import_archive(sessions: Sessions, store: ImageStore, file: Path) -> ImportResult:
    """Merge what `export` wrote into FILE.

    Raises:
        BadInput, Failure: see `transfer.opened`; or the store can't be written.
    """
    done = ImportResult()
    with open_archive(file) as (theirs, tar), store.in_use(), theirs() as source:
        with sessions.begin() as session:
            done.forgotten = _forget(session, store, source)
            done.searches = _copy_new(session, source, Search, ("site", "hashtag"))
            _copy_new(
                session, source, RequestedHashtag, ("site", "account", "hashtag", "requested")
            )
        for images in _parts(source, ImageRow, "importing images"):
            with sessions.begin() as session:
                _merge_images(session, store, source, tar, images, done)
                store.sync()
        for posts in _parts(source, PostRow, "importing posts"):
            with sessions.begin() as session:
                _merge_posts(session, source, posts, done)
        with sessions.begin() as session:
            merge_pairs(session, source)
    return done


def _parts(source: Session, table: Any, name: str) -> Iterator[Sequence[Any]]:
    last, total = 0, source.scalar(sa.select(sa.func.count()).select_from(table)) or 0
    with tqdm(total=total, desc=name, unit="", disable=None) as bar:
        while rows := source.scalars(
            sa.select(table).where(table.id > last).order_by(table.id).limit(BATCH)
        ).all():
            last = rows[-1].id
            yield rows
            bar.update(len(rows))
            source.expunge_all()


def _copy_new(session: Session, source: Session, table: Any, names: tuple[str, ...]) -> int:
    """Take rows of TABLE that are unlike all of ours in NAMES; returns how many."""
    count = 0
    for row in source.scalars(sa.select(table)):
        known = {name: getattr(row, name) for name in names}
        if session.scalar(sa.select(table.id).filter_by(**known)) is None:
            session.add(table(**values_of(row, "id", "worker_id")))
            count += 1
    session.flush()
    return count


def _forget(session: Session, store: ImageStore, source: Session) -> int:
    """What was taken down there is taken down here, and what is shown there and was taken down
    here by its address or author is remembered by its bytes; returns how many images go.
    """
    _copy_new(session, source, TakedownRow, ("kind", "digest"))
    forgotten = TakedownList()
    forgotten.catch_up(session)
    _, shown = find_named(source, forgotten)
    for image in with_copies(source, shown):
        looks = source.get(FingerprintRow, image.id)
        record_takedown(session, IMAGE, image.sha256, looks.views[:8] if looks else None, BROUGHT)
    forgotten.catch_up(session)
    posts, images = find_named(session, forgotten)
    images += [
        number
        for number, sha256 in session.execute(sa.select(ImageRow.id, ImageRow.sha256))
        if forgotten.has_bytes(sha256)
    ]
    return delete_rows(session, store, posts, images, BROUGHT)


def _merge_images(
    session: Session,
    store: ImageStore,
    source: Session,
    tar: tarfile.TarFile,
    rows: Sequence[ImageRow],
    done: ImportResult,
) -> None:
    forgotten = TakedownList()
    forgotten.catch_up(session)
    for row in rows:
        mine = session.scalar(sa.select(ImageRow).filter_by(sha256=row.sha256))
        if mine is None and _is_forgotten(source, row, forgotten):
            done.forgotten += 1
        elif mine is None or (mine.state != "stored" and row.state == "stored"):
            _take_image(session, store, source, tar, row, mine, done)


def _is_forgotten(source: Session, row: ImageRow, forgotten: TakedownList) -> bool:
    looks = source.get(FingerprintRow, row.id)
    if looks is None:
        return forgotten.has_bytes(row.sha256)
    return forgotten.is_image(row.sha256, unpack(looks.views, looks.pixels))


def _take_image(
    session: Session,
    store: ImageStore,
    source: Session,
    tar: tarfile.TarFile,
    row: ImageRow,
    mine: ImageRow | None,
    done: ImportResult,
) -> None:
    if row.state == "stored":
        key = str(row.store_key)
        data = read_archived_image(tar, key)
        if data is None or sha256_of(data) != row.sha256 or not _is_key(key, row.sha256):
            done.lost += 1
            return
        store.put(data, key)
        done.images += 1
    image = mine or ImageRow(sha256=row.sha256)
    for name, value in values_of(row, "id", "cluster_id").items():
        setattr(image, name, value)
    image.cluster_id = _cluster(session, source, row)
    session.add(image)
    session.flush()
    for table in OF_IMAGES:
        _copy_of_image(session, source, table, row.id, image.id)


def _is_key(key: str, sha256: str) -> bool:
    # What an archive says is no path of ours unless it is made of its digest.
    extension = key.rpartition(".")[2]
    return extension.isalnum() and key == ImageStore.key(sha256, extension)


def _cluster(session: Session, source: Session, row: ImageRow) -> int | None:
    """The cluster here of the images that are one with ROW there, or a new one."""
    if row.cluster_id is None:
        return None
    same = source.scalars(sa.select(ImageRow.sha256).filter_by(cluster_id=row.cluster_id)).all()
    known = session.scalar(
        sa.select(sa.func.min(ImageRow.cluster_id)).where(ImageRow.sha256.in_(same))
    )
    if known is None:
        known = pair_decisions.create_cluster(session)
    return known


def _copy_of_image(session: Session, source: Session, table: Any, theirs: int, mine: int) -> None:
    for row in source.scalars(sa.select(table).filter_by(image_id=theirs)):
        values = values_of(row, "id") | {"image_id": mine}
        if "compared" in values:
            values["compared"] = False
        keys = {n: v for n, v in values.items() if table.__table__.c[n].primary_key}
        known = sa.select(table).filter_by(**(keys or values))
        if session.scalar(known) is None:
            session.execute(sa.insert(table), [values])


def _merge_posts(
    session: Session, source: Session, rows: Sequence[PostRow], done: ImportResult
) -> None:
    forgotten = TakedownList()
    forgotten.catch_up(session)
    for row in rows:
        if forgotten.names(AUTHOR, [row.author]) or forgotten.names(URL, [row.url]):
            done.forgotten += 1
            continue
        mine = session.scalar(sa.select(PostRow).filter_by(site=row.site, site_id=row.site_id))
        if mine is None:
            mine = PostRow(**values_of(row, "id"))
            session.add(mine)
            session.flush()
            done.posts += 1
        _merge_hashtags(session, source, row.id, mine.id)
        _merge_sightings(session, source, row.id, mine.id, forgotten)


def _merge_hashtags(session: Session, source: Session, theirs: int, mine: int) -> None:
    rows = source.execute(
        sa.select(Hashtag.text, PostHashtag.source)
        .join(PostHashtag, PostHashtag.hashtag_id == Hashtag.id)
        .where(PostHashtag.post_id == theirs)
    )
    for text, kind in rows:
        tag = session.scalar(sa.select(Hashtag).filter_by(text=text))
        if tag is None:
            tag = Hashtag(text=text)
            session.add(tag)
            session.flush()
        session.merge(PostHashtag(post_id=mine, hashtag_id=tag.id, source=kind))


def _merge_sightings(
    session: Session, source: Session, theirs: int, mine: int, forgotten: TakedownList
) -> None:
    ours = {s.url: s for s in session.scalars(sa.select(Sighting).filter_by(post_id=mine))}
    rows = source.execute(
        sa.select(Sighting, ImageRow.sha256)
        .outerjoin(ImageRow, ImageRow.id == Sighting.image_id)
        .where(Sighting.post_id == theirs)
        .order_by(Sighting.position)
    )
    for row, sha256 in rows:
        if forgotten.names(URL, [row.url, *row.fallbacks.split("\n")]):
            continue
        image = session.scalar(sa.select(ImageRow.id).filter_by(sha256=sha256)) if sha256 else None
        # An image that did not come is still to be fetched.
        state = "pending" if row.state == "stored" and image is None else row.state
        reason = row.reason
        if sha256 and forgotten.has_bytes(sha256):
            state, reason = "rejected", REASON
        known = ours.get(row.url)
        if known is None:
            values = values_of(row, "id", "worker_id") | {"post_id": mine, "position": len(ours)}
            known = ours[row.url] = Sighting(**values)
            session.add(known)
        elif known.state == "stored" or state == "pending":
            continue
        known.state, known.reason, known.image_id = state, reason, image
    session.flush()
