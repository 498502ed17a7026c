"""`catalogue import`: another catalogue's rows and images into this one, known ones once.

Rows are known by what they are on the sites and by their bytes, not by their numbers. Each step is
kept before the next; who is stopped in between repeats the command.
"""

import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session
from tqdm import tqdm

from dataset.catalogue import pairs
from dataset.catalogue.check_tables import Judgement
from dataset.catalogue.crawl_tables import AskedHashtag, ForgottenRow
from dataset.catalogue.forgetting import (
    AUTHOR,
    IMAGE,
    REASON,
    URL,
    Forgotten,
    named,
    remember,
    take_down,
    with_copies,
)
from dataset.catalogue.merging_pairs import merge_pairs, values_of
from dataset.catalogue.review_tables import CropDecision
from dataset.catalogue.session import Sessions
from dataset.catalogue.tables import (
    CropRow,
    Decision,
    FingerprintRow,
    Hashtag,
    ImageRow,
    KeptSplit,
    Pose,
    PostHashtag,
    PostRow,
    Search,
    Sighting,
)
from dataset.catalogue.transfer import image_in, opened
from dataset.duplicates.fingerprint import unpack
from dataset.images import sha256_of
from dataset.stores import ImageStore

BATCH = 200
# On whose word images are taken down that an import shows under what was.
BROUGHT = "catalogue import"
# Rows of one image each, known by their other columns, which are copied as they are.
OF_IMAGES = (FingerprintRow, Pose, CropRow, KeptSplit, Decision, CropDecision, Judgement)


@dataclass
class Imported:
    """What came: new images, posts and searches; `lost`: images whose file was not in the archive
    or not what it should be; `forgotten`: images and posts that were taken down here or there."""

    images: int = 0
    posts: int = 0
    searches: int = 0
    lost: int = 0
    forgotten: int = 0


def import_file(sessions: Sessions, store: ImageStore, file: Path) -> Imported:
    """Merge what `export` wrote into FILE.

    Raises:
        BadInput, Failure: see `transfer.opened`; or the store can't be written.
    """
    done = Imported()
    with opened(file) as (theirs, tar), store.in_use(), theirs() as source:
        with sessions.begin() as session:
            done.forgotten = _forget(session, store, source)
            done.searches = _copy_new(session, source, Search, ("site", "hashtag"))
            _copy_new(session, source, AskedHashtag, ("site", "account", "hashtag", "asked"))
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
    here by its address or author is remembered by its bytes; returns how many images go."""
    _copy_new(session, source, ForgottenRow, ("kind", "digest"))
    forgotten = Forgotten()
    forgotten.catch_up(session)
    _, shown = named(source, forgotten)
    for image in with_copies(source, shown):
        looks = source.get(FingerprintRow, image.id)
        remember(session, IMAGE, image.sha256, looks.views[:8] if looks else None, BROUGHT)
    forgotten.catch_up(session)
    posts, images = named(session, forgotten)
    images += [
        number
        for number, sha256 in session.execute(sa.select(ImageRow.id, ImageRow.sha256))
        if forgotten.has_bytes(sha256)
    ]
    return take_down(session, store, posts, images, BROUGHT)


def _merge_images(
    session: Session,
    store: ImageStore,
    source: Session,
    tar: tarfile.TarFile,
    rows: Sequence[ImageRow],
    done: Imported,
) -> None:
    forgotten = Forgotten()
    forgotten.catch_up(session)
    for row in rows:
        mine = session.scalar(sa.select(ImageRow).filter_by(sha256=row.sha256))
        if mine is None and _is_forgotten(source, row, forgotten):
            done.forgotten += 1
        elif mine is None or (mine.state != "stored" and row.state == "stored"):
            _take_image(session, store, source, tar, row, mine, done)


def _is_forgotten(source: Session, row: ImageRow, forgotten: Forgotten) -> bool:
    looks = source.get(FingerprintRow, row.id)
    if looks is None:
        return forgotten.has_bytes(row.sha256)
    return forgotten.is_image(row.sha256, unpack(looks.views, looks.looks))


def _take_image(
    session: Session,
    store: ImageStore,
    source: Session,
    tar: tarfile.TarFile,
    row: ImageRow,
    mine: ImageRow | None,
    done: Imported,
) -> None:
    if row.state == "stored":
        key = str(row.store_key)
        data = image_in(tar, key)
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
        known = pairs.new_cluster(session)
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
    session: Session, source: Session, rows: Sequence[PostRow], done: Imported
) -> None:
    forgotten = Forgotten()
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
    session: Session, source: Session, theirs: int, mine: int, forgotten: Forgotten
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
        state = "wanted" if row.state == "stored" and image is None else row.state
        reason = row.reason
        if sha256 and forgotten.has_bytes(sha256):
            state, reason = "refused", REASON
        known = ours.get(row.url)
        if known is None:
            values = values_of(row, "id", "worker_id") | {"post_id": mine, "position": len(ours)}
            known = ours[row.url] = Sighting(**values)
            session.add(known)
        elif known.state == "stored" or state == "wanted":
            continue
        known.state, known.reason, known.image_id = state, reason, image
    session.flush()
