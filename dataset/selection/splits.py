"""Group images that must stay in one split, and assign the groups to train, validation and test.

Two images are linked when they share a post or product, an author, or are near duplicates. A group
is a connected component of these links: all its images belong to one split. Images keep the splits
of earlier builds.
"""

import itertools
import random
from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import sqlalchemy as sa
from sqlalchemy.orm import Session

from dataset.catalogue.models import KeptSplit
from dataset.catalogue.queries import in_batches
from dataset.duplicates.clusters import connected
from dataset.selection.candidates import Candidate

SPLITS = ("train", "validation", "test")
# Deviations from the requested proportion of a label are reported from here on.
MAX_DEVIATION = 0.01
# Pseudo-label of every item, which keeps the split sizes balanced. Sorts after all labels.
EVERY_ITEM = "\U0010ffff"
REBALANCING_PASSES = 3
LINKS_TWO_SPLITS = "links two splits"


@dataclass(frozen=True)
class ImageLinks:
    """Links between images as a bipartite graph of images and what they share.

    Attributes:
        count: Number of images.
        image: Index of an image for each edge, int64 array of shape (n,).
        link: Id of a shared post, author or duplicate pair for each edge, int64 array of
            shape (n,).
        first_pair: Ids of links from this one on are duplicate pairs.
    """

    count: int
    image: np.ndarray
    link: np.ndarray
    first_pair: int = 0

    def groups(self) -> np.ndarray:
        """Return the group number of each image, an array of shape (count,)."""
        links = int(self.link.max()) + 1 if len(self.link) else 0
        return connected(self.count + links, self.image, self.count + self.link)[: self.count]


def link_images(photos: Sequence[Candidate], near_duplicates: np.ndarray) -> ImageLinks:
    """Link images by posts, authors and near duplicates.

    Args:
        photos: Candidates, one per cluster.
        near_duplicates: Pairs of image ids, an int array of shape (n, 2).
    """
    link_ids: dict[object, int] = {}
    image, link = [], []
    for index, photo in enumerate(photos):
        for post in photo.posts:
            image.append(index)
            link.append(link_ids.setdefault(post.id, len(link_ids)))
            if post.author:
                image.append(index)
                link.append(link_ids.setdefault((post.site, post.author), len(link_ids)))
    index_of = {copy: index for index, photo in enumerate(photos) for copy in photo.copies}
    pairs = [
        (index_of[first], index_of[second])
        for first, second in near_duplicates.tolist()
        if first in index_of and second in index_of
    ]
    links = ImageLinks(
        len(photos), np.array(image, np.int64), np.array(link, np.int64), len(link_ids)
    )
    return add_links(links, pairs)


def add_links(links: ImageLinks, pairs: Sequence[tuple[int, int]]) -> ImageLinks:
    """Return the links with one more for each pair of image indices."""
    first = int(links.link.max()) + 1 if len(links.link) else 0
    more = np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)
    return ImageLinks(
        links.count,
        np.concatenate([links.image, more.reshape(-1)]),
        np.concatenate([links.link, np.repeat(np.arange(first, first + len(more)), 2)]),
        links.first_pair,
    )


@dataclass(frozen=True)
class GroupAssignment:
    """The groups of a build.

    Attributes:
        groups: Group number of each image, int array of shape (n,).
        fixed: Group number -> the split that the group keeps from earlier builds.
        conflicting: Indices of images that link two splits and can be in neither.
    """

    groups: np.ndarray
    fixed: Mapping[int, str]
    conflicting: frozenset[int]


def assign_groups(links: ImageLinks, kept: Mapping[int, str]) -> GroupAssignment:
    """Group images, keeping the splits of earlier builds.

    New links can join groups that earlier builds put into different splits. Such a group is
    divided again: each link belongs to one split, and new images with links of two are conflicting.
    Images of earlier builds keep their split, except those that match an image of another split.

    Args:
        links: Links between the images.
        kept: Image index -> split in earlier builds.
    """
    groups = links.groups()
    splits_of_group: dict[int, set[str]] = {}
    for index, split in kept.items():
        splits_of_group.setdefault(int(groups[index]), set()).add(split)
    fixed = {
        group: next(iter(splits)) for group, splits in splits_of_group.items() if len(splits) == 1
    }
    to_divide = [group for group, splits in splits_of_group.items() if len(splits) > 1]
    if not to_divide:
        return GroupAssignment(groups, fixed, frozenset())
    split_of_image, conflicting = _divide(links, np.isin(groups, to_divide), kept)
    groups = groups.copy()
    first = int(groups.max()) + 1
    for index, split in split_of_image.items():
        groups[index] = first + SPLITS.index(split)
    fixed |= {first + number: split for number, split in enumerate(SPLITS)}
    return GroupAssignment(groups, fixed, conflicting)


def _divide(
    links: ImageLinks, selected: np.ndarray, kept: Mapping[int, str]
) -> tuple[dict[int, str], frozenset[int]]:
    """Divide groups that span splits, breadth first from the images with known splits.

    Args:
        links: Links between all images.
        selected: Whether an image is in such a group, bool array of shape (count,).
        kept: Image index -> split in earlier builds.

    Returns:
        The split of each selected image that has one, and the conflicting images.
    """
    links_of_image: dict[int, list[int]] = {}
    images_of_link: dict[int, list[int]] = {}
    for image, link in zip(links.image.tolist(), links.link.tolist(), strict=True):
        if selected[image]:
            links_of_image.setdefault(image, []).append(link)
            images_of_link.setdefault(link, []).append(image)
    split_of_link = {
        link: split for link, split in _majority_splits(images_of_link, kept).items() if split
    }
    split_of_image: dict[int, str] = {}
    conflicting: set[int] = set()
    queue = deque(image for image in sorted(links_of_image) if image in kept)
    visited = set(queue)
    while queue:
        image = queue.popleft()
        known = [link for link in links_of_image[image] if link in split_of_link]
        if image in kept:
            # An image that keeps its split is excluded for near duplicates only: a repost by an
            # account with images in other splits does not count.
            known = [link for link in known if link >= links.first_pair]
            splits = {kept[image]}
        else:
            splits = set()
        splits |= {split_of_link[link] for link in known}
        if len(splits) > 1:
            conflicting.add(image)
            continue
        split_of_image[image] = splits.pop()
        for link in links_of_image[image]:
            split_of_link.setdefault(link, split_of_image[image])
            neighbors = [other for other in images_of_link[link] if other not in visited]
            visited.update(neighbors)
            queue.extend(neighbors)
    return split_of_image, frozenset(conflicting)


def _majority_splits(
    images_of_link: Mapping[int, Sequence[int]], kept: Mapping[int, str]
) -> dict[int, str | None]:
    """Return the split of most kept images of each link, the later split where they are even."""
    majority: dict[int, str | None] = {}
    for link, images in images_of_link.items():
        count = Counter(kept[image] for image in images if image in kept)
        majority[link] = max(count, key=lambda s: (count[s], SPLITS.index(s))) if count else None
    return majority


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
    labels_of_group = _count_labels(groups, [(label,) for label in labels])
    targets = _target_counts(Counter(labels), proportions)
    assigned, counts = _assign_fixed(labels_of_group, fixed or {})
    draws = _draw_order(groups, seed)
    order = {group: (-labels_of_group[group].total(), draw) for group, draw in draws.items()}
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


def assign_multi_label_splits(
    groups: Sequence[int],
    labels: Sequence[Sequence[str]],
    proportions: Sequence[float],
    seed: int,
    fixed: Mapping[int, str] | None = None,
) -> list[str]:
    """Assign a split to each item with several labels: stratified by label, whole groups only.

    Iterative stratification: the label with the fewest items left is distributed first, its largest
    groups first, each to the split that lacks most items of the label, among such splits to the one
    that lacks most items. At the end groups move where that reduces deviations.

    Sechidis et al., "On the Stratification of Multi-Label Data", ECML PKDD 2011,
    https://doi.org/10.1007/978-3-642-23808-6_10. The paper distributes single items.

    Args:
        groups: Group number of each item.
        labels: Labels of each item, at least one.
        proportions: Relative sizes of the splits, in the order of `SPLITS`.
        seed: Random seed of the order of groups of equal size.
        fixed: Group number -> split, for groups that keep theirs.

    Returns:
        The split of each item.
    """
    # A label that every item has keeps the sizes of the splits.
    counted = [(*names, EVERY_ITEM) for names in labels]
    labels_of_group = _count_labels(groups, counted)
    targets = _target_counts(Counter(itertools.chain.from_iterable(counted)), proportions)
    assigned, counts = _assign_fixed(labels_of_group, fixed or {})
    draws = _draw_order(groups, seed)
    free = sorted(draws.keys() - assigned.keys(), key=draws.__getitem__)
    remaining: Counter[str] = Counter()
    groups_of_label: dict[str, list[int]] = defaultdict(list)
    for group in free:
        remaining.update(labels_of_group[group])
        for label in labels_of_group[group]:
            groups_of_label[label].append(group)
    allowed = [split for split, proportion in zip(SPLITS, proportions, strict=True) if proportion]

    def preference(label: str, size: int, split: str) -> tuple[bool, float, float]:
        target, count = targets[split][label], counts[split][label]
        room = targets[split][EVERY_ITEM] - counts[split][EVERY_ITEM]
        # With the paper's method a split can get no item of a rare label, so the first items of a
        # label go to splits that have none.
        return count == 0 and size <= max(1, target), target - count, room

    while remaining:
        label = min(remaining, key=lambda name: (remaining[name], name))
        members = [group for group in groups_of_label[label] if group not in assigned]
        for group in sorted(members, key=lambda group: -labels_of_group[group][label]):
            split = max(allowed, key=partial(preference, label, labels_of_group[group][label]))
            assigned[group] = split
            counts[split] += labels_of_group[group]
            remaining -= labels_of_group[group]
    for _ in range(REBALANCING_PASSES):
        _rebalance(free, assigned, labels_of_group, targets, counts)
    return [assigned[group] for group in groups]


def _count_labels(
    groups: Sequence[int], labels: Sequence[Sequence[str]]
) -> dict[int, Counter[str]]:
    """Return group number -> number of its items per label."""
    labels_of_group: dict[int, Counter[str]] = defaultdict(Counter)
    for group, names in zip(groups, labels, strict=True):
        labels_of_group[group].update(names)
    return labels_of_group


def _assign_fixed(
    labels_of_group: Mapping[int, Counter[str]], fixed: Mapping[int, str]
) -> tuple[dict[int, str], dict[str, Counter[str]]]:
    """Return the groups that keep their splits, and the labels in each split."""
    assigned = {group: split for group, split in fixed.items() if group in labels_of_group}
    counts: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
    for group, split in assigned.items():
        counts[split] += labels_of_group[group]
    return assigned, counts


def _draw_order(groups: Sequence[int], seed: int) -> dict[int, float]:
    """Return a random number for each group, which orders groups of equal size."""
    # One draw per item, of which the group's first counts: when two groups become one, the draws
    # of all others stay as they are.
    generator, draws = random.Random(seed), dict[int, float]()
    for group in groups:
        draw = generator.random()
        draws[group] = draws.get(group) or draw
    return draws


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
    fixed: Collection[int] = (),
) -> list[str]:
    """Describe each label and split that is more than `MAX_DEVIATION` and one item off.

    An item with several labels is there once per label.

    Args:
        groups: The group of each item.
        labels: Its label.
        splits: Its split.
        proportions: The requested proportions of the splits.
        fixed: Groups that stay in the split of an earlier build.
    """
    sizes, total = Counter(labels), sum(proportions)
    count = Counter(zip(labels, splits, strict=True))
    largest = _largest_groups(groups, labels)
    kept = Counter(label for group, label in zip(groups, labels, strict=True) if group in fixed)
    deviations = []
    for label in sorted(sizes):
        for split, proportion in zip(SPLITS, proportions, strict=True):
            off = count[label, split] - sizes[label] * proportion / total
            if abs(off) >= 1 and abs(off) > MAX_DEVIATION * sizes[label]:
                deviations.append(
                    f"{label}: {split} has {count[label, split] / sizes[label]:.1%} rather than"
                    f" {proportion / total:.1%} of {sizes[label]};"
                    f" {_describe_cause(largest[label], kept[label])}"
                )
    return deviations


def _describe_cause(largest: int, kept: int) -> str:
    """Return why a label deviates: its largest group, and its items with a split of a build."""
    together = f"groups that stay together hold up to {largest} of them"
    if not kept:
        return together
    earlier = f"{kept} of them stay in the splits of earlier builds, which --new-splits ignores"
    return f"{earlier}, and {together}" if largest > 1 else earlier


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
