"""Assign groups of images to train, validation and test, and keep the splits of earlier builds."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import KeptSplit
from dataset.catalogue.queries import in_batches

SPLITS = ("train", "validation", "test")
# Deviations from the requested proportion of a label are reported from here on.
MAX_DEVIATION = 0.01


def assign_splits(
    groups: Sequence[int],
    labels: Sequence[str],
    proportions: Sequence[float],
    seed: int,
    fixed: Mapping[int, str] | None = None,
) -> list[str]:
    """Assign a split to each item: stratified by label, whole groups only.

    Large groups are assigned first, each to the split with the largest shortfall of the group's
    labels. A label with enough items has at least one in every split with a proportion above 0.

    Args:
        groups: Group number of each item.
        labels: Label of each item.
        proportions: Relative sizes of the splits, in the order of `SPLITS`.
        seed: Random seed of the order of groups of equal size.
        fixed: Group number -> split, for groups that keep theirs.

    Returns:
        The split of each item.
    """
    labels_of_group: dict[int, Counter[str]] = defaultdict(Counter)
    for group, label in zip(groups, labels, strict=True):
        labels_of_group[group][label] += 1
    targets = _target_counts(Counter(labels), proportions)
    assigned = {group: split for group, split in (fixed or {}).items() if group in labels_of_group}
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for group, split in assigned.items():
        counts[split] += labels_of_group[group]
    # One draw per item, of which the group's first counts: when two groups become one, the draws
    # of all others stay as they are.
    generator = random.Random(seed)
    order = {group: (-labels_of_group[group].total(), 0.0) for group in labels_of_group}
    for group in groups:
        draw = generator.random()
        order[group] = (order[group][0], order[group][1] or draw)
    free = sorted(order.keys() - assigned.keys(), key=order.__getitem__)
    for group in free:
        best = max(
            SPLITS,
            key=lambda split: _shortfall(labels_of_group[group], targets[split], counts[split]),
        )
        assigned[group] = best
        counts[best] += labels_of_group[group]
    _rebalance(free, assigned, labels_of_group, targets, counts)
    return [assigned[group] for group in groups]


def _rebalance(
    free: Sequence[int],
    assigned: dict[int, str],
    labels_of_group: Mapping[int, Counter[str]],
    targets: Mapping[str, Mapping[str, float]],
    counts: Mapping[str, Counter[str]],
) -> None:
    """Move groups without a fixed split, smallest first, while that reduces the deviations."""
    deviating = {
        label
        for split in SPLITS
        for label, target in targets[split].items()
        if abs(counts[split][label] - target) >= 1
    }
    for group in reversed(free):
        if deviating.isdisjoint(labels_of_group[group]):
            continue
        current = assigned[group]
        best = max(
            SPLITS,
            key=lambda split: _gain(labels_of_group[group], targets, counts, current, split),
        )
        gain = _gain(labels_of_group[group], targets, counts, current, best)
        if best != current and gain > 0:
            assigned[group] = best
            counts[current].subtract(labels_of_group[group])
            counts[best].update(labels_of_group[group])


def _target_counts(
    sizes: Mapping[str, int], proportions: Sequence[float]
) -> dict[str, dict[str, float]]:
    total = sum(proportions)
    return {
        split: {label: size * proportion / total for label, size in sizes.items()}
        for split, proportion in zip(SPLITS, proportions, strict=True)
    }


def _shortfall(
    group_labels: Mapping[str, int], targets: Mapping[str, float], counts: Mapping[str, int]
) -> float:
    """Return the relative shortfall of a split, weighted by the group's labels."""
    shortfall = 0.0
    for label, count in group_labels.items():
        target = targets[label]
        shortfall += count * ((target - counts[label]) / target if target else float("-inf"))
    return shortfall


def _gain(
    group_labels: Mapping[str, int],
    targets: Mapping[str, Mapping[str, float]],
    counts: Mapping[str, Mapping[str, int]],
    source: str,
    destination: str,
) -> float:
    """Return by how many items the deviations shrink if a group moves between two splits."""
    gain = 0.0
    for label, count in group_labels.items():
        at_source, at_destination = counts[source][label], counts[destination][label]
        if source == destination or not targets[destination][label] or at_source <= count:
            # Each split keeps its last items of a label.
            return 0.0
        source_target, destination_target = targets[source][label], targets[destination][label]
        gain += abs(at_source - source_target) - abs(at_source - count - source_target)
        gain += abs(at_destination - destination_target) - abs(
            at_destination + count - destination_target
        )
    return gain


def describe_deviations(
    groups: Sequence[int],
    labels: Sequence[str],
    splits: Sequence[str],
    proportions: Sequence[float],
) -> list[str]:
    """Describe each label and split that is more than `MAX_DEVIATION` and one item off."""
    sizes, total = Counter(labels), sum(proportions)
    count = Counter(zip(labels, splits, strict=True))
    largest = _largest_groups(groups, labels)
    deviations = []
    for label in sorted(sizes):
        for split, proportion in zip(SPLITS, proportions, strict=True):
            off = count[label, split] - sizes[label] * proportion / total
            if abs(off) >= 1 and abs(off) > MAX_DEVIATION * sizes[label]:
                deviations.append(
                    f"{label}: {split} has {count[label, split] / sizes[label]:.1%} rather than"
                    f" {proportion / total:.1%} of {sizes[label]}; groups that stay together hold"
                    f" up to {largest[label]} of them"
                )
    return deviations


def _largest_groups(groups: Sequence[int], labels: Sequence[str]) -> dict[str, int]:
    largest: dict[str, int] = {}
    for (_, label), size in Counter(zip(groups, labels, strict=True)).items():
        largest[label] = max(size, largest.get(label, 0))
    return largest


def split_scheme(proportions: Sequence[float], seed: int) -> str:
    """Return the key under which builds of equal proportions and seed share their splits."""
    total = sum(proportions)
    return f"{seed}:" + ",".join(f"{proportion / total:.6g}" for proportion in proportions)


def load_kept_splits(session: Session, scheme: str) -> dict[int, str]:
    """Load image id -> split of all earlier builds of a scheme."""
    rows = session.execute(
        sa.select(KeptSplit.image_id, KeptSplit.split).where(KeptSplit.scheme == scheme)
    )
    return {image: split for image, split in rows}  # noqa: C416


def save_kept_splits(
    session: Session, scheme: str, splits: Iterable[tuple[int, str]], replace: bool
) -> None:
    """Save the splits of images, so that later builds keep them.

    Args:
        session: Session on the catalogue.
        scheme: Key of `split_scheme`.
        splits: Image ids with their splits.
        replace: Whether all other splits of the scheme are deleted.
    """
    wanted = dict(splits)
    if replace:
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
    for ids in in_batches(changed):
        session.execute(
            sa.delete(KeptSplit).where(KeptSplit.scheme == scheme, KeptSplit.image_id.in_(ids))
        )
    if new:
        session.execute(sa.insert(KeptSplit), new)
