"""People's decisions on pairs of images: near duplicates, or different photos for good."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import Cluster, ImageRow, PairDecision, Separation, now
from dataset.catalogue.queries import in_batches
from dataset.duplicates.clusters import links_within, merge_clusters


def decide_pair(
    session: Session,
    first: int,
    second: int,
    same: bool,
    who: str,
    made: datetime | None = None,
) -> PairDecision:
    """Save a decision on two images, which replaces an earlier one.

    Args:
        session: The session.
        first: One image.
        second: The other image.
        same: Whether they are near duplicates. Then their clusters are merged; otherwise they are
            never in one cluster again.
        who: Who decided.
        made: When it was decided; now by default.
    """
    low, high = sorted((first, second))
    for earlier in session.scalars(_active().filter_by(one_id=low, other_id=high)).all():
        undo_decision(session, earlier)
    moved = _merge(session, low, high) if same else []
    decision = PairDecision(
        one_id=low, other_id=high, same=same, moved=json.dumps(moved), who=who, made=made or now()
    )
    session.add(decision)
    session.flush()
    return decision


def undo_decision(session: Session, decision: PairDecision) -> None:
    """Undo a decision, and split the cluster that it merged unless something else links it."""
    decision.undone = now()
    session.flush()
    if json.loads(decision.moved):
        _split(session, decision)


def import_decision(
    session: Session, decision: PairDecision, pair: tuple[int, int], image_ids: Mapping[int, int]
) -> None:
    """Add a decision of another catalogue, unless it is known or a later one is.

    Args:
        session: The session.
        decision: The decision.
        pair: The ids of its images in this catalogue, in order.
        image_ids: Id in the other catalogue -> id in this one.
    """
    known = sa.select(PairDecision.id).filter_by(one_id=pair[0], other_id=pair[1])
    later = known.where(PairDecision.undone.is_(None), PairDecision.made > decision.made)
    is_known = session.scalar(known.filter_by(who=decision.who, made=decision.made))
    if is_known or session.scalar(later):
        return
    moved = json.dumps([image_ids[i] for i in json.loads(decision.moved) if i in image_ids])
    if decision.undone is not None:
        session.add(
            PairDecision(
                one_id=pair[0],
                other_id=pair[1],
                same=decision.same,
                moved=moved,
                who=decision.who,
                made=decision.made,
                undone=decision.undone,
            )
        )
        return
    added = decide_pair(session, *pair, decision.same, decision.who, decision.made)
    if added.moved == "[]":
        # Images that are new in this catalogue were imported in one cluster.
        added.moved = moved


def _active() -> sa.Select:
    return sa.select(PairDecision).where(PairDecision.undone.is_(None)).order_by(PairDecision.id)


def confirmed_pairs(session: Session) -> list[tuple[int, int]]:
    """Return the pairs of images that people have confirmed as near duplicates."""
    decisions = session.scalars(_active().filter_by(same=True))
    return [(decision.one_id, decision.other_id) for decision in decisions]


def separated_images(session: Session) -> dict[int, frozenset[int]]:
    """Return the images that people have separated.

    Returns:
        Image -> numbers of separations: two images that share one must not be in one cluster.
        Positive numbers are ids of undone clusters, negative ones those of pair decisions.
    """
    separations: dict[int, set[int]] = {}
    for image, cluster in session.execute(sa.select(Separation.image_id, Separation.cluster_id)):
        separations.setdefault(image, set()).add(cluster)
    for decision in session.scalars(_active().filter_by(same=False)):
        for image in (decision.one_id, decision.other_id):
            separations.setdefault(image, set()).add(-decision.id)
    return {image: frozenset(numbers) for image, numbers in separations.items()}


def create_cluster(session: Session) -> int:
    """Add an empty cluster and return its id."""
    cluster = Cluster()
    session.add(cluster)
    session.flush()
    return cluster.id


def _merge(session: Session, first: int, second: int) -> list[int]:
    """Merge the clusters of two images; returns the images that changed theirs."""
    clusters = _clusters(session, (first, second))
    kept, merged = min(clusters.values()), max(clusters.values())
    if kept == merged:
        return []
    moved = list(session.scalars(sa.select(ImageRow.id).filter_by(cluster_id=merged)))
    _move(session, moved, kept)
    return moved


def _clusters(session: Session, images: Sequence[int]) -> dict[int, int]:
    """Return the cluster of each image, creating those that are missing."""
    clusters = {}
    for image in session.scalars(sa.select(ImageRow).where(ImageRow.id.in_(images))):
        if image.cluster_id is None:
            image.cluster_id = create_cluster(session)
        clusters[image.id] = image.cluster_id
    return clusters


def _move(session: Session, images: Sequence[int], cluster: int) -> None:
    for batch in in_batches(images):
        session.execute(
            sa.update(ImageRow).where(ImageRow.id.in_(batch)).values(cluster_id=cluster)
        )


def _split(session: Session, undone: PairDecision) -> None:
    """Split a cluster into what it was before an undone decision and other decisions merged it."""
    cluster = session.scalar(sa.select(ImageRow.cluster_id).filter_by(id=undone.one_id))
    if cluster != session.scalar(sa.select(ImageRow.cluster_id).filter_by(id=undone.other_id)):
        return
    members = sorted(session.scalars(sa.select(ImageRow.id).filter_by(cluster_id=cluster)))
    is_member = set(members).__contains__
    decisions = [
        decision
        for decision in session.scalars(_active().filter_by(same=True))
        if is_member(decision.one_id)
    ]
    links = links_within(_groups_before(members, [undone, *decisions]))
    links += [
        (decision.one_id, decision.other_id)
        for decision in decisions
        if is_member(decision.other_id)
    ]
    clusters = merge_clusters(links, separated_images(session))
    linked = {image for group in clusters.values() for image in group}
    groups = [*clusters.values(), *([image] for image in members if image not in linked)]
    for group in sorted(groups)[1:]:
        _move(session, group, create_cluster(session))


def _groups_before(members: Sequence[int], decisions: Iterable[PairDecision]) -> list[list[int]]:
    """Group the members of a cluster by the decisions that moved them into it."""
    moved_by = [set(json.loads(decision.moved)) for decision in decisions]
    groups: dict[tuple[bool, ...], list[int]] = {}
    for image in members:
        groups.setdefault(tuple(image in moved for moved in moved_by), []).append(image)
    return list(groups.values())
