"""Update the near duplicates of a catalogue: fingerprint, compare and cluster what is new.

Quality is measured here as well, once per image: a crawl has no time for it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session, sessionmaker
from tqdm import tqdm

from dataset.catalogue.models import FingerprintRow, ImageRow, NearDuplicateRow, Separation
from dataset.catalogue.queries import in_batches
from dataset.duplicates.alignment import DUPLICATE_SIMILARITY, POSSIBLE_SIMILARITY, similarity
from dataset.duplicates.clusters import links_within, merge_clusters
from dataset.duplicates.hashing import MIN_DECODED_PIXELS, fingerprint
from dataset.duplicates.index import fingerprint_values, load_fingerprints, load_views
from dataset.duplicates.matching import CandidatePairs, candidate_pairs
from dataset.duplicates.pair_decisions import confirmed_pairs, create_cluster, separated_images
from dataset.errors import BadInput
from dataset.images import quality
from dataset.images.io import Unreadable, open_photo
from dataset.images.store import ImageStore
from dataset.utils.threads import map_in_threads

BATCH_ROWS = 256
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
        possible: Pairs that may be near duplicates.
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
) -> DedupResult:
    """Find the near duplicates of a catalogue.

    Only new images are read and compared. Each step is committed, so the work can be interrupted.

    Args:
        sessions: The catalogue.
        store: The image store.
        rebuild: Compare all images again and cluster them again.
        rehash: Read all images again as well.
    """
    if rebuild or rehash:
        with sessions.begin() as session:
            if rehash:
                session.execute(sa.delete(FingerprintRow))
            session.execute(sa.update(FingerprintRow).values(compared=False))
            session.execute(sa.delete(NearDuplicateRow))
    fingerprinted, unreadable = fingerprint_new(sessions, store)
    measure_new(sessions, store)
    compared = compare_new(sessions)
    if compared or rebuild or rehash:
        update_clusters(sessions, keep_clusters=not (rebuild or rehash))
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
        .where(NearDuplicateRow.similarity < DUPLICATE_SIMILARITY)
    )
    return [images, fingerprinted, unreadable, compared, clusters, images - clusters, possible or 0]


def fingerprint_new(sessions: sessionmaker[Session], store: ImageStore) -> tuple[int, int]:
    """Fingerprint the stored images that have no fingerprint.

    Returns:
        How many were fingerprinted, and how many could not be read.
    """

    def values_of(image: int, photo: bytes) -> Values:
        return fingerprint_values(image, fingerprint(open_photo(photo, MIN_DECODED_PIXELS)))

    is_missing = FingerprintRow.image_id.is_(None)
    insert = sa.insert(FingerprintRow)
    return _process(sessions, store, is_missing, values_of, "fingerprinting", insert)


def measure_new(sessions: sessionmaker[Session], store: ImageStore) -> tuple[int, int]:
    """Measure the quality of images with a fingerprint that are not measured yet.

    Returns:
        How many were measured, and how many could not be read.
    """

    def values_of(image: int, photo: bytes) -> Values:
        measured = quality.measure(open_photo(photo, quality.MIN_DECODED_PIXELS))
        return {"image_id": image, **asdict(measured)}

    is_missing = FingerprintRow.image_id.is_not(None) & FingerprintRow.text.is_(None)
    return _process(sessions, store, is_missing, values_of, "measuring", sa.update(FingerprintRow))


def _process(
    sessions: sessionmaker[Session],
    store: ImageStore,
    is_missing: sa.ColumnElement[bool],
    values_of: Callable[[int, bytes], Values],
    name: str,
    statement: Any,
) -> tuple[int, int]:
    """Compute values of images in threads and write them in batches.

    Args:
        sessions: The catalogue.
        store: The image store.
        is_missing: Selects the images.
        values_of: Computes the values of an image from its id and file.
        name: Name of the progress bar.
        statement: Writes the values.

    Returns:
        How many images were processed, and how many could not be read.
    """
    with sessions() as session:
        rows = session.execute(
            sa.select(ImageRow.id, ImageRow.store_key)
            .outerjoin(FingerprintRow, FingerprintRow.image_id == ImageRow.id)
            .where(ImageRow.state == "stored", is_missing)
            .order_by(ImageRow.id)
        )
        jobs = [(image, str(key)) for image, key in rows]

    def process(job: tuple[int, str]) -> Values | None:
        try:
            return values_of(job[0], store.read(job[1]))
        except (Unreadable, OSError):
            # Reported by the build, which needs the photo.
            return None

    processed = 0
    results = _with_progress(map_in_threads(process, jobs), len(jobs), name, " photos")
    while batch := list(islice(results, BATCH_ROWS)):
        values = [row for row in batch if row is not None]
        processed += len(values)
        if values:
            with sessions.begin() as session:
                session.execute(statement, values)
    return processed, len(jobs) - processed


def _with_progress(results: Iterable, total: int, name: str, unit: str) -> Iterator:
    return iter(tqdm(results, total=total, desc=name, unit=unit, disable=None if total else True))


def compare_new(sessions: sessionmaker[Session]) -> int:
    """Compare images that were not compared yet with all; returns how many."""
    with sessions() as session:
        ids, views, compared = load_views(session)
    if compared.all():
        return 0
    _compare_pairs(sessions, ids, candidate_pairs(views, ~compared))
    new = ids[~compared].tolist()
    with sessions.begin() as session:
        for batch in in_batches(new):
            session.execute(
                sa.update(FingerprintRow)
                .where(FingerprintRow.image_id.in_(batch))
                .values(compared=True)
            )
    return len(new)


def _compare_pairs(sessions: sessionmaker[Session], ids: np.ndarray, pairs: CandidatePairs) -> None:
    """Save the candidate pairs, indices into `ids`, that are or may be near duplicates."""

    def compare(start: int) -> list[Values]:
        batch = slice(start, start + BATCH_ROWS)
        first, second = ids[pairs.first[batch]], ids[pairs.second[batch]]
        orientations = pairs.orientation[batch]
        with sessions() as session:
            prints = load_fingerprints(session, np.unique([first, second]).tolist())
        similarities = similarity(
            [prints[i] for i in first], [prints[i] for i in second], orientations
        )
        return [
            {
                "one_id": int(one),
                "other_id": int(other),
                "mirrored": bool(orientation % 2),
                "similarity": float(value),
            }
            for one, other, orientation, value in zip(
                first, second, orientations, similarities, strict=True
            )
            if value >= POSSIBLE_SIMILARITY
        ]

    jobs = list(range(0, len(pairs.first), BATCH_ROWS))
    unit = f" x {BATCH_ROWS} pairs"
    for rows in _with_progress(map_in_threads(compare, jobs), len(jobs), "comparing", unit):
        _save_near_duplicates(sessions, rows)


def _save_near_duplicates(sessions: sessionmaker[Session], rows: Sequence[Values]) -> None:
    """Insert or replace rows."""
    if not rows:
        return
    with sessions.begin() as session:
        for row in rows:
            session.execute(
                sa.delete(NearDuplicateRow).filter_by(
                    one_id=row["one_id"], other_id=row["other_id"]
                )
            )
        session.execute(sa.insert(NearDuplicateRow), list(rows))


def update_clusters(sessions: sessionmaker[Session], keep_clusters: bool = True) -> None:
    """Give near duplicates one cluster, that of the oldest image.

    People's decisions on pairs hold, and undone clusters stay undone.

    Args:
        sessions: The catalogue.
        keep_clusters: Whether images that share a cluster stay in one.
    """
    with sessions.begin() as session:
        stored = (
            sa.select(ImageRow.id, ImageRow.cluster_id)
            .where(ImageRow.state == "stored")
            .order_by(ImageRow.id)
        )
        before = {image: cluster for image, cluster in session.execute(stored)}  # noqa: C416
        links = [*(_existing_links(before) if keep_clusters else []), *confirmed_pairs(session)]
        links += [
            (first, second)
            for first, second in session.execute(
                sa.select(NearDuplicateRow.one_id, NearDuplicateRow.other_id)
                .where(NearDuplicateRow.similarity >= DUPLICATE_SIMILARITY)
                .order_by(
                    NearDuplicateRow.similarity.desc(),
                    NearDuplicateRow.one_id,
                    NearDuplicateRow.other_id,
                )
            )
        ]
        clusters = merge_clusters(links, separated_images(session))
        _save_clusters(session, before, clusters)


def _existing_links(before: dict[int, int | None]) -> list[tuple[int, int]]:
    groups: dict[int, list[int]] = {}
    for image, cluster in before.items():
        if cluster is not None:
            groups.setdefault(cluster, []).append(image)
    return links_within(groups.values())


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
