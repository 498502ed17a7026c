"""Save the results of downloads in the catalogue, a batch in a few statements.

Each function is one step of a transaction that the caller commits.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import Cluster, ImageRow, Sighting, now
from dataset.catalogue.queries import in_batches, table_of
from dataset.duplicates.index import FingerprintIndex, duplicate_of, save_new
from scraper.examining import Fetched, Refused

Outcome = Fetched | Refused
NEW, EXACT, NEAR = "new", "exact duplicate", "near duplicate"
# Made once: to make a statement takes longer than to run it.
_IMAGES, _SIGHTINGS, _CLUSTERS = map(table_of, (ImageRow, Sighting, Cluster))
_KNOWN = sa.select(_IMAGES.c.sha256, _IMAGES.c.id, _IMAGES.c.state).where(
    _IMAGES.c.sha256.in_(sa.bindparam("digests", expanding=True))
)
_STORE = sa.update(_IMAGES).where(_IMAGES.c.id == sa.bindparam("at"))
_MAKE = sa.insert(_IMAGES).returning(_IMAGES.c.sha256, _IMAGES.c.id)
_CLUSTER_OF = sa.select(_IMAGES.c.id, _IMAGES.c.cluster_id).where(
    _IMAGES.c.id.in_(sa.bindparam("images", expanding=True)), _IMAGES.c.cluster_id.is_not(None)
)
_MAKE_CLUSTER = sa.insert(_CLUSTERS).returning(_CLUSTERS.c.id)
_JOIN_CLUSTER = _STORE.values(cluster_id=sa.bindparam("cluster"))
_WANTED = _SIGHTINGS.c.state == "pending"
_HELD = (_WANTED, _SIGHTINGS.c.worker_id > 0)
_CLAIMED = sa.select(_SIGHTINGS.c.url).where(
    _SIGHTINGS.c.url.in_(sa.bindparam("urls", expanding=True)), *_HELD
)
_SETTLE = (
    sa.update(_SIGHTINGS)
    .where(_SIGHTINGS.c.url == sa.bindparam("at"), _WANTED)
    .values(
        state=sa.bindparam("to"),
        reason=sa.bindparam("why"),
        image_id=sa.bindparam("image"),
        worker_id=None,
    )
)
_SETTLE_CLAIMED = _SETTLE.where(*_HELD)


def settle(
    session: Session, outcomes: Sequence[tuple[str, Outcome]], known: FingerprintIndex
) -> list[str | Refused]:
    """Keep OUTCOMES, each with its address, for every post that shows it.

    Returns of each whether the photo is new, an exact or a near duplicate, or why it is refused.
    """
    images = _images(session, [one.sha256 for _, one in outcomes if one.sha256])
    fresh = {
        one.sha256: one
        for _, one in outcomes
        if isinstance(one, Fetched) and images.get(one.sha256, ("", ""))[1] != "stored"
    }
    numbers = {sha256: number for sha256, (number, _) in images.items()}
    numbers |= _put(session, [one for _, one in outcomes if one.sha256], numbers, fresh)
    folded = _fold(session, fresh, numbers, known)
    _settle(session, [(url, one, numbers.get(one.sha256 or "")) for url, one in outcomes])
    said = []
    for _, one in outcomes:
        # The same bytes twice in one batch are new once.
        first = fresh.pop(one.sha256, None) if isinstance(one, Fetched) else None
        same = (NEAR if one.sha256 in folded else NEW) if first else EXACT
        said.append(one if isinstance(one, Refused) else same)
    return said


def _images(session: Session, digests: Sequence[str]) -> dict[str, tuple[int, str]]:
    """Id and state of the images of DIGESTS that are known."""
    found: dict[str, tuple[int, str]] = {}
    for part in in_batches(digests):
        for sha256, number, state in session.connection().execute(_KNOWN, {"digests": part}):
            found[sha256] = (number, state)
    return found


def _put(
    session: Session,
    outcomes: Sequence[Outcome],
    known: Mapping[str, int],
    fresh: Mapping[str, Fetched],
) -> dict[str, int]:
    """Rows for OUTCOMES whose bytes came and are not KNOWN; ids by digest.

    Those of FRESH that are known were refused before, and are stored now.
    """
    for one in fresh.values():
        if one.sha256 in known:
            again = _STORE.values(_stored(one))
            session.connection().execute(again, {"at": known[one.sha256]})
    rows = {
        str(one.sha256): _stored(one) if isinstance(one, Fetched) else _refused(one)
        for one in outcomes
        if one.sha256 not in known
    }
    if not rows:
        return {}
    found = session.connection().execute(_MAKE, list(rows.values()))
    return {sha256: number for sha256, number in found}  # noqa: C416


def _stored(one: Fetched) -> dict[str, Any]:
    names = ("sha256", "phash", "format", "bytes", "width", "height", "store_key")
    told = {name: getattr(one, name) for name in names}
    return {**told, "state": "stored", "reason": None, "fetched": now()}


def _refused(one: Refused) -> dict[str, Any]:
    told = dict.fromkeys(("phash", "format", "width", "height", "store_key"))
    named = {"sha256": one.sha256, "bytes": one.bytes, "reason": one.reason}
    return {**told, **named, "state": "rejected", "fetched": now()}


def _fold(
    session: Session,
    fresh: Mapping[str, Fetched],
    numbers: Mapping[str, int],
    known: FingerprintIndex,
) -> set[str]:
    """Give the images of FRESH their clusters; digests of those that are copies."""
    new = {numbers[sha256]: one.fingerprint for sha256, one in fresh.items()}
    alike = known.find(session, new)
    save_new(session, new, alike)
    originals = {number: duplicate_of(found) for number, found in alike.items()}
    clusters = _clusters(session, [one for one in originals.values() if one is not None])
    own = [number for number, original in originals.items() if original is None]
    clusters |= dict(zip(own, _new_clusters(session, len(own)), strict=True))
    for number, original in originals.items():
        if original is not None:
            clusters[number] = clusters[original]
    if originals:
        rows = [{"at": number, "cluster": clusters[number]} for number in originals]
        session.connection().execute(_JOIN_CLUSTER, rows)
    return {sha256 for sha256 in fresh if originals[numbers[sha256]] is not None}


def _clusters(session: Session, images: Sequence[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for part in in_batches(images):
        rows = session.connection().execute(_CLUSTER_OF, {"images": part})
        found |= {number: cluster for number, cluster in rows}  # noqa: C416
    return found


def _new_clusters(session: Session, count: int) -> Sequence[int]:
    if not count:
        return []
    rows = [{"made": now()}] * count
    return session.connection().execute(_MAKE_CLUSTER, rows).scalars().all()


def _settle(session: Session, outcomes: Sequence[tuple[str, Outcome, int | None]]) -> None:
    """Mark the photos of OUTCOMES, each with its image, in every post that shows them."""
    claimed: set[str] = set()
    for part in in_batches(url for url, _, _ in outcomes):
        claimed.update(session.connection().execute(_CLAIMED, {"urls": part}).scalars())
    # Posts that came since may have another tag, which may have its images: see claims.py. We
    # may have been taken for dead, and nobody has fetched it since: then it is all of them.
    for is_claimed, statement in ((True, _SETTLE_CLAIMED), (False, _SETTLE)):
        rows = [
            {
                "at": url,
                "to": "stored" if isinstance(one, Fetched) else "rejected",
                "why": None if isinstance(one, Fetched) else one.reason,
                "image": image,
            }
            for url, one, image in outcomes
            if (url in claimed) is is_claimed
        ]
        if rows:
            session.connection().execute(statement, rows)
