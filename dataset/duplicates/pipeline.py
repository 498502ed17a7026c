"""Update the near duplicates of a catalogue: fingerprint, compare and cluster what is new.

Quality is measured here as well, once per image: a crawl has no time for it.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import sqlalchemy as sa
from PIL import Image
from sqlalchemy.orm import Session, sessionmaker
from tqdm import tqdm

from dataset.catalogue.models import FingerprintRow, ImageRow, NearDuplicateRow, Separation
from dataset.catalogue.queries import in_batches
from dataset.duplicates.clusters import merge_clusters
from dataset.duplicates.features import PICTURE_SIDE, extract_features, picture_of
from dataset.duplicates.hashing import MIN_DECODED_PIXELS, content_box, fingerprint
from dataset.duplicates.index import CataloguePhotos, fingerprint_values
from dataset.duplicates.pair_decisions import confirmed_pairs, create_cluster, separated_images
from dataset.duplicates.search import BATCH_PAIRS, ComparedPair, compare_candidates
from dataset.duplicates.verification import Relation
from dataset.errors import BadInput
from dataset.images import quality
from dataset.images.io import Unreadable, open_photo, reduction_of
from dataset.images.store import ImageStore
from dataset.utils.engines import LOCAL_ENGINE, Engine, PhotoTask

BATCH_ROWS, PAGE_ROWS = 256, 10_000
Values = dict[str, object]


@dataclass(frozen=True)
class DedupResult:
    """Counts of a deduplication.

    Attributes:
        images: Stored images.
        fingerprinted: Images that were fingerprinted now.
        unreadable: Images that could not be read.
        compared: Images that were compared now.
        clusters: Clusters of all images.
        duplicates: Images less clusters.
        possible: Pairs that show the same photo in part or changed.
    """

    images: int
    fingerprinted: int
    unreadable: int
    compared: int
    clusters: int
    duplicates: int
    possible: int


def dedup(
    sessions: sessionmaker[Session],
    store: ImageStore,
    rebuild: bool = False,
    rehash: bool = False,
    engine: Engine = LOCAL_ENGINE,
) -> DedupResult:
    """Find the near duplicates of a catalogue.

    Only new images are read and compared. Each step is committed, so the work can be interrupted.

    Args:
        sessions: The catalogue.
        store: The image store.
        rebuild: Compare all images again and cluster them again.
        rehash: Read all images again as well.
        engine: Runs what is done image by image.
    """
    if rebuild or rehash:
        with sessions.begin() as session:
            if rehash:
                session.execute(sa.delete(FingerprintRow))
            session.execute(sa.update(FingerprintRow).values(compared=False))
            session.execute(sa.delete(NearDuplicateRow))
    fingerprinted, unreadable = measure_new(sessions, store, engine)
    compared = compare_new(sessions, store)
    if compared or rebuild or rehash:
        update_clusters(sessions)
        measure_effective_pixels(sessions, store, engine)
    with sessions() as session:
        return DedupResult(*_counts(session, fingerprinted, unreadable, compared))


def _counts(session: Session, fingerprinted: int, unreadable: int, compared: int) -> list[int]:
    is_stored = ImageRow.state == "stored"
    images, clusters = session.execute(
        sa.select(sa.func.count(ImageRow.id), sa.func.count(ImageRow.cluster_id.distinct())).where(
            is_stored
        )
    ).one()
    possible = session.scalar(
        sa.select(sa.func.count())
        .select_from(NearDuplicateRow)
        .where(NearDuplicateRow.relation == Relation.POSSIBLE)
    )
    return [images, fingerprinted, unreadable, compared, clusters, images - clusters, possible or 0]


def measure_new(
    sessions: sessionmaker[Session], store: ImageStore, engine: Engine
) -> tuple[int, int]:
    """Compute the fingerprints, quality and local features that stored images lack.

    Each image is read once.

    Returns:
        How many were fingerprinted, and how many of the others could not be read.
    """
    is_known = FingerprintRow.image_id.is_not(None)
    has_quality, has_features = (
        FingerprintRow.text.is_not(None),
        FingerprintRow.features.is_not(None),
    )
    task = StoredImageTask(store, (_fingerprint, _quality, _local_features))
    done = _process(sessions, task, engine, ~is_known, "measuring", sa.insert(FingerprintRow))
    for is_missing, measures in (
        (~has_quality & ~has_features, (_quality, _local_features)),
        (~has_quality & has_features, (_quality,)),
        (has_quality & ~has_features, (_local_features,)),
    ):
        task = StoredImageTask(store, measures)
        update = sa.update(FingerprintRow)
        _process(sessions, task, engine, is_known & is_missing, "measuring", update)
    return done


def measure_effective_pixels(
    sessions: sessionmaker[Session], store: ImageStore, engine: Engine
) -> tuple[int, int]:
    """Measure the effective pixels of images in clusters with several.

    Returns:
        How many were measured, and how many could not be read.
    """
    several = (
        sa.select(ImageRow.cluster_id)
        .where(ImageRow.state == "stored")
        .group_by(ImageRow.cluster_id)
        .having(sa.func.count() > 1)
    )
    is_missing = (
        FingerprintRow.image_id.is_not(None)
        & FingerprintRow.detail.is_(None)
        & ImageRow.cluster_id.in_(several)
    )
    task = StoredImageTask(store, (_detail,))
    return _process(sessions, task, engine, is_missing, "detail", sa.update(FingerprintRow))


class StoredPhoto:
    """A stored image, decoded once per size.

    Attributes:
        image: Its id.
    """

    def __init__(self, image: int, data: bytes) -> None:
        self.image, self._data = image, data
        self._decoded: dict[int, Image.Image] = {}

    def decoded(self, at_least: int) -> Image.Image:
        """Return the image as `open_photo` does with `at_least`."""
        known = next(iter(self._decoded.values()), None)
        photo = known and self._decoded.get(reduction_of(known, at_least))
        if photo is None:
            photo = open_photo(self._data, at_least)
            self._decoded[reduction_of(photo, at_least)] = photo
        return photo

    def decoded_in_full(self) -> Image.Image:
        """Return the image at its full size."""
        return open_photo(self._data)


def _fingerprint(photo: StoredPhoto) -> Values:
    return fingerprint_values(photo.image, fingerprint(photo.decoded(MIN_DECODED_PIXELS)))


def _quality(photo: StoredPhoto) -> Values:
    return asdict(quality.measure(photo.decoded(quality.MIN_DECODED_PIXELS)))


def _local_features(photo: StoredPhoto) -> Values:
    picture = picture_of(photo.decoded(PICTURE_SIDE))
    left, top, right, bottom = content_box(np.asarray(picture.convert("L")))
    content = (right - left) * (bottom - top) / (picture.width * picture.height)
    return {"features": extract_features(picture).packed, "content": content}


def _detail(photo: StoredPhoto) -> Values:
    return {"detail": quality.effective_pixels(photo.decoded_in_full())}


@dataclass(frozen=True)
class StoredImageTask(PhotoTask[tuple[int, str], "Values | None"]):
    """Computes values of stored images, None for those that can't be read.

    A job is the id of an image and its key in the store.

    Attributes:
        store: The image store.
        measures: Compute the values of an image.
    """

    store: ImageStore
    measures: tuple[Callable[[StoredPhoto], Values], ...]

    def read(self, job: tuple[int, str]) -> Values | None:
        """Return the values of an image."""
        image, key = job
        values: Values = {"image_id": image}
        try:
            photo = StoredPhoto(image, self.store.read(key))
            for measure in self.measures:
                values |= measure(photo)
        except (Unreadable, OSError):
            # Reported by the build, which needs the photo.
            return None
        return values


def _process(
    sessions: sessionmaker[Session],
    task: StoredImageTask,
    engine: Engine,
    is_missing: sa.ColumnElement[bool],
    name: str,
    statement: Any,
) -> tuple[int, int]:
    """Compute values of images and write them in batches.

    Args:
        sessions: The catalogue.
        task: Computes the values.
        engine: Runs the task.
        is_missing: Selects the images.
        name: Name of the progress bar.
        statement: Writes the values.

    Returns:
        How many images were processed, and how many could not be read.
    """
    query = (
        sa.select(ImageRow.id, ImageRow.store_key)
        .outerjoin(FingerprintRow, FingerprintRow.image_id == ImageRow.id)
        .where(ImageRow.state == "stored", is_missing)
        .order_by(ImageRow.id)
    )
    with sessions() as session:
        count = session.scalar(sa.select(sa.func.count()).select_from(query.subquery())) or 0

    def jobs() -> Iterator[tuple[int, str]]:
        last = -1
        while True:
            # Pages by id: rows that are written meanwhile are behind.
            with sessions() as session:
                page = session.execute(query.where(ImageRow.id > last).limit(PAGE_ROWS)).all()
            yield from ((image, str(key)) for image, key in page)
            if len(page) < PAGE_ROWS:
                return
            last = page[-1][0]

    processed = 0
    results = iter(
        tqdm(
            engine.map(task, itertools.islice(jobs(), count)),
            total=count,
            desc=name,
            unit=" photos",
            disable=None if count else True,
        )
    )
    read = 0
    while batch := list(islice(results, BATCH_ROWS)):
        read += len(batch)
        values = [row for row in batch if row is not None]
        processed += len(values)
        if values:
            with sessions.begin() as session:
                session.execute(statement, values)
    return processed, read - processed


def compare_new(sessions: sessionmaker[Session], store: ImageStore) -> int:
    """Compare images that were not compared yet with all; returns how many."""
    photos = CataloguePhotos(sessions, store)
    if photos.compared.all():
        return 0
    new = photos.ids[~photos.compared].tolist()
    with sessions.begin() as session:
        # A crawl compares hashes only: its pairs are replaced.
        for batch in in_batches(new):
            session.execute(
                sa.delete(NearDuplicateRow).where(
                    sa.or_(NearDuplicateRow.one_id.in_(batch), NearDuplicateRow.other_id.in_(batch))
                )
            )
    batches = compare_candidates(photos, ~photos.compared)
    for batch in tqdm(batches, desc="comparing", unit=f" x {BATCH_PAIRS} pairs", disable=None):
        related = [pair for pair in batch if pair.comparison.is_related]
        if related:
            with sessions.begin() as session:
                rows = [_pair_values(photos, pair) for pair in related]
                session.execute(sa.insert(NearDuplicateRow), rows)
    with sessions.begin() as session:
        for batch in in_batches(new):
            session.execute(
                sa.update(FingerprintRow)
                .where(FingerprintRow.image_id.in_(batch))
                .values(compared=True)
            )
    return len(new)


def _pair_values(photos: CataloguePhotos, pair: ComparedPair) -> Values:
    one, other, comparison = (
        int(photos.ids[pair.first]),
        int(photos.ids[pair.second]),
        pair.comparison,
    )
    if one > other:
        one, other, comparison = other, one, comparison.swapped()
    return {
        "one_id": one,
        "other_id": other,
        "mirrored": comparison.mirrored,
        "similarity": comparison.similarity,
        "relation": comparison.relation,
        "one_decoration": comparison.decorations[0],
        "other_decoration": comparison.decorations[1],
    }


def save_possible_duplicates(
    sessions: sessionmaker[Session], pairs: Sequence[tuple[int, int, float]]
) -> None:
    """Save pairs that a leakage audit has found, so that later builds put them into one split.

    Args:
        sessions: The catalogue.
        pairs: Ids of two images and their similarity.
    """
    with sessions.begin() as session:
        for pair in pairs:
            _add_pair(session, pair, Relation.POSSIBLE)


def save_closest_pairs(
    sessions: sessionmaker[Session], pairs: Sequence[tuple[int, int, float]]
) -> None:
    """Save the closest unrelated pairs of a build's splits for the review, instead of earlier ones.

    Args:
        sessions: The catalogue.
        pairs: Ids of two images and their similarity.
    """
    with sessions.begin() as session:
        session.execute(sa.delete(NearDuplicateRow).filter_by(relation=Relation.UNRELATED))
        for pair in pairs:
            _add_pair(session, pair, Relation.UNRELATED)


def _add_pair(session: Session, pair: tuple[int, int, float], relation: Relation) -> None:
    """Add a pair of images; one that was related before stays as it is."""
    one, other = sorted(pair[:2])
    row = session.get(NearDuplicateRow, (one, other))
    if row is None:
        row = NearDuplicateRow(
            one_id=one, other_id=other, mirrored=False, relation=Relation.UNRELATED
        )
        session.add(row)
    if row.relation == Relation.UNRELATED:
        row.relation, row.similarity = relation, pair[2]


def update_clusters(sessions: sessionmaker[Session]) -> None:
    """Give near duplicates one cluster, that of the oldest image.

    People's decisions on pairs hold, and undone clusters stay undone.
    """
    with sessions.begin() as session:
        stored = (
            sa.select(ImageRow.id, ImageRow.cluster_id)
            .where(ImageRow.state == "stored")
            .order_by(ImageRow.id)
        )
        before = {image: cluster for image, cluster in session.execute(stored)}  # noqa: C416
        links = confirmed_pairs(session)
        links += [
            (first, second)
            for first, second in session.execute(
                sa.select(NearDuplicateRow.one_id, NearDuplicateRow.other_id)
                .where(NearDuplicateRow.relation == Relation.NEAR_DUPLICATE)
                .order_by(
                    NearDuplicateRow.similarity.desc(),
                    NearDuplicateRow.one_id,
                    NearDuplicateRow.other_id,
                )
            )
        ]
        clusters = merge_clusters(links, separated_images(session))
        _save_clusters(session, before, clusters)


def _save_clusters(
    session: Session, before: dict[int, int | None], clusters: dict[int, list[int]]
) -> None:
    """Write the clusters of images that had another one before."""
    cluster_of: dict[int, int] = {}
    taken: set[int] = set()
    linked = {image for members in clusters.values() for image in members}
    groups = [*clusters.values(), *([image] for image in before if image not in linked)]
    for members in sorted(groups):
        own = [c for c in (before[image] for image in members) if c is not None and c not in taken]
        cluster = min(own) if own else create_cluster(session)
        taken.add(cluster)
        cluster_of.update(dict.fromkeys(members, cluster))
    changed = [{"id": i, "cluster_id": c} for i, c in cluster_of.items() if before[i] != c]
    if changed:
        session.execute(sa.update(ImageRow), changed)


def undo_cluster(sessions: sessionmaker[Session], number: int, who: str) -> int:
    """Separate the images of a cluster for good.

    Args:
        sessions: The catalogue.
        number: The cluster.
        who: Who decided it.

    Returns:
        How many images it had.

    Raises:
        BadInput: There is no such cluster, or it has one image.
    """
    with sessions.begin() as session:
        images = session.scalars(
            sa.select(ImageRow.id).filter_by(cluster_id=number, state="stored").order_by("id")
        ).all()
        if len(images) < 2:
            size = "one image" if images else "no image"
            raise BadInput(
                f"cluster {number} has {size}; `catalogue clusters` lists those with several"
            )
        separated = separated_images(session)
        for image in images:
            if number not in separated.get(image, ()):
                session.add(Separation(image_id=image, cluster_id=number, who=who))
        for image in images[1:]:
            session.execute(
                sa.update(ImageRow)
                .where(ImageRow.id == image)
                .values(cluster_id=create_cluster(session))
            )
    return len(images)
