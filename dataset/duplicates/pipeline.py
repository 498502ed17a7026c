"""Duplicates in the whole catalogue: look at what is new, compare it with all, fold what is one.

Quality is measured here, too, once a photo: a crawl has no time for it.
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

BATCH_IMAGES = 256
Row = dict[str, object]


@dataclass(frozen=True)
class DedupResult:
    """What a look at a catalogue came to, in images but for `clusters` and `possible` (pairs)."""

    images: int
    looked_at: int
    unreadable: int
    compared: int
    clusters: int
    folded: int
    possible: int


def dedup(sessions: sessionmaker[Session], store: ImageStore, again: bool = False) -> DedupResult:
    """Bring the duplicates of a catalogue up to date; AGAIN compares everything anew.

    Nothing is looked at or compared twice; each step is kept before the next, so it can be stopped.
    """
    if again:
        with sessions.begin() as session:
            session.execute(sa.update(FingerprintRow).values(compared=False))
            session.execute(sa.delete(NearDuplicateRow))
    looked_at, unreadable = fingerprint_new(sessions, store)
    measure_new(sessions, store)
    compared = compare_new(sessions)
    if compared or again:
        update_clusters(sessions, keep_clusters=not again)
    with sessions() as session:
        return DedupResult(*_counts(session, looked_at, unreadable, compared))


def _counts(session: Session, looked_at: int, unreadable: int, compared: int) -> list[int]:
    stored = ImageRow.state == "stored"
    images, clusters = session.execute(
        sa.select(sa.func.count(ImageRow.id), sa.func.count(ImageRow.cluster_id.distinct())).where(
            stored
        )
    ).one()
    possible = session.scalar(
        sa.select(sa.func.count())
        .select_from(NearDuplicateRow)
        .where(NearDuplicateRow.similarity < DUPLICATE_SIMILARITY)
    )
    return [images, looked_at, unreadable, compared, clusters, images - clusters, possible or 0]


def fingerprint_new(sessions: sessionmaker[Session], store: ImageStore) -> tuple[int, int]:
    """Keep fingerprints of stored images that have none: how many were read, how many can't be."""

    def look(image: int, photo: bytes) -> Row:
        return fingerprint_values(image, fingerprint(open_photo(photo, MIN_DECODED_PIXELS)))

    missing = FingerprintRow.image_id.is_(None)
    return _in_batches(sessions, store, missing, look, "looking", sa.insert(FingerprintRow))


def measure_new(sessions: sessionmaker[Session], store: ImageStore) -> tuple[int, int]:
    """The same for the quality of images that have a fingerprint."""

    def judge(image: int, photo: bytes) -> Row:
        return {
            "image_id": image,
            **asdict(quality.measure(open_photo(photo, quality.MIN_DECODED_PIXELS))),
        }

    missing = FingerprintRow.image_id.is_not(None) & FingerprintRow.text.is_(None)
    return _in_batches(sessions, store, missing, judge, "measuring", sa.update(FingerprintRow))


def _in_batches(
    sessions: sessionmaker[Session],
    store: ImageStore,
    missing: sa.ColumnElement[bool],
    read: Callable[[int, bytes], Row],
    name: str,
    keep: Any,
) -> tuple[int, int]:
    """READ images that lack what is MISSING and KEEP their rows; read ones, and unreadable ones."""
    with sessions() as session:
        found = session.execute(
            sa.select(ImageRow.id, ImageRow.store_key)
            .outerjoin(FingerprintRow, FingerprintRow.image_id == ImageRow.id)
            .where(ImageRow.state == "stored", missing)
            .order_by(ImageRow.id)
        )
        jobs = [(image, str(key)) for image, key in found]

    def row(job: tuple[int, str]) -> Row | None:
        try:
            return read(job[0], store.read(job[1]))
        except (Unreadable, OSError):
            # Named where the photo is needed.
            return None

    seen, rows = 0, _shown(map_in_threads(row, jobs), len(jobs), name, " photos")
    while part := list(islice(rows, BATCH_IMAGES)):
        kept = [one for one in part if one is not None]
        seen += len(kept)
        if kept:
            with sessions.begin() as session:
                session.execute(keep, kept)
    return seen, len(jobs) - seen


def _shown(work: Iterable, total: int, name: str, unit: str) -> Iterator:
    return iter(tqdm(work, total=total, desc=name, unit=unit, disable=None if total else True))


def compare_new(sessions: sessionmaker[Session]) -> int:
    """Compare images that have not been yet with all; returns how many."""
    with sessions() as session:
        ids, views, compared = load_views(session)
    if compared.all():
        return 0
    pairs = candidate_pairs(views, ~compared)
    _judge(sessions, ids, pairs)
    new = ids[~compared].tolist()
    with sessions.begin() as session:
        for part in in_batches(new):
            session.execute(
                sa.update(FingerprintRow)
                .where(FingerprintRow.image_id.in_(part))
                .values(compared=True)
            )
    return len(new)


def _judge(sessions: sessionmaker[Session], ids: np.ndarray, pairs: CandidatePairs) -> None:
    """Keep those of PAIRS, places in IDS, that are or may be one photo."""

    def compare(start: int) -> list[dict[str, object]]:
        part = slice(start, start + BATCH_IMAGES)
        ones, others = ids[pairs.first[part]], ids[pairs.second[part]]
        turns = pairs.orientation[part]
        with sessions() as session:
            known = load_fingerprints(session, np.unique([ones, others]).tolist())
        scores = similarity([known[i] for i in ones], [known[i] for i in others], turns)
        return [
            {
                "one_id": int(one),
                "other_id": int(other),
                "mirrored": bool(turn % 2),
                "similarity": float(score),
            }
            for one, other, turn, score in zip(ones, others, turns, scores, strict=True)
            if score >= POSSIBLE_SIMILARITY
        ]

    jobs = list(range(0, len(pairs.first), BATCH_IMAGES))
    for rows in _shown(
        map_in_threads(compare, jobs), len(jobs), "comparing", f" x {BATCH_IMAGES} pairs"
    ):
        _keep_resemblances(sessions, rows)


def _keep_resemblances(sessions: sessionmaker[Session], rows: Sequence[dict[str, object]]) -> None:
    """ROWS in place of those of the same pairs."""
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
    """Give images that are one photo one cluster, the oldest's; people's words on pairs hold, and
    undone clusters stay undone.

    KEEP_CLUSTERS: what is folded already stays so.
    """
    with sessions.begin() as session:
        stored = (
            sa.select(ImageRow.id, ImageRow.cluster_id)
            .where(ImageRow.state == "stored")
            .order_by(ImageRow.id)
        )
        before = {image: cluster for image, cluster in session.execute(stored)}  # noqa: C416
        ties = [*(_old_ties(before) if keep_clusters else []), *confirmed_pairs(session)]
        ties += [
            (one, other)
            for one, other in session.execute(
                sa.select(NearDuplicateRow.one_id, NearDuplicateRow.other_id)
                .where(NearDuplicateRow.similarity >= DUPLICATE_SIMILARITY)
                .order_by(
                    NearDuplicateRow.similarity.desc(),
                    NearDuplicateRow.one_id,
                    NearDuplicateRow.other_id,
                )
            )
        ]
        clusters = merge_clusters(ties, separated_images(session))
        _renumber(session, before, clusters, keep_clusters)


def _old_ties(before: dict[int, int | None]) -> list[tuple[int, int]]:
    groups: dict[int, list[int]] = {}
    for image, cluster in before.items():
        if cluster is not None:
            groups.setdefault(cluster, []).append(image)
    return links_within(groups.values())


def _renumber(
    session: Session,
    before: dict[int, int | None],
    clusters: dict[int, list[int]],
    keep_clusters: bool,
) -> None:
    """Write the cluster of each image that has another one than BEFORE."""
    wanted: dict[int, int] = {}
    taken: set[int] = set()
    tied = {image for members in clusters.values() for image in members}
    groups = [*clusters.values(), *([image] for image in before if image not in tied)]
    for members in sorted(groups):
        mine = [c for c in (before[image] for image in members) if c is not None and c not in taken]
        number = min(mine) if mine else create_cluster(session)
        taken.add(number)
        wanted.update(dict.fromkeys(members, number))
    changed = [{"id": i, "cluster_id": c} for i, c in wanted.items() if before[i] != c]
    if changed:
        session.execute(sa.update(ImageRow), changed)


def undo_cluster(sessions: sessionmaker[Session], number: int, who: str) -> int:
    """Take the cluster NUMBER apart for good; returns how many images it held.

    Raises:
        BadInput: there is no such cluster, or it holds one image.
    """
    with sessions.begin() as session:
        images = session.scalars(
            sa.select(ImageRow.id).filter_by(cluster_id=number, state="stored").order_by("id")
        ).all()
        if len(images) < 2:
            held = "one image" if images else "no image"
            raise BadInput(
                f"cluster {number} holds {held}; `catalogue clusters` lists those of more"
            )
        known = separated_images(session)
        for image in images:
            if number not in known.get(image, ()):
                session.add(Separation(image_id=image, cluster_id=number, who=who))
        for image in images[1:]:
            session.execute(
                sa.update(ImageRow)
                .where(ImageRow.id == image)
                .values(cluster_id=create_cluster(session))
            )
    return len(images)
