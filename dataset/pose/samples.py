"""Make training samples of a pose network: augmented views with target heat maps, masks, boxes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image, ImageFilter, ImageOps

from dataset.errors import first_line
from dataset.images.io import Unreadable, open_photo
from dataset.pose.annotations import Person
from dataset.pose.heatmaps import (
    BOX_SCALE,
    UNANNOTATED,
    box_target,
    draw_partial_mask,
    draw_targets,
    mask_size,
    mirror_view,
    person_view,
    render_view,
    rotated_box_target,
    shrink_mask,
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
# Range of the factors by which a person is resized before being pasted on another background.
PASTED_SCALE = 0.6, 1.1
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
        rotation: Standard deviation of the rotation in degrees, at most twice that.
        rotated_fraction: Fraction of samples that are rotated.
        scale: Standard deviation of the factor for the box.
        half_body_fraction: Fraction of samples that show the upper or the lower half of the joints
            only.
        shift: Largest shift relative to the box.
        whole_fraction: Fraction of samples that show the whole image, as in the first pass of the
            estimator.
        second_person_fraction: Fraction of these with another, smaller person, whose joints are
            not to be found.
        brightness: Largest gain of the brightness; a third of it for each channel.
        copy_paste_fraction: Fraction of the people with a mask who are pasted on an image without
            people (Ghiasi et al., "Simple Copy-Paste is a Strong Data Augmentation", CVPR 2021).
    """

    rotation: float = 30.0
    rotated_fraction: float = 0.6
    scale: float = 0.25
    half_body_fraction: float = 0.3
    shift: float = 0.1
    whole_fraction: float = 0.0
    second_person_fraction: float = 0.25
    brightness: float = 0.3
    copy_paste_fraction: float = 0.25


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
    """Batches of an epoch: views with target heat maps and, if asked for, target masks and boxes.

    Views are float32 arrays of shape (batch, height, width, 3), heat maps of shape (batch, map
    height, map width, joints), masks of shape (batch, mask height, mask width).

    They depend on the seed and the epoch only, so that a resumed training gets the same samples.

    Args:
        persons: The people, each once per epoch.
        joints: The joint set.
        size: Height and width of the views.
        batch_size: Samples per step.
        seed: Random seed.
        augmentation: How the views are augmented.
        empty: Images without people, of which `EMPTY_FRACTION` of an epoch's samples are drawn.
        masks: Whether the targets are pairs of heat maps and masks.
        boxes: Whether they are triples of heat maps, masks and boxes.

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
        masks: bool = False,
        boxes: bool = False,
    ) -> None:
        super().__init__(workers=2, max_queue_size=6)
        self.people, self.empty, self.joints, self.size = persons, empty, joints, size
        self.mirror, self.masks, self.boxes = joints.mirrored, masks, boxes
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
        self.largest = {person.photo: person.annotation for person in by_size}
        self.order = np.random.default_rng(self.epoch_seed).permutation(len(self.persons))

    @property
    def num_batches(self) -> int:
        """Return the number of batches per epoch; the last one may be smaller."""
        return -(-len(self.persons) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[np.ndarray, Any]:
        """Return a batch."""
        indices = range(len(self.order))[index * self.batch_size :][: self.batch_size]
        views, maps, masks, boxes = (
            np.stack(arrays) for arrays in zip(*(self._sample(i) for i in indices), strict=True)
        )
        if self.boxes:
            return views, (maps, masks, boxes)
        return views, (maps, masks) if self.masks else maps

    def _sample(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return a view, its heat maps, its mask and its box."""
        rng = np.random.default_rng((*self.epoch_seed, index))
        person, options = self.persons[self.order[index]], self.augmentation
        photo, no_box = self._open(person), np.full(4, UNANNOTATED, np.float32)
        if photo is None:
            maps = np.full((*heatmap_size(self.size), len(self.mirror)), UNANNOTATED, np.float32)
            unknown = np.full(mask_size(self.size), UNANNOTATED, np.float32)
            return np.zeros((*self.size, 3), np.float32), maps, unknown, no_box
        scene = Scene(photo, person.points, person.box, person.mask_image())
        if person.is_empty:
            points = np.full_like(person.points, 2.0)
            points[:, :2] = OUTSIDE
            scene = replace(scene, points=points, mask=Image.new("L", photo.size))
        elif scene.mask is not None and self.empty and rng.random() < options.copy_paste_fraction:
            background = self._open(self.empty[int(rng.integers(len(self.empty)))])
            scene = scene if background is None else paste_person(scene, background, rng)
        # In a whole image the largest person is to be found.
        largest = self.largest[person.photo] == person.annotation
        whole = rng.random() < options.whole_fraction and largest and not person.is_empty
        if whole and rng.random() < options.second_person_fraction:
            other = self.persons[int(rng.integers(len(self.persons)))]
            if (
                not other.is_empty
                and other.photo != person.photo
                and (second := self._open(other)) is not None
            ):
                scene = combine_people(scene, second, other, rng)
        if whole:
            box = (0.0, 0.0, *map(float, scene.photo.size))
        elif person.is_empty:
            box = _random_box(photo, rng)
        else:
            box = _part_box(scene, options.half_body_fraction, rng)
        shift = rng.uniform(-1, 1, 2) * options.shift
        box = (box[0] + shift[0] * box[2], box[1] + shift[1] * box[3], box[2], box[3])
        # A whole image has no margin.
        widen = (1.0 if whole else BOX_SCALE) * (1 + options.scale * _truncated_normal(rng))
        is_rotated = rng.random() < options.rotated_fraction
        rotation = options.rotation * _truncated_normal(rng) if is_rotated else 0.0
        view, points = person_view(box, self.size, widen, rotation), scene.points
        if rng.random() < 0.5:
            view, points = mirror_view(view, self.size), points[self.mirror]
        pixels = render_view(scene.photo, view, self.size) * _gain(options.brightness, rng)
        points = np.concatenate([to_view(points[:, :2], view), points[:, 2:]], axis=1)
        maps = draw_targets(points, heatmap_size(self.size))
        if scene.mask is None:
            mask = draw_partial_mask(points, self.joints, self.size)
        else:
            mask = shrink_mask(render_view(scene.mask, view, self.size))
        target = no_box if person.is_empty else self._box_target(scene, points, view, rotation)
        return normalize(pixels), maps, mask, target

    def _box_target(
        self, scene: "Scene", points: np.ndarray, view: np.ndarray, rotation: float
    ) -> np.ndarray:
        if rotation:
            return rotated_box_target(points, scene.margin, view, scene.photo.size, self.size)
        return box_target(scene.box, view, self.size)

    def _open(self, person: Person) -> Image.Image | None:
        try:
            return self.opened.photo(person.photo)
        except (Unreadable, OSError) as error:
            self.unreadable[person.photo] = first_line(error)
            return None


@dataclass(frozen=True)
class Scene:
    """An image with a person to detect.

    Attributes:
        photo: An RGB image.
        points: The person's joints (joints, 3).
        box: The person's left, top, width and height in pixels.
        mask: The person's mask, 0 or 255, in the size of the image; None where it is unknown.
    """

    photo: Image.Image
    points: np.ndarray
    box: tuple[float, float, float, float]
    mask: Image.Image | None = None

    @property
    def margin(self) -> float:
        """Return the median margin of the box around the joints, relative to their longer side."""
        joints = self.points[self.points[:, 2] > 0, :2]
        if not len(joints):
            return 0.0
        left, top, width, height = self.box
        low, high = joints.min(axis=0), joints.max(axis=0)
        gaps = [*(low - (left, top)), *((left + width, top + height) - high)]
        return float(np.median(gaps) / max(1.0, (high - low).max()))


def combine_people(
    scene: Scene, second: Image.Image, other: Person, rng: np.random.Generator
) -> Scene:
    """Paste another person, smaller, beside an image.

    Args:
        scene: The image with the person to detect.
        second: Image of the other person.
        other: The other person.
        rng: Random generator.
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
    photo, box = scene.photo, scene.box
    factor = rng.uniform(*SECOND_PERSON_SCALE) * np.sqrt(box[2] * box[3] / (width * height))
    size = max(1, round(pasted.width * factor)), max(1, round(pasted.height * factor))
    pasted = pasted.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    canvas = Image.new("RGB", (photo.width + size[0], max(photo.height, size[1])))
    first, after = (0, photo.width) if rng.random() < 0.5 else (size[0], 0)
    top_offset, second_top = (
        round(rng.random() * (canvas.height - image.height)) for image in (photo, pasted)
    )
    canvas.paste(photo, (first, top_offset))
    canvas.paste(pasted, (after, second_top))
    return _placed(scene, canvas, (first, top_offset))


def paste_person(scene: Scene, background: Image.Image, rng: np.random.Generator) -> Scene:
    """Paste a person on another background of the size of the image.

    Args:
        scene: The image of the person, whose mask is known.
        background: An image without people.
        rng: Random generator.
    """
    assert scene.mask is not None
    size = scene.photo.size
    factor = rng.uniform(*PASTED_SCALE)
    scaled = max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
    offset = [
        round(rng.random() * (whole - part)) for whole, part in zip(size, scaled, strict=True)
    ]
    person = scene.photo.resize(scaled, Image.Resampling.BILINEAR)
    mask = scene.mask.resize(scaled, Image.Resampling.BILINEAR)
    canvas = ImageOps.fit(background, size, Image.Resampling.BILINEAR)
    # A soft edge: the network is not to learn how a cut looks.
    soft = mask.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5)))
    canvas.paste(person, (offset[0], offset[1]), soft)
    return _placed(replace(scene, mask=mask), canvas, (offset[0], offset[1]), factor)


def _placed(
    scene: Scene, canvas: Image.Image, offset: tuple[int, int], factor: float = 1.0
) -> Scene:
    """Return the scene on a canvas where its image begins at an offset, scaled by a factor."""
    mask = scene.mask
    if mask is not None:
        placed = Image.new("L", canvas.size)
        placed.paste(mask, offset)
        mask = placed
    points = scene.points * (factor, factor, 1) + (*offset, 0)
    left, top, width, height = (side * factor for side in scene.box)
    return Scene(canvas, points, (left + offset[0], top + offset[1], width, height), mask)


def heatmap_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of the heat maps for a view's height and width."""
    return -(-size[0] // STRIDE), -(-size[1] // STRIDE)


def _truncated_normal(rng: np.random.Generator) -> float:
    """Draw from a normal distribution, clipped to two standard deviations."""
    return float(np.clip(rng.normal(), -2, 2))


def _gain(strength: float, rng: np.random.Generator) -> np.ndarray:
    low, high = np.log1p(strength) * np.array([-1, 1])
    return np.exp(rng.uniform(low, high) + rng.uniform(low, high, 3) / 3)


def _random_box(photo: Image.Image, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Return a random box in an image without people."""
    scale, (x, y) = rng.uniform(*EMPTY_VIEW_SCALE), rng.random(2)
    width, height = scale * photo.width, scale * photo.height
    return x * (photo.width - width), y * (photo.height - height), width, height


def _part_box(
    scene: Scene, fraction: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """Return the person's box; for a fraction of the people the box of half of the joints."""
    annotated = scene.points[scene.points[:, 2] > 0, :2]
    left, top, width, height = scene.box
    if rng.random() >= fraction:
        return scene.box
    if not len(annotated):
        return left, top + (height / 2 if rng.random() < 0.5 else 0.0), width, height / 2
    if len(annotated) < 8:
        return scene.box
    by_height = annotated[np.argsort(annotated[:, 1])]
    half = (
        by_height[: len(annotated) // 2] if rng.random() < 0.5 else by_height[len(annotated) // 2 :]
    )
    low, high = half.min(axis=0), half.max(axis=0)
    # A row of joints has no height: use at least a quarter of the person.
    side = np.maximum(high - low, (width / 4, height / 4))
    left, top = (low + high - side) / 2
    return float(left), float(top), float(side[0]), float(side[1])
