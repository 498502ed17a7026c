"""What `catalogue import` takes over of two images each: likeness, and people's words on it."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue import pairs
from dataset.catalogue.review_tables import PairDecision
from dataset.catalogue.tables import ImageRow, ResemblanceRow, Separation


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
    for row in source.scalars(sa.select(ResemblanceRow)):
        if pair := _pair(row, here):
            session.merge(
                ResemblanceRow(
                    **values_of(row, "one_id", "other_id"), one_id=pair[0], other_id=pair[1]
                )
            )
    _merge_separations(session, source, here)
    for word in source.scalars(sa.select(PairDecision).order_by(PairDecision.id)):
        if pair := _pair(word, here):
            pairs.bring(session, word, pair, here)


def _merge_separations(session: Session, source: Session, here: Mapping[int, int]) -> None:
    """Images that a person took apart there stay apart here, under a number of ours."""
    apart: dict[int, list[Separation]] = {}
    for row in source.scalars(sa.select(Separation).order_by(Separation.image_id)):
        if row.image_id in here:
            apart.setdefault(row.cluster_id, []).append(row)
    known = pairs.kept_apart(session) if apart else {}
    for rows in apart.values():
        images = {here[row.image_id] for row in rows}
        ours = [known.get(image, frozenset()) for image in images]
        if len(images) < 2 or frozenset.intersection(*ours):
            continue
        number = pairs.new_cluster(session)
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
