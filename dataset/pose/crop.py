"""The crop policy: from key points to the part of a photo that is kept (pure).

Boxes are left, top, right, bottom in pixels; key points are (joints, 7): x, y, score, and the box
of where the joint may be, or (joints, 3) without it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Box = tuple[float, float, float, float]

# Fewer joints than this are no person.
MIN_JOINTS = 5
# How far the body goes on beyond a joint, in parts of the longer side of the joints' bounds: the
# skull goes beyond eyes and ears, the foot beyond the ankle. First part of a name that fits.
BODY_MARGINS = {
    "head_top": 0.13,
    "nose": 0.20,
    "eye": 0.20,
    "ear": 0.20,
    "ankle": 0.16,
    "": 0.14,
}
# A crop is no smaller than this, in pixels a side and in parts of the photo's shorter side.
MIN_SIDE_PIXELS, SMALLEST_PART = 48, 0.15
# A person on less of the photo than this is in the background, or none.
MIN_SUBJECT_AREA = 0.04
# The joints that a garment of a zone covers, by parts of their names.
ZONE_JOINTS = {
    "upper": ("shoulder", "elbow", "wrist", "hip", "neck", "thorax"),
    "lower": ("hip", "knee", "ankle", "pelvis"),
    "feet": ("ankle",),
    "head": ("head", "nose", "eye", "ear", "neck"),
}
PERSON, ZONE, WHOLE = "person", "zone", "whole"
# Why all is kept of a photo that a person looked at.
BY_DECISION = "a person wants the whole photo"


@dataclass(frozen=True)
class Crop:
    """What is kept of a photo. `outcome`: zone, person or whole; `reason`: why not what was asked.

    `score`: mean score of the joints that count, 0 to 1, or 0.
    """

    outcome: str
    box: Box
    score: float
    reason: str = ""


def full_box(size: tuple[int, int]) -> Box:
    """The box of all of a photo of SIZE (width, height)."""
    return 0.0, 0.0, float(size[0]), float(size[1])


def choose_crop(
    points: np.ndarray,
    names: Sequence[str],
    size: tuple[int, int],
    gate: float,
    zone: str | None = None,
) -> Crop:
    """The part of a photo of SIZE (width, height) around the person, or the ZONE of a garment.

    Joints under GATE don't count. Fewer than five left are no person, and the photo stays whole; a
    zone without its joints falls back to the person. `full` and None are the person.
    """
    seen = points[:, 2] >= gate
    whole = full_box(size)
    if seen.sum() < MIN_JOINTS:
        reason = f"{int(seen.sum())} of {MIN_JOINTS} joints seen"
        return Crop(WHOLE, whole, _score(points, seen), reason)
    person, score = _around(points, seen, names, size), _score(points, seen)
    if _area(person) < MIN_SUBJECT_AREA * _area(whole):
        return Crop(WHOLE, whole, score, "too small to be the photo's subject")
    parts = ZONE_JOINTS.get(zone or "", ())
    if not parts:
        return Crop(PERSON, person, score)
    covered = seen & np.array([any(part in name for part in parts) for name in names])
    if not _enough(covered, names, parts):
        return Crop(PERSON, person, score, f"{zone}: its joints are not seen")
    unit = _unit(points[seen])
    return Crop(ZONE, _around(points, covered, names, size, unit), score)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _score(points: np.ndarray, seen: np.ndarray) -> float:
    return float(points[seen, 2].mean()) if seen.any() else 0.0


def _enough(covered: np.ndarray, names: Sequence[str], parts: Sequence[str]) -> bool:
    """Joints at both ends of the zone, where the joint set has both: shoulder and hip, say."""
    kinds = [part for part in parts if any(part in name for name in names)]
    seen = {part for part in kinds for i in np.flatnonzero(covered) if part in names[int(i)]}
    return len(seen) >= min(2, len(kinds)) and bool(covered.any())


def _unit(points: np.ndarray) -> float:
    """The longer side of the bounds of POINTS, at least a pixel."""
    return float(max(1.0, np.ptp(points[:, :2], axis=0).max()))


def body_margin(name: str) -> float:
    """How far the body goes on beyond the joint NAME, in parts of the bounds' longer side."""
    return next(reach for part, reach in BODY_MARGINS.items() if part in name)


def _around(
    points: np.ndarray,
    chosen: np.ndarray,
    names: Sequence[str],
    size: tuple[int, int],
    unit: float | None = None,
) -> Box:
    """The bounds of the CHOSEN points with what lies beyond them, inside the photo."""
    reach = np.array([body_margin(name) for name in names])[chosen, None]
    reach = reach * (unit or _unit(points[chosen]))
    low, high = points[chosen, :2] - reach, points[chosen, :2] + reach
    if points.shape[1] == 7:
        # Where the network is unsure of a joint, all places are kept that it may be at.
        low = np.minimum(low, points[chosen, 3:5])
        high = np.maximum(high, points[chosen, 5:7])
    low, high = low.min(axis=0), high.max(axis=0)
    edge = np.array(size, np.float64)
    low, high = np.clip(low, 0, edge), np.clip(high, 0, edge)
    # A small box grows around its middle, and is moved inside where it would leave the photo.
    least = np.minimum(max(MIN_SIDE_PIXELS, SMALLEST_PART * min(size)), edge)
    half = np.maximum(high - low, least) / 2
    middle = np.clip((low + high) / 2, half, edge - half)
    low, high = middle - half, middle + half
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def iou(one: Box, other: Box) -> float:
    """Area of both over area of either, 0 to 1."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (_area(one) + _area(other) - both)
