"""Group images that must stay in one split.

Two images are linked when they share a post or product, an author, or are near duplicates. A group
is a connected component of these links: all its images belong to one split.
"""

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dataset.duplicates.clusters import connected
from dataset.selection.candidates import Candidate
from dataset.selection.splits import SPLITS

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
    Images of earlier builds keep their split, except those that show the same as an image of
    another split.

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
            # A repost by a stranger, who has images in other splits, does not exclude the image.
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
