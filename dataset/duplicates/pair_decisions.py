"""People's words on pairs of images: one photo, whose clusters are folded, or two for good."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import Cluster, ImageRow, PairDecision, Separation, now
from dataset.catalogue.queries import in_batches
from dataset.duplicates.clusters import links_within, merge_clusters


def decide_pair(
    session: Session, one: int, other: int, same: bool, who: str, made: datetime | None = None
) -> PairDecision:
    """Keep WHO's word that images ONE and OTHER are the SAME photo; an earlier one is taken back.

    Images that are one get one cluster. Those that are not are never folded together again.
    """
    low, high = sorted((one, other))
    for earlier in session.scalars(_active().filter_by(one_id=low, other_id=high)).all():
        undo_decision(session, earlier)
    moved = _join(session, low, high) if same else []
    decision = PairDecision(
        one_id=low, other_id=high, same=same, moved=json.dumps(moved), who=who, made=made or now()
    )
    session.add(decision)
    session.flush()
    return decision


def undo_decision(session: Session, decision: PairDecision) -> None:
    """Undo DECISION; what it brought into one cluster, and nothing else ties, is taken apart."""
    decision.undone = now()
    session.flush()
    if json.loads(decision.moved):
        _regroup(session, decision)


def import_decision(
    session: Session, word: PairDecision, pair: tuple[int, int], here: Mapping[int, int]
) -> None:
    """Keep WORD of another catalogue on PAIR, unless it is known here or a later one is.

    HERE: the number of each image there -> ours.
    """
    known = sa.select(PairDecision.id).filter_by(one_id=pair[0], other_id=pair[1])
    later = known.where(PairDecision.undone.is_(None), PairDecision.made > word.made)
    if session.scalar(known.filter_by(who=word.who, made=word.made)) or session.scalar(later):
        return
    moved = json.dumps([here[image] for image in json.loads(word.moved) if image in here])
    if word.undone is not None:
        session.add(
            PairDecision(
                one_id=pair[0],
                other_id=pair[1],
                same=word.same,
                moved=moved,
                who=word.who,
                made=word.made,
                undone=word.undone,
            )
        )
        return
    kept = decide_pair(session, *pair, word.same, word.who, word.made)
    if kept.moved == "[]":
        # Images that are new here came folded.
        kept.moved = moved


def _active() -> sa.Select:
    return sa.select(PairDecision).where(PairDecision.undone.is_(None)).order_by(PairDecision.id)


def confirmed_pairs(session: Session) -> list[tuple[int, int]]:
    """Pairs of images that are one photo, as people say."""
    return [(one.one_id, one.other_id) for one in session.scalars(_active().filter_by(same=True))]


def separated_images(session: Session) -> dict[int, frozenset[int]]:
    """Image -> what it was taken apart from: two images that share a number never meet again.

    Numbers from 0 up are of clusters that were undone, those below of pairs.
    """
    found: dict[int, set[int]] = {}
    for image, cluster in session.execute(sa.select(Separation.image_id, Separation.cluster_id)):
        found.setdefault(image, set()).add(cluster)
    for pair in session.scalars(_active().filter_by(same=False)):
        for image in (pair.one_id, pair.other_id):
            found.setdefault(image, set()).add(-pair.id)
    return {image: frozenset(numbers) for image, numbers in found.items()}


def create_cluster(session: Session) -> int:
    """The number of a cluster that is made now."""
    cluster = Cluster()
    session.add(cluster)
    session.flush()
    return cluster.id


def _join(session: Session, one: int, other: int) -> list[int]:
    """Bring the two images' clusters together; returns the images that changed theirs."""
    clusters = _clusters(session, (one, other))
    into, away = min(clusters.values()), max(clusters.values())
    if into == away:
        return []
    moved = list(session.scalars(sa.select(ImageRow.id).filter_by(cluster_id=away)))
    _move(session, moved, into)
    return moved


def _clusters(session: Session, images: Sequence[int]) -> dict[int, int]:
    """The cluster of each of IMAGES; one that has none yet gets one."""
    found = {}
    for image in session.scalars(sa.select(ImageRow).where(ImageRow.id.in_(images))):
        if image.cluster_id is None:
            image.cluster_id = create_cluster(session)
        found[image.id] = image.cluster_id
    return found


def _move(session: Session, images: Sequence[int], cluster: int) -> None:
    for part in in_batches(images):
        session.execute(sa.update(ImageRow).where(ImageRow.id.in_(part)).values(cluster_id=cluster))


def _regroup(session: Session, undone: PairDecision) -> None:
    """Part the cluster that UNDONE made into what was folded before it and what people say."""
    cluster = session.scalar(sa.select(ImageRow.cluster_id).filter_by(id=undone.one_id))
    if cluster != session.scalar(sa.select(ImageRow.cluster_id).filter_by(id=undone.other_id)):
        return
    members = sorted(session.scalars(sa.select(ImageRow.id).filter_by(cluster_id=cluster)))
    inside = set(members)
    words = [one for one in session.scalars(_active().filter_by(same=True)) if one.one_id in inside]
    ties = links_within(_as_they_came(members, [undone, *words]))
    ties += [(one.one_id, one.other_id) for one in words if one.other_id in inside]
    groups = merge_clusters(ties, separated_images(session))
    tied = {image for group in groups.values() for image in group}
    parts = [*groups.values(), *([image] for image in members if image not in tied)]
    for part in sorted(parts)[1:]:
        _move(session, part, create_cluster(session))


def _as_they_came(members: Sequence[int], words: Iterable[PairDecision]) -> list[list[int]]:
    """MEMBERS in groups: those that the same of people's WORDS brought in."""
    brought = [set(json.loads(one.moved)) for one in words]
    groups: dict[tuple[bool, ...], list[int]] = {}
    for image in members:
        groups.setdefault(tuple(image in moved for moved in brought), []).append(image)
    return list(groups.values())
