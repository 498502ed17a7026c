"""The split that each image keeps, in the catalogue: a later and larger build moves none."""

from collections.abc import Iterable, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.queries import in_parts
from dataset.catalogue.tables import KeptSplit


def scheme_of(shares: Sequence[float], seed: int) -> str:
    """What builds have in common whose images keep their splits: SHARES and SEED."""
    whole = sum(shares)
    return f"{seed}:" + ",".join(f"{share / whole:.6g}" for share in shares)


def load(session: Session, scheme: str) -> dict[int, str]:
    """Image -> split of all builds of SCHEME so far."""
    rows = session.execute(
        sa.select(KeptSplit.image_id, KeptSplit.split).where(KeptSplit.scheme == scheme)
    )
    return {image: split for image, split in rows}  # noqa: C416


def keep(session: Session, scheme: str, splits: Iterable[tuple[int, str]], afresh: bool) -> None:
    """Keep SPLITS, of images by their ids; AFRESH forgets all others of SCHEME."""
    wanted = dict(splits)
    if afresh:
        session.execute(sa.delete(KeptSplit).where(KeptSplit.scheme == scheme))
        known: dict[int, str] = {}
    else:
        known = load(session, scheme)
    new = [
        {"scheme": scheme, "image_id": image, "split": split}
        for image, split in wanted.items()
        if known.get(image) != split
    ]
    changed = [row["image_id"] for row in new if row["image_id"] in known]
    for part in in_parts(changed):
        session.execute(
            sa.delete(KeptSplit).where(KeptSplit.scheme == scheme, KeptSplit.image_id.in_(part))
        )
    if new:
        session.execute(sa.insert(KeptSplit), new)
