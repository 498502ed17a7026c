"""Make training samples of a pose network: augmented views of people with target heat maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from dataset.errors import first_line
from dataset.images.io import Unreadable, open_photo
from dataset.pose.annotations import Person
from dataset.pose.heatmaps import (
    BOX_SCALE,
    UNANNOTATED,
    draw_targets,
    mirror_view,
    person_view,
    render_view,
    to_view,
)
from dataset.pose.models import STRIDE, JointSet

# Relative size of a second person that is pasted into a sample, from smallest to largest.
SECOND_PERSON_SCALE = 0.4, 0.85
# Pixels of images in memory, 3 bytes each.
MAX_CACHED_PIXELS = 400_000_000
# Coordinate of joints in images without people: outside of every view.
OUTSIDE = -1e6
# Fraction of an epoch's samples without people.
EMPTY_FRACTION = 0.15
# Sides of views of images without people, relative to the image.
EMPTY_VIEW_SCALE = 0.4, 1.0
# Mean and standard deviation of ImageNet in the range 0 to 255, as the published networks expect.
MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32) * 255


def normalize(views: np.ndarray) -> np.ndarray:
    """Normalize views as the published networks expect: uint8 (..., 3) to float32."""
    return (views.astype(np.float32) - MEAN) / DEVIATION


@dataclass(frozen=True)
class PoseAugmentation:
    """How views are augmented: Sun et al. 2019, section 4.1, with mmpose's shift and whole images.

    Attributes:
        turn: Standard deviation of the rotation in degrees, at most twice that.
        turned: Fraction of samples that are rotated.
        scale: Standard deviation of the factor for the box.
        part: Fraction of samples that show the upper or the lower half of the joints only.
        shift: Largest shift relative to the box.
        whole: Fraction of samples that show the whole image, as in the first pass of the estimator.
        beside: Fraction of these with another, smaller person, whose joints are not to be found.
        colour: Largest gain of the brightness; a third of it for each channel.
    """

    turn: float = 30.0
    turned: float = 0.6
    scale: float = 0.25
    part: float = 0.3
    shift: float = 0.1
    whole: float = 0.0
    beside: float = 0.25
    colour: float = 0.3


class PhotoCache:
    """Cache opened images, since decoding takes as long as everything else.

    Args:
        room: Number of pixels to cache.
    """

    def __init__(self, room: int = MAX_CACHED_PIXELS) -> None:
        self.room = room
        self._kept: dict[Path, Image.Image] = {}

    def photo(self, path: Path) -> Image.Image:
        """Return the image of a file; it must not be modified.

        Raises:
            Unreadable: It is not an image.
            OSError: The file can't be read.
        """
        if (cached := self._kept.get(path)) is not None:
            return cached
        photo = open_photo(path)
        pixels = photo.width * photo.height
        if pixels <= self.room:
            self.room -= pixels
            self._kept[path] = photo
        return photo


class PoseSamples(keras.utils.PyDataset):
    """Batches of an epoch: views and target heat maps.

    Views are float32 arrays of shape (batch, height, width, 3), heat maps of shape (batch, map
    height, map width, joints).

    They depend on the seed and the epoch only, so that a resumed training sees the same samples.

    Args:
        persons: The people, each once per epoch.
        joints: The joint set.
        size: Height and width of the views.
        batch_size: Samples per step.
        seed: Random seed.
        augmentation: How the views are augmented.
        empty: Images without people, of which `EMPTY_FRACTION` of an epoch's samples are drawn.

    Attributes:
        unreadable: Path -> reason of images that could not be opened; their samples do not count.
    """

    def __init__(
        self,
        persons: Sequence[Person],
        joints: JointSet,
        size: tuple[int, int],
        batch_size: int,
        seed: Sequence[int],
        augmentation: PoseAugmentation,
        empty: Sequence[Person] = (),
    ) -> None:
        super().__init__(workers=2, max_queue_size=6)
        self.people, self.empty, self.mirror, self.size = persons, empty, joints.mirrored, size
        self.batch_size, self.seed, self.augmentation = batch_size, tuple(seed), augmentation
        self.unreadable: dict[Path, str] = {}
        self.opened = PhotoCache()
        self.begin(0)

    def begin(self, epoch: int) -> None:
        """Draw the order of the samples, and the images without people, of an epoch (from 0)."""
        self.epoch_seed = (*self.seed, epoch)
        count = round(len(self.people) * EMPTY_FRACTION / (1 - EMPTY_FRACTION))
        drawn = np.random.default_rng(self.epoch_seed).permutation(len(self.empty))[:count]
        self.persons = [*self.people, *(self.empty[place] for place in drawn)]
        by_size = sorted(self.persons, key=lambda person: person.area)
        self.largest = {person.image: person.annotation for person in by_size}
        self.order = np.random.default_rng(self.epoch_seed).permutation(len(self.persons))

    @property
    def num_batches(self) -> int:
        """Return the number of batches per epoch; the last one may be smaller."""
        return -(-len(self.persons) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a batch."""
        indices = range(len(self.order))[index * self.batch_size :][: self.batch_size]
        pairs = [self._sample(i) for i in indices]
        return np.stack([view for view, _ in pairs]), np.stack([maps for _, maps in pairs])

    def _sample(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((*self.epoch_seed, index))
        person, options = self.persons[self.order[index]], self.augmentation
        photo, points = self._open(person), person.points
        if photo is None:
            unknown = np.full((*heatmap_size(self.size), len(self.mirror)), UNANNOTATED, np.float32)
            return np.zeros((*self.size, 3), np.float32), unknown
        if person.nobody:
            points = np.full_like(points, 2.0)
            points[:, :2] = OUTSIDE
        # In a whole image the largest person is to be found.
        largest = self.largest[person.image] == person.annotation
        whole = rng.random() < options.whole and largest and not person.nobody
        if whole and rng.random() < options.beside:
            other = self.persons[int(rng.integers(len(self.persons)))]
            if (
                not other.nobody
                and other.image != person.image
                and (second := self._open(other)) is not None
            ):
                photo, points = combine_people(photo, person, second, other, rng)
        box = (
            (0.0, 0.0, *map(float, photo.size)) if whole else _box(person, photo, options.part, rng)
        )
        shift = rng.uniform(-1, 1, 2) * options.shift
        box = (box[0] + shift[0] * box[2], box[1] + shift[1] * box[3], box[2], box[3])
        # A whole image has no margin.
        widen = (1.0 if whole else BOX_SCALE) * (1 + options.scale * _truncated_normal(rng))
        turn = options.turn * _truncated_normal(rng) if rng.random() < options.turned else 0.0
        view = person_view(box, self.size, widen, turn)
        if rng.random() < 0.5:
            view, points = mirror_view(view, self.size), points[self.mirror]
        pixels = normalize(render_view(photo, view, self.size) * _gain(options.colour, rng))
        points = np.concatenate([to_view(points[:, :2], view), points[:, 2:]], axis=1)
        maps = draw_targets(points, heatmap_size(self.size))
        return pixels, maps

    def _open(self, person: Person) -> Image.Image | None:
        try:
            return self.opened.photo(person.photo)
        except (Unreadable, OSError) as error:
            self.unreadable[person.photo] = first_line(error)
            return None


def combine_people(
    photo: Image.Image,
    person: Person,
    second: Image.Image,
    other: Person,
    rng: np.random.Generator,
) -> tuple[Image.Image, np.ndarray]:
    """Paste another person, smaller, beside an image.

    Args:
        photo: Image of the person whose joints are to be found.
        person: That person.
        second: Image of the other person.
        other: The other person.
        rng: Random generator.

    Returns:
        The new image, and the person's points in it.
    """
    left, top, width, height = other.box
    pasted = second.crop(
        (
            round(max(0, left)),
            round(max(0, top)),
            round(min(second.width, max(0, left) + max(1, width))),
            round(min(second.height, max(0, top) + max(1, height))),
        )
    )
    factor = rng.uniform(*SECOND_PERSON_SCALE) * np.sqrt(
        person.box[2] * person.box[3] / (width * height)
    )
    size = max(1, round(pasted.width * factor)), max(1, round(pasted.height * factor))
    pasted = pasted.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    canvas = Image.new("RGB", (photo.width + size[0], max(photo.height, size[1])))
    first, after = (0, photo.width) if rng.random() < 0.5 else (size[0], 0)
    top_offset, second_top = (
        round(rng.random() * (canvas.height - image.height)) for image in (photo, pasted)
    )
    canvas.paste(photo, (first, top_offset))
    canvas.paste(pasted, (after, second_top))
    return canvas, person.points + np.array([first, top_offset, 0])


def heatmap_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of the heat maps for a view's height and width."""
    return -(-size[0] // STRIDE), -(-size[1] // STRIDE)


def _truncated_normal(rng: np.random.Generator) -> float:
    """Draw from a normal distribution, clipped to two standard deviations."""
    return float(np.clip(rng.normal(), -2, 2))


def _gain(strength: float, rng: np.random.Generator) -> np.ndarray:
    low, high = np.log1p(strength) * np.array([-1, 1])
    return np.exp(rng.uniform(low, high) + rng.uniform(low, high, 3) / 3)


def _box(
    person: Person, photo: Image.Image, part: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Return the person's box, at times of half of the joints; a random one without a person."""
    if person.nobody:
        scale, (x, y) = rng.uniform(*EMPTY_VIEW_SCALE), rng.random(2)
        width, height = scale * photo.width, scale * photo.height
        return x * (photo.width - width), y * (photo.height - height), width, height
    annotated = person.points[person.points[:, 2] > 0, :2]
    if len(annotated) < 8 or rng.random() >= part:
        return person.box
    by_height = annotated[np.argsort(annotated[:, 1])]
    half = (
        by_height[: len(annotated) // 2] if rng.random() < 0.5 else by_height[len(annotated) // 2 :]
    )
    (left, top), (right, bottom) = half.min(axis=0), half.max(axis=0)
    # A row of joints has no height: use at least a quarter of the person.
    width = max(right - left, person.box[2] / 4)
    height = max(bottom - top, person.box[3] / 4)
    return (left + right - width) / 2, (top + bottom - height) / 2, width, height
