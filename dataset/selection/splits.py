"""Groups of photos -> train, validation and test. Pure: values in, values out."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import KeptSplit
from dataset.catalogue.queries import in_batches

SPLITS = ("train", "validation", "test")
# A share this far from the wished one, in parts of a label, is worth a word.
MAX_DEVIATION = 0.01


def assign_splits(
    groups: Sequence[int],
    labels: Sequence[str],
    shares: Sequence[float],
    seed: int,
    fixed: Mapping[int, str] | None = None,
) -> list[str]:
    """For each item its split: groups stay whole, and each label comes near to SHARES.

    Groups in FIXED stay in that split. Of the others big ones are placed first, each where its
    labels lack most; ties and order follow SEED. A label with an item for every split that has a
    share gets one there.
    """
    counted: dict[int, Counter[str]] = defaultdict(Counter)
    for number, label in zip(groups, labels, strict=True):
        counted[number][label] += 1
    wished = _target_counts(Counter(labels), shares)
    placed = {number: name for number, name in (fixed or {}).items() if number in counted}
    have: dict[str, Counter[str]] = {name: Counter() for name in SPLITS}
    for number, name in placed.items():
        have[name] += counted[number]
    # A draw an item, its group's is the first: two groups that become one leave the others' alone.
    draw = random.Random(seed)
    order = {number: (-counted[number].total(), 0.0) for number in counted}
    for number in groups:
        drawn = draw.random()
        order[number] = (order[number][0], order[number][1] or drawn)
    free = sorted(order.keys() - placed.keys(), key=order.__getitem__)
    for number in free:
        best = max(SPLITS, key=lambda name: _shortfall(counted[number], wished[name], have[name]))
        placed[number] = best
        have[best] += counted[number]
    _rebalance(free, placed, counted, wished, have)
    return [placed[number] for number in groups]


def _rebalance(
    free: Sequence[int],
    placed: dict[int, str],
    counted: Mapping[int, Counter[str]],
    wished: Mapping[str, Mapping[str, float]],
    have: Mapping[str, Counter[str]],
) -> None:
    """Move FREE groups, the smallest first, while that brings labels nearer to their shares."""
    off = {
        label
        for name in SPLITS
        for label, wish in wished[name].items()
        if abs(have[name][label] - wish) >= 1
    }
    for number in reversed(free):
        if off.isdisjoint(counted[number]):
            continue
        now = placed[number]
        best = max(SPLITS, key=lambda name: _gain(counted[number], wished, have, now, name))
        if best != now and _gain(counted[number], wished, have, now, best) > 0:
            placed[number] = best
            have[now].subtract(counted[number])
            have[best].update(counted[number])


def _target_counts(
    sizes: Mapping[str, int], shares: Sequence[float]
) -> dict[str, dict[str, float]]:
    whole = sum(shares)
    return {
        name: {label: size * share / whole for label, size in sizes.items()}
        for name, share in zip(SPLITS, shares, strict=True)
    }


def _shortfall(
    group_labels: Mapping[str, int], wished: Mapping[str, float], have: Mapping[str, int]
) -> float:
    """How much of what it wishes a split still lacks, averaged over the group's labels."""
    lack = 0.0
    for label, count in group_labels.items():
        wish = wished[label]
        lack += count * ((wish - have[label]) / wish if wish else float("-inf"))
    return lack


def _gain(
    group_labels: Mapping[str, int],
    wished: Mapping[str, Mapping[str, float]],
    have: Mapping[str, Mapping[str, int]],
    now: str,
    then: str,
) -> float:
    """By how many items all labels come nearer to their shares when a group moves; else 0."""
    gain = 0.0
    for label, count in group_labels.items():
        from_here, to_there = have[now][label], have[then][label]
        if now == then or not wished[then][label] or from_here <= count:
            # The last items of a label stay: it is to be in every split.
            return 0.0
        wish, other = wished[now][label], wished[then][label]
        gain += abs(from_here - wish) - abs(from_here - count - wish)
        gain += abs(to_there - other) - abs(to_there + count - other)
    return gain


def describe_deviations(
    groups: Sequence[int], labels: Sequence[str], names: Sequence[str], shares: Sequence[float]
) -> list[str]:
    """A sentence for each label and split whose share is over TOLERANCE, and an item, off."""
    sizes, whole = Counter(labels), sum(shares)
    count = Counter(zip(labels, names, strict=True))
    largest = _largest_groups(groups, labels)
    found = []
    for label in sorted(sizes):
        for name, share in zip(SPLITS, shares, strict=True):
            off = count[label, name] - sizes[label] * share / whole
            if abs(off) >= 1 and abs(off) > MAX_DEVIATION * sizes[label]:
                found.append(
                    f"{label}: {name} has {count[label, name] / sizes[label]:.1%} rather than"
                    f" {share / whole:.1%} of {sizes[label]}; groups that stay together hold up to"
                    f" {largest[label]} of them"
                )
    return found


def _largest_groups(groups: Sequence[int], labels: Sequence[str]) -> dict[str, int]:
    largest: dict[str, int] = {}
    for (_, label), size in Counter(zip(groups, labels, strict=True)).items():
        largest[label] = max(size, largest.get(label, 0))
    return largest


def split_scheme(shares: Sequence[float], seed: int) -> str:
    """What builds have in common whose images keep their splits: SHARES and SEED."""
    whole = sum(shares)
    return f"{seed}:" + ",".join(f"{share / whole:.6g}" for share in shares)


def load_kept_splits(session: Session, scheme: str) -> dict[int, str]:
    """Image -> split of all builds of SCHEME so far."""
    rows = session.execute(
        sa.select(KeptSplit.image_id, KeptSplit.split).where(KeptSplit.scheme == scheme)
    )
    return {image: split for image, split in rows}  # noqa: C416


def save_kept_splits(
    session: Session, scheme: str, splits: Iterable[tuple[int, str]], afresh: bool
) -> None:
    """Keep SPLITS, of images by their ids; AFRESH forgets all others of SCHEME."""
    wanted = dict(splits)
    if afresh:
        session.execute(sa.delete(KeptSplit).where(KeptSplit.scheme == scheme))
        known: dict[int, str] = {}
    else:
        known = load_kept_splits(session, scheme)
    new = [
        {"scheme": scheme, "image_id": image, "split": split}
        for image, split in wanted.items()
        if known.get(image) != split
    ]
    changed = [row["image_id"] for row in new if row["image_id"] in known]
    for part in in_batches(changed):
        session.execute(
            sa.delete(KeptSplit).where(KeptSplit.scheme == scheme, KeptSplit.image_id.in_(part))
        )
    if new:
        session.execute(sa.insert(KeptSplit), new)
