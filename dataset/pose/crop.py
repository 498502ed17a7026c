"""Choose the crop of an image from what a pose network finds in it, and draw it.

The crop depends on the image alone, never on its label: a crop whose shape depends on the label
leaks the label to a classifier.

Boxes are left, top, right and bottom in pixels. Key points are arrays of shape (joints, 7) or
(joints, 3); see `dataset.pose.heatmaps`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from dataset.pose.heatmaps import Box, PersonMask
from dataset.pose.models import JointSet

# Version of the policy: changes whenever equal key points and masks give another crop.
CROP_POLICY = 7
# With fewer joints there is no person.
MIN_JOINTS = 5
# How far the body extends beyond a joint, relative to the longer side of the joints' bounding box:
# the skull beyond eyes and ears, the foot beyond the ankle. The first part of a name that matches.
BODY_MARGINS = {
    "head_top": 0.125,
    "nose": 0.19,
    "eye": 0.19,
    "ear": 0.19,
    "ankle": 0.15,
    "": 0.135,
}
# Probability above which the mask's pixels are in its box.
MASK_LEVEL = 0.1
# With a smaller IoU of the boxes of joints and mask, only one of them counts: the one that is
# nearer to the box head's; without a box head the mask's, as the joints are uncertain.
MIN_AGREEMENT = 0.7
# Weight of the joints' box in the mean of both.
JOINTS_WEIGHT = 0.85
# Weight of the box head's box in the mean of it and the box of joints and mask.
HEAD_WEIGHT = 0.6
# Smallest side of a crop, in pixels and relative to the image's shorter side.
MIN_SIDE_PIXELS, SMALLEST_PART = 48, 0.15
# A person on a smaller fraction of the image is in the background.
MIN_SUBJECT_AREA = 0.02
PERSON, WHOLE = "person", "whole"
# What is done with the background of a person; with `both` it is kept, and the mask is an alpha
# channel, so that a network can read both renderings.
KEEP, BLUR, WHITE, BOTH = "keep", "blur", "white", "both"
# Radii relative to the longer side of the crop.
BLUR_RADIUS, FEATHER_RADIUS = 0.04, 0.004
# Opacity of the person by the mask's value: the background shows through below the first
# probability only, and the person is opaque above the second one.
CLEAR_BELOW, OPAQUE_ABOVE = 0.25, 0.55
OPACITIES = [
    round(255 * min(1.0, max(0.0, (value / 255 - CLEAR_BELOW) / (OPAQUE_ABOVE - CLEAR_BELOW))))
    for value in range(256)
]
# Reason of images that a reviewer wants whole.
BY_DECISION = "a person wants the whole photo"


@dataclass(frozen=True)
class Crop:
    """The part of an image that is kept.

    Attributes:
        outcome: `person` or `whole`.
        box: Left, top, right and bottom in pixels.
        score: Mean score of the joints that count, 0 to 1; 0 without any.
        reason: Why the image is whole.
        mask: The person's mask; None for a whole image, or if the network has no mask head.
    """

    outcome: str
    box: Box
    score: float
    reason: str = ""
    mask: PersonMask | None = field(default=None, compare=False)


def full_box(size: tuple[int, int]) -> Box:
    """Return the box of a whole image of a size (width, height)."""
    return 0.0, 0.0, float(size[0]), float(size[1])


def choose_crop(
    points: np.ndarray,
    names: Sequence[str],
    size: tuple[int, int],
    gate: float,
    min_score: float = 0.0,
    mask: PersonMask | None = None,
) -> Crop:
    """Choose the crop around the person.

    Args:
        points: Key points.
        names: Names of the joints.
        size: Width and height of the image.
        gate: Score below which a joint does not count.
        min_score: Mean score of the joints below which they are not those of a person.
        mask: The person's mask, if the network has a mask head.

    Returns:
        The crop: the box of the joints with margins; with a mask, the mean of that box and the
        mask's, or where the two disagree the mask's alone; with a box head, the one of the two that
        is nearer to the head's box, and the mean of that and the head's box. With fewer than
        `MIN_JOINTS` joints, a mean score below `min_score`, or a person on less than
        `MIN_SUBJECT_AREA` of the image, it is the whole image.
    """
    seen = points[:, 2] >= gate
    whole = full_box(size)
    if seen.sum() < MIN_JOINTS:
        reason = f"{int(seen.sum())} of {MIN_JOINTS} joints seen"
        return Crop(WHOLE, whole, mean_score(points, seen), reason)
    score = mean_score(points, seen)
    person = _person_box(points, seen, names, size, mask)
    if score < min_score:
        return Crop(WHOLE, whole, score, "no person: the joints' scores are too low")
    if _area(person) < MIN_SUBJECT_AREA * _area(whole):
        return Crop(WHOLE, whole, score, "too small to be the photo's subject")
    return Crop(PERSON, person, score, mask=mask)


def _person_box(
    points: np.ndarray,
    seen: np.ndarray,
    names: Sequence[str],
    size: tuple[int, int],
    mask: PersonMask | None,
) -> Box:
    joints = _bounding_box(points, seen, names, size)
    box = mask.box(MASK_LEVEL) if mask else None
    if box is None:
        return joints
    head = mask.bounds if mask else None
    if iou(joints, box) >= MIN_AGREEMENT:
        sides = JOINTS_WEIGHT * np.array(joints) + (1 - JOINTS_WEIGHT) * np.array(box)
    else:
        sides = np.array(joints if head and iou(joints, head) > iou(box, head) else box)
    if head:
        sides = (1 - HEAD_WEIGHT) * sides + HEAD_WEIGHT * np.array(head)
    return fit_box(sides.reshape(2, 2), size)


def agreement(
    points: np.ndarray,
    names: Sequence[str],
    size: tuple[int, int],
    gate: float,
    mask: PersonMask | None,
) -> float:
    """Return how well the boxes of joints, mask and box head agree.

    Args:
        points: Key points.
        names: Names of the joints.
        size: Width and height of the image.
        gate: Score below which a joint does not count.
        mask: The person's mask.

    Returns:
        The mean IoU of the boxes that were found, 0 to 1; 1 with fewer than two.
    """
    seen = points[:, 2] >= gate
    boxes = [_bounding_box(points, seen, names, size)] if seen.any() else []
    if mask:
        boxes += [box for box in (mask.box(MASK_LEVEL), mask.bounds) if box]
    pairs = [iou(one, other) for one, other in combinations(boxes, 2)]
    return float(np.mean(pairs)) if pairs else 1.0


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def mean_score(points: np.ndarray, seen: np.ndarray) -> float:
    """Return the mean score of the joints that count; 0 without any."""
    return float(points[seen, 2].mean()) if seen.any() else 0.0


def _body_size(points: np.ndarray) -> float:
    """Return the longer side of the points' bounding box, at least one pixel."""
    return float(max(1.0, np.ptp(points[:, :2], axis=0).max()))


def body_margin(name: str) -> float:
    """Return how far the body extends beyond a joint, relative to the box of the joints."""
    return next(reach for part, reach in BODY_MARGINS.items() if part in name)


def _bounding_box(
    points: np.ndarray,
    chosen: np.ndarray,
    names: Sequence[str],
    size: tuple[int, int],
) -> Box:
    """Return the bounding box of the chosen joints with their margins."""
    reach = np.array([body_margin(name) for name in names])[chosen, None]
    reach = reach * _body_size(points[chosen])
    low, high = points[chosen, :2] - reach, points[chosen, :2] + reach
    if points.shape[1] == 7:
        # Include the whole region where an uncertain joint may be.
        low = np.minimum(low, points[chosen, 3:5])
        high = np.maximum(high, points[chosen, 5:7])
    return fit_box(np.vstack([low, high]), size)


def fit_box(corners: np.ndarray, size: tuple[int, int]) -> Box:
    """Return the bounding box of points, clipped to the image and not too small."""
    low, high = corners.min(axis=0), corners.max(axis=0)
    edge = np.array(size, np.float64)
    low, high = np.clip(low, 0, edge), np.clip(high, 0, edge)
    # Extend a small box around its center, and move it into the image.
    least = np.minimum(max(MIN_SIDE_PIXELS, SMALLEST_PART * min(size)), edge)
    half = np.maximum(high - low, least) / 2
    middle = np.clip((low + high) / 2, half, edge - half)
    low, high = middle - half, middle + half
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def iou(one: Box, other: Box) -> float:
    """Return the intersection over union of two boxes."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / (_area(one) + _area(other) - both)


def replace_background(photo: Image.Image, crop: Crop, background: str) -> Image.Image:
    """Return what a crop keeps of an image, with another background behind the person.

    Args:
        photo: An RGB image.
        crop: The crop; without a mask the background is kept.
        background: `keep`, `blur`, `white` or `both`.

    Returns:
        An RGB image; with `both`, an RGBA image that keeps the background, whose alpha channel is
        the person's opacity.
    """
    left, top, right, bottom = (round(side) for side in crop.box)
    box = left, top, right, bottom
    kept = photo.crop(box)
    if crop.mask is None or background == KEEP:
        return add_opacity(kept) if background == BOTH else kept
    opacity = crop.mask.draw(photo.size).crop(box).point(OPACITIES)
    feathered = opacity.filter(ImageFilter.GaussianBlur(FEATHER_RADIUS * max(kept.size)))
    if background == BOTH:
        return add_opacity(kept, feathered)
    if background == WHITE:
        other = Image.new("RGB", kept.size, "white")
    else:
        other = _blur_background(kept, opacity)
    return Image.composite(kept, other, feathered)


def add_opacity(photo: Image.Image, opacity: Image.Image | None = None) -> Image.Image:
    """Return an RGB image with an alpha channel: a grey image, or opaque everywhere."""
    result = photo.convert("RGBA")
    if opacity is not None:
        result.putalpha(opacity)
    return result


def _blur_background(photo: Image.Image, opacity: Image.Image) -> Image.Image:
    """Blur an image so that the person's colours do not spread into the background."""
    blur = ImageFilter.GaussianBlur(BLUR_RADIUS * max(photo.size))
    weights = ImageChops.invert(opacity)
    background = Image.composite(photo, Image.new("RGB", photo.size), weights)
    sums = np.asarray(background.filter(blur), np.float32)
    total = np.asarray(weights.filter(blur), np.float32)[:, :, None]
    return Image.fromarray((255 * sums / np.maximum(total, 1)).clip(0, 255).astype(np.uint8))


LEFT, RIGHT, MIDDLE = (255, 150, 30), (40, 170, 255), (120, 230, 90)
BOX, GREY = (255, 40, 90), (226, 226, 226)
TILE_PIXELS, COLUMNS, ROWS, GAP_PIXELS = 160, 8, 4, 4


def draw_person(
    photo: Image.Image,
    points: np.ndarray,
    joints: JointSet,
    gate: float,
    box: Box | None = None,
    side: int = TILE_PIXELS,
) -> Image.Image:
    """Draw the bones, joints and crop of a person.

    Args:
        photo: An RGB image.
        points: Key points.
        joints: The joint set.
        gate: Score below which a joint is not drawn.
        box: The crop, if any.
        side: Largest width and height of the result in pixels.
    """
    tile = photo.copy()
    tile.thumbnail((side, side), Image.Resampling.BILINEAR)
    scale = tile.width / photo.width
    draw = ImageDraw.Draw(tile)
    is_visible, coordinates = points[:, 2] >= gate, points[:, :2] * scale
    for first, second in joints.bones:
        if is_visible[first] and is_visible[second]:
            draw.line(
                [*coordinates[first], *coordinates[second]], _colour(joints.names[second]), width=2
            )
    for name, (x, y), visible in zip(joints.names, coordinates, is_visible, strict=True):
        if visible:
            draw.ellipse([x - 2, y - 2, x + 2, y + 2], fill=_colour(name), outline="white")
    if box:
        left, top, right, bottom = (side * scale for side in box)
        edges = [left, top, max(left, right - 1), max(top, bottom - 1)]
        draw.rectangle(edges, outline=BOX, width=2)
    return tile


def _colour(name: str) -> tuple[int, int, int]:
    if name.startswith(("left", "l_")):
        return LEFT
    return RIGHT if name.startswith(("right", "r_")) else MIDDLE


def grid(
    tiles: Sequence[Image.Image], columns: int = COLUMNS, side: int = TILE_PIXELS
) -> Image.Image:
    """Arrange images in rows on light grey, each centered in a square.

    Args:
        tiles: Images.
        columns: Images per row.
        side: Side of a square in pixels.
    """
    columns, pitch = min(columns, max(1, len(tiles))), side + GAP_PIXELS
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * pitch + GAP_PIXELS, rows * pitch + GAP_PIXELS), GREY)
    for number, tile in enumerate(tiles):
        left = GAP_PIXELS + number % columns * pitch + (side - tile.width) // 2
        top = GAP_PIXELS + number // columns * pitch + (side - tile.height) // 2
        sheet.paste(tile, (left, top))
    return sheet
