"""Estimate key points, masks and boxes of people in images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image, ImageDraw
from scipy.special import expit

from dataset.pose.crop import PERSON, Crop, agreement, choose_crop, fit_box, iou, mean_score
from dataset.pose.heatmaps import (
    BOX_SCALE,
    Box,
    Estimate,
    PersonMask,
    decode_box,
    decode_points,
    mask_region,
    mean_estimate,
    person_view,
    render_view,
    to_image,
    transform_points,
)
from dataset.pose.models import JointSet
from dataset.pose.samples import normalize
from dataset.utils.keras_backend import gpu_has_bfloat16, has_gpu, inference_function

BATCH_IMAGES = 16
# A small person is blurred in the first pass: half of the score proposes a second pass.
FIRST_PASS_GATE = 0.5
# The box of key points alone has margins already, larger ones for uncertain joints. That of a mask
# gets the margins of the training, within which the second pass finds limbs that the first missed.
# That of a box head has no margins.
SECOND_PASS_SCALE, MASKED_SECOND_PASS_SCALE, BOX_PASS_SCALE = 1.0, BOX_SCALE, 1.3
# The second pass must show the person this much larger.
MIN_MAGNIFICATION = 1.1
# With a smaller IoU the two passes found different people, or none.
MIN_OVERLAP = 0.4
# Certainty of the second pass from which no third pass is needed.
CERTAIN = 1.65
# Below this certainty, the person is searched from other first views: the corners of the image, of
# which each covers this fraction of its longer side.
UNCERTAIN, CORNER_VIEW = 1.36, 0.8
# The box with the largest sum of its IoU with all found boxes is chosen, each IoU weighted by a
# power of the other box's certainty.
CERTAINTY_POWER = 8


@dataclass(frozen=True)
class _Candidate:
    """A person that was found from one first view.

    Attributes:
        estimate: The result of the second pass, or the mean of the second and the third.
        certainty: The agreement of the boxes in the second pass, plus twice the mean score of the
            joints.
    """

    estimate: Estimate
    certainty: float


@dataclass(frozen=True)
class PoseEstimator:
    """A pose network with the parameters of its use.

    Attributes:
        network: Normalized views -> heat maps, or a list of heat maps, logits of masks and,
            with a box head, boxes.
        joints: The joint set.
        size: Height and width of the network's input.
        gate: Score below which a key point does not count.
        flip: Whether to average with the mirrored view.
        dark: Whether to decode with DARK.
        min_score: Mean score of the key points that a person has at least.
    """

    network: keras.Model
    joints: JointSet
    size: tuple[int, int]
    gate: float = 0.3
    flip: bool = False
    dark: bool = False
    min_score: float = 0.0

    @cached_property
    def _compute(self) -> Callable[[np.ndarray], list[np.ndarray]]:
        # Estimates must not depend on the size of the batch.
        return inference_function(self.network)

    def predict(
        self, views: np.ndarray, flip: bool
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Return the heat maps, masks and boxes of views.

        Args:
            views: Views, uint8 array of shape (batch, height, width, 3).
            flip: Whether to average with the mirrored views.

        Returns:
            Heat maps, float32 array of shape (batch, map height, map width, joints); masks, uint8
            array of shape (batch, mask height, mask width), probabilities times 255; and boxes,
            float32 array of shape (batch, 4), relative to the view. None for masks or boxes if the
            network has no head for them.
        """
        photos = normalize(views)
        maps, masks, boxes = self._outputs(photos)
        if flip:
            mirrored, mirrored_masks, mirrored_boxes = self._outputs(photos[:, :, ::-1])
            mirrored = mirrored[:, :, ::-1][..., self.joints.mirrored]
            # As published: mirrored maps are shifted by one pixel.
            mirrored[:, :, 1:] = mirrored[:, :, :-1].copy()
            maps = (maps + mirrored) * np.float32(0.5)
            if masks is not None and mirrored_masks is not None:
                masks = (masks + mirrored_masks[:, :, ::-1]) * np.float32(0.5)
            if boxes is not None and mirrored_boxes is not None:
                left, top, right, bottom = mirrored_boxes.T
                boxes = (boxes + np.stack([1 - right, top, 1 - left, bottom], axis=1)) / 2
        if masks is None:
            return maps, None, None
        return maps, np.round(255 * expit(masks)).astype(np.uint8), boxes

    def _outputs(
        self, photos: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
        """Return the heat maps, the logits of the masks, and the boxes; None without the head."""
        outputs = [array.astype(np.float32, copy=False) for array in self._compute(photos)]
        maps, masks, boxes, *_ = [*outputs, None, None]
        return maps, masks, boxes

    def estimate(
        self, photos: Sequence[Image.Image], views: Sequence[np.ndarray], flip: bool = True
    ) -> list[Estimate]:
        """Return what is found in an upright view of each image.

        Args:
            photos: Images.
            views: A view of each.
            flip: Whether the mirrored view may be used; it is if the estimator's `flip` is true.
        """
        if not photos:
            return []
        pixels = np.stack(
            [render_view(p, v, self.size) for p, v in zip(photos, views, strict=True)]
        )
        maps, masks, boxes = self.predict(pixels, self.flip and flip)
        estimates = []
        for index, (points, view) in enumerate(
            zip(decode_points(maps, self.dark), views, strict=True)
        ):
            transform_points(points, partial(to_image, view=view))
            mask = None
            if masks is not None:
                bounds = None if boxes is None else decode_box(boxes[index], view, self.size)
                mask = PersonMask(masks[index], mask_region(view, self.size), bounds)
            estimates.append(Estimate(points, mask))
        return estimates

    def find(self, photos: Sequence[Image.Image]) -> list[Estimate]:
        """Return what is found of the person in each image.

        The network processes the whole image first. If a person fills only a part of it, that part
        is processed again at a larger scale. With a box head, the part around the box that this
        second pass finds is processed a third time unless the second result is certain, and the
        result is the mean of both. If it is uncertain, the same is done from each corner of the
        image instead of the whole, and the result whose box agrees best with all others is chosen.
        Without a box head, the second result counts only if it shows a person in about the same
        place.
        """
        whole = [person_view((0, 0, *photo.size), self.size, widen=1.0) for photo in photos]
        estimates = self.estimate(photos, whole)
        first = [
            self._crop(estimate, photo, FIRST_PASS_GATE)
            for estimate, photo in zip(estimates, photos, strict=True)
        ]
        closer = {
            i: self._closer_view(crop, photo)
            for i, (crop, photo) in enumerate(zip(first, photos, strict=True))
            if crop.outcome == PERSON
        }
        again = [
            i for i, view in closer.items() if _magnification(whole[i], view) >= MIN_MAGNIFICATION
        ]
        closer_photos, closer_views = [photos[i] for i in again], [closer[i] for i in again]
        second = self.estimate(closer_photos, closer_views)
        if any(one.mask and one.mask.bounds for one in second):
            refined = self._refine(closer_photos, second)
            for i, one, found in zip(again, second, refined, strict=True):
                score = mean_score(one.points, one.points[:, 2] >= self.gate)
                is_uncertain = found.certainty < UNCERTAIN and score >= self.min_score
                chosen = self._search(photos[i], found) if is_uncertain else found
                estimates[i] = chosen.estimate
            return estimates
        for i, estimate in zip(again, second, strict=True):
            crop = self._crop(estimate, photos[i], 1.0)
            if crop.outcome == PERSON and iou(crop.box, first[i].box) >= MIN_OVERLAP:
                estimates[i] = estimate
        return estimates

    def _refine(
        self, photos: Sequence[Image.Image], second: Sequence[Estimate]
    ) -> list[_Candidate]:
        """Process the part around each box of the second pass again, unless it is certain."""
        certainties = [
            agreement(one.points, self.joints.names, photo.size, self.gate, one.mask)
            + 2 * float(one.points[:, 2].mean())
            for photo, one in zip(photos, second, strict=True)
        ]
        again = [i for i, certainty in enumerate(certainties) if certainty < CERTAIN]
        third = self._estimate_around([photos[i] for i in again], [second[i] for i in again])
        refined = list(second)
        for i, estimate in zip(again, third, strict=True):
            refined[i] = mean_estimate(second[i], estimate)
        return list(map(_Candidate, refined, certainties))

    def _search(self, photo: Image.Image, known: _Candidate) -> _Candidate:
        """Search a person from the corners; return the candidate that agrees best with all."""
        views = _corner_views(photo.size, self.size)
        photos = [photo] * len(views)
        first = self.estimate(photos, views, flip=False)
        second = self._estimate_around(photos, first)
        candidates = [known, *self._refine(photos, second)]
        weights = [candidate.certainty**CERTAINTY_POWER for candidate in candidates]
        boxes = [self._crop(candidate.estimate, photo, 1.0).box for candidate in candidates]
        support = [
            sum(weight * iou(box, other) for weight, other in zip(weights, boxes, strict=True))
            for box in boxes
        ]
        return candidates[int(np.argmax(support))]

    def _estimate_around(
        self, photos: Sequence[Image.Image], estimates: Sequence[Estimate]
    ) -> list[Estimate]:
        """Return what is found around each box of the box head."""
        views = [
            self._view_around(estimate.mask.bounds, photo)
            for estimate, photo in zip(estimates, photos, strict=True)
            if estimate.mask and estimate.mask.bounds
        ]
        # Mirrored views add nothing here.
        return self.estimate(photos, views, flip=False)

    def _closer_view(self, crop: Crop, photo: Image.Image) -> np.ndarray:
        """Return the view of the second pass."""
        if crop.mask and crop.mask.bounds:
            return self._view_around(crop.mask.bounds, photo)
        widen = MASKED_SECOND_PASS_SCALE if crop.mask else SECOND_PASS_SCALE
        return person_view(_to_size(crop.box), self.size, widen)

    def _view_around(self, bounds: Box, photo: Image.Image) -> np.ndarray:
        """Return the view of a pass around a box of the box head."""
        box = fit_box(np.reshape(bounds, (2, 2)), photo.size)
        return person_view(_to_size(box), self.size, BOX_PASS_SCALE)

    def _crop(self, estimate: Estimate, photo: Image.Image, gate_factor: float) -> Crop:
        gate = self.gate * gate_factor
        return choose_crop(estimate.points, self.joints.names, photo.size, gate, mask=estimate.mask)


def _corner_views(photo_size: tuple[int, int], size: tuple[int, int]) -> list[np.ndarray]:
    """Return the views of an image's corners.

    Args:
        photo_size: Width and height of the image.
        size: Height and width of the views.
    """
    side = CORNER_VIEW * max(photo_size)
    width, height = min(side, photo_size[0]), min(side, photo_size[1])
    return [
        person_view((left, top, width, height), size, widen=1.0)
        for left in sorted({0.0, photo_size[0] - width})
        for top in sorted({0.0, photo_size[1] - height})
    ]


def _to_size(box: Box) -> Box:
    """Convert a box to left, top, width and height."""
    return box[0], box[1], box[2] - box[0], box[3] - box[1]


def _magnification(view: np.ndarray, closer_view: np.ndarray) -> float:
    """Return how much larger the second view shows things than the first."""
    return float(np.sqrt(np.linalg.det(view[:, :2]) / np.linalg.det(closer_view[:, :2])))


# Linux' names of native bfloat16 multiplication; without it, bfloat16 is emulated slowly.
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
# On x86-64 and on 64-bit Arm.
FLAG_LINES = ("flags", "Features")
CPU_INFO = Path("/proc/cpuinfo")
# Largest relative difference from float32, as a root mean square.
MAX_DIFFERENCE = 0.02


def has_bfloat16(cpu_info: Path = CPU_INFO) -> bool:
    """Return whether the backend's device multiplies bfloat16 natively.

    Args:
        cpu_info: File with the processor's features. py-cpuinfo would start processes to read it,
            and psutil does not read them.
    """
    if has_gpu():
        return gpu_has_bfloat16()
    try:
        lines = cpu_info.read_text(errors="replace").splitlines()
    except OSError:
        return False
    flags = (line.split(":", 1)[-1].split() for line in lines if line.startswith(FLAG_LINES))
    return any(BFLOAT16_FLAGS & set(names) for names in flags)


def keeps_outputs(network: Callable, twin: Callable, inputs: np.ndarray) -> tuple[bool, float]:
    """Compare the outputs of two versions of a network.

    Args:
        network: The reference.
        twin: The other version.
        inputs: Inputs of both.

    Returns:
        Whether the relative difference is at most `MAX_DIFFERENCE`, and the difference as a root
        mean square; of several outputs the largest.
    """
    difference = max(
        map(_difference, *(keras.tree.flatten(one(inputs)) for one in (network, twin)))
    )
    return difference <= MAX_DIFFERENCE, difference


def _difference(exact: Any, other: Any) -> float:
    """Return the relative difference of two arrays as a root mean square."""
    exact, other = np.asarray(exact, np.float64), np.asarray(other, np.float64)
    return float(np.sqrt(((other - exact) ** 2).mean() / (exact**2).mean()))


def choose_network(network: keras.Model, fold: Callable[[str], keras.Model]) -> keras.Model:
    """Return a pose network in bfloat16 if the machine supports it and the heat maps stay the same.

    The choice depends on the machine and the weights only, not on its load or on images.

    Args:
        network: The network in float32, with batch normalization.
        fold: Returns the network for inference in a precision, `float32` or `bfloat16`.
    """
    if has_bfloat16():
        twin = fold("bfloat16")
        is_near, _ = keeps_outputs(network, twin, normalize(draw_people(network.input.shape[1:3])))
        if is_near:
            return twin
    return fold("float32")


def draw_people(size: tuple[int, int], count: int = 4) -> np.ndarray:
    """Draw views of people, for which the heat maps are not near 0 as for noise.

    Args:
        size: Height and width.
        count: Number of views.

    Returns:
        Uint8 array of shape (count, height, width, 3).
    """
    height, width = size
    views = []
    for number in range(count):
        unit, middle = height * (0.08 + 0.01 * number), width * (0.44 + 0.04 * number)
        view = Image.new("RGB", (width, height), (225 - 20 * number, 215, 190 + 10 * number))
        limb = partial(_limb, ImageDraw.Draw(view), unit, middle)
        for side in (-1, 1):
            reach = side * (1.4 + 0.3 * number)
            limb([(side * 0.6, 4.3), (side * 0.7, 6.3), (side * 0.8, 8.2)], 0.7, "navy")
            limb([(side, 1.8), (reach, 3.2), (reach, 4.6)], 0.5, "peru")
        limb([(0, 1.6), (0, 4.4)], 2.0, "firebrick")
        limb([(0, 0), (0, 1.5)], 0.9, "peru")
        views.append(np.asarray(view))
    return np.stack(views)


def _limb(
    draw: ImageDraw.ImageDraw,
    unit: float,
    middle: float,
    points: Sequence[tuple[float, float]],
    thickness: float,
    colour: str,
) -> None:
    """Draw a line through points; x is relative to the middle, and all lengths are in units."""
    places = [(middle + unit * x, unit * (y + 0.5)) for x, y in points]
    draw.line(places, colour, max(1, round(unit * thickness)), joint="curve")
