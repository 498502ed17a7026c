"""What must stay in one split: copies, possible copies, a product's or post's, an author's (pure).

A tie is a thing that several photos share; photos linked through others are one group.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dataset.duplicates.clusters import connected
from dataset.selection.candidates import Candidate
from dataset.selection.splits import SPLITS

LINKS_TWO_SPLITS = "tied to photos of two splits"


@dataclass(frozen=True)
class ImageLinks:
    """Ties of COUNT photos: photo `photo[i]` has the tie `tie[i]`; both (n,) int64, by place."""

    count: int
    photo: np.ndarray
    tie: np.ndarray

    def groups(self) -> np.ndarray:
        """For each photo the number of its group."""
        ties = int(self.tie.max()) + 1 if len(self.tie) else 0
        return connected(self.count + ties, self.photo, self.count + self.tie)[: self.count]


def link_images(photos: Sequence[Candidate], alike: np.ndarray) -> ImageLinks:
    """The ties of PHOTOS by posts, authors, and ALIKE: (n, 2) ids of images that look alike."""
    numbers: dict[object, int] = {}
    photo, tie = [], []
    for place, one in enumerate(photos):
        for post in one.posts:
            photo.append(place)
            tie.append(numbers.setdefault(post.id, len(numbers)))
            if post.author:
                photo.append(place)
                tie.append(numbers.setdefault((post.site, post.author), len(numbers)))
    place_of = {image: place for place, one in enumerate(photos) for image in one.copies}
    pairs = [
        (place_of[one], place_of[other])
        for one, other in alike.tolist()
        if one in place_of and other in place_of
    ]
    return add_links(
        ImageLinks(len(photos), np.array(photo, np.int64), np.array(tie, np.int64)), pairs
    )


def add_links(ties: ImageLinks, pairs: Sequence[tuple[int, int]]) -> ImageLinks:
    """TIES, and one more for each of PAIRS of places."""
    first = int(ties.tie.max()) + 1 if len(ties.tie) else 0
    more = np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)
    return ImageLinks(
        ties.count,
        np.concatenate([ties.photo, more.reshape(-1)]),
        np.concatenate([ties.tie, np.repeat(np.arange(first, first + len(more)), 2)]),
    )


@dataclass(frozen=True)
class GroupAssignment:
    """For each photo its group, the split that groups keep, and photos torn between two splits."""

    groups: np.ndarray
    fixed: Mapping[int, str]
    torn: frozenset[int]


def assign_groups(ties: ImageLinks, kept: Mapping[int, str]) -> GroupAssignment:
    """Groups of photos, where those of KEPT (place -> split) stay where they were.

    A group that earlier builds put into two splits, because nothing tied it then, is parted again:
    each tie belongs to one split, and photos with ties of two are torn.
    """
    groups = ties.groups()
    splits: dict[int, set[str]] = {}
    for place, split in kept.items():
        splits.setdefault(int(groups[place]), set()).add(split)
    fixed = {number: next(iter(found)) for number, found in splits.items() if len(found) == 1}
    parted = [number for number, found in splits.items() if len(found) > 1]
    if not parted:
        return GroupAssignment(groups, fixed, frozenset())
    places, torn = _divide(ties, np.isin(groups, parted), kept)
    groups = groups.copy()
    first = int(groups.max()) + 1
    for place, split in places.items():
        groups[place] = first + SPLITS.index(split)
    fixed |= {first + number: split for number, split in enumerate(SPLITS)}
    return GroupAssignment(groups, fixed, torn)


def _divide(
    ties: ImageLinks, among: np.ndarray, kept: Mapping[int, str]
) -> tuple[dict[int, str], frozenset[int]]:
    """The split of each photo AMONG which there are two, and the photos that can have none."""
    ties_of_photo: dict[int, list[int]] = {}
    photos_of_tie: dict[int, list[int]] = {}
    for photo, tie in zip(ties.photo.tolist(), ties.tie.tolist(), strict=True):
        if among[photo]:
            ties_of_photo.setdefault(photo, []).append(tie)
            photos_of_tie.setdefault(tie, []).append(photo)
    owner = {tie: split for tie, split in _majority_splits(photos_of_tie, kept).items() if split}
    places: dict[int, str] = {}
    torn: set[int] = set()
    waiting = deque(photo for photo in sorted(ties_of_photo) if photo in kept)
    reached = set(waiting)
    while waiting:
        photo = waiting.popleft()
        owners = {owner[tie] for tie in ties_of_photo[photo] if tie in owner}
        if photo in kept:
            owners.add(kept[photo])
        if len(owners) > 1:
            torn.add(photo)
            continue
        places[photo] = owners.pop()
        for tie in ties_of_photo[photo]:
            owner[tie] = places[photo]
            new = [other for other in photos_of_tie[tie] if other not in reached]
            reached.update(new)
            waiting.extend(new)
    return places, frozenset(torn)


def _majority_splits(
    photos_of_tie: Mapping[int, Sequence[int]], kept: Mapping[int, str]
) -> dict[int, str | None]:
    """The split that each tie belongs to: of most of its kept photos, else the later split."""
    found: dict[int, str | None] = {}
    for tie, photos in photos_of_tie.items():
        count = Counter(kept[photo] for photo in photos if photo in kept)
        found[tie] = max(count, key=lambda s: (count[s], SPLITS.index(s))) if count else None
    return found
