"""What a run's model and training photos say of the photos of items."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from model.calibration import softmax
from model.checked import Look, Sight, Store
from model.items import Item
from model.judge import Judge, Looked
from model.product_feed import levels
from model.reference import Reference
from model.seeing import Seen

NEAREST = 3
LOOKS_LIKE_NOTHING = "unlike all photos that the model learned from"


def sights_of(
    items: Sequence[Item],
    photos: Mapping[int, Seen],
    judge: Judge,
    reference: Reference,
    store: Store,
) -> dict[int, Sight]:
    """What is seen in PHOTOS, by the numbers of their ITEMS; those shown before are in STORE."""
    pixels = {n: one.pixels for n, one in photos.items() if one.pixels is not None}
    numbers = list(pixels)
    sights = {n: Sight(one.problem) for n, one in photos.items() if one.problem}
    if numbers:
        looked = judge.look(np.stack(list(pixels.values())))
        digests = [photos[number].sha256 for number in numbers]
        near = reference.nearest(looked.outputs, digests, NEAREST)
        for place, number in enumerate(numbers):
            shares = _shares(photos[number], looked, place, reference)
            nothing = photos[number].blank
            if not nothing and near[place] and near[place][0].likeness < reference.least:
                nothing = LOOKS_LIKE_NOTHING
            sights[number] = Sight("", nothing, shares, [_plain(one) for one in near[place]])
    zones = {item.number: item.wanted.zone for item in items if item.wanted}
    fresh = {(photos[n].sha256, zones[n]): sight for n, sight in sights.items()}
    for number, one in photos.items():
        if one.again:
            key = (one.sha256, zones[number])
            known = fresh.get(key) or store.seen_before(*key)
            assert known is not None, "a photo is shown again before it was kept"
            fresh[key] = sights[number] = known
    return sights


def look_at(
    item: Item, photos: Mapping[int, Seen], sights: Mapping[int, Sight], labels: Sequence[str]
) -> Look:
    """ITEM with what is seen of it in SIGHTS, and what is wrong with its photo or its tag."""
    place = _place(item, labels)
    if item.number not in photos:
        return Look(item, place, problem=item.problem)
    sight = sights[item.number]
    unknown = "" if place is not None else f"the model has no label {item.label!r}"
    problem = "" if sight.problem else unknown
    return Look(item, place, photos[item.number].sha256, sight, problem)


def _plain(near: Any) -> dict[str, Any]:
    return {**asdict(near), "likeness": round(near.likeness, 4)}


def _place(item: Item, labels: Sequence[str]) -> int | None:
    """The place of ITEM's label among LABELS, by the vocabulary's name or as it stands there."""
    spelt = (name for level in levels(item.tag) for name in (level, level.casefold()))
    for name in (item.label, *spelt):
        if name in labels:
            return labels.index(name)
    return None


def _shares(seen: Seen, looked: Looked, place: int, reference: Reference) -> np.ndarray:
    """What a model that never saw the photo says of it."""
    known = reference.opinions.get(seen.sha256)
    return softmax(looked.logits[place : place + 1])[0] if known is None else known
