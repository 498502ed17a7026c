"""Convert between images, network views, heat maps and masks.

A view is the part of an image that the network reads. It is described by an affine (2, 3) float
matrix from the view's pixels to the image's. Coordinates are those of pixel centers: 0 is the
center of the first pixel, as in COCO's files.

Key points are float arrays of shape (joints, 7): x, y and score, and left, top, right and bottom of
the region where the joint may be; or (joints, 3) without that region.
"""

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, label

from dataset.pose.models import BOX_REACH, MASK_STRIDE, STRIDE, JointSet

# Left, top, right and bottom in pixels of an image.
Box = tuple[float, float, float, float]
# Margin around the person's box, as published.
BOX_SCALE = 1.25
# Columns of key points that are x and y: the point and two corners of its region.
COORDINATE_COLUMNS = slice(0, 2), slice(3, 5), slice(5, 7)


def person_view(
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    widen: float = BOX_SCALE,
    rotation: float = 0.0,
) -> np.ndarray:
    """Return the view that shows a box in its middle.

    The box is extended to the view's aspect ratio, scaled and rotated.

    Args:
        box: Left, top, width and height in pixels of the image.
        size: Height and width of the view.
        widen: Factor for the size of the box.
        rotation: Rotation in degrees.
    """
    left, top, width, height = box
    scale = max(width / size[1], height / size[0]) * widen
    a, b = scale * np.cos(np.radians(rotation)), scale * np.sin(np.radians(rotation))
    matrix = np.array([[a, -b, 0.0], [b, a, 0.0]])
    # The center of the box maps to the center of the view, as in the published code.
    middle = np.array([size[1] / 2, size[0] / 2])
    matrix[:, 2] = (left + width / 2, top + height / 2) - matrix[:, :2] @ middle
    return matrix


def mirror_view(view: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a view with left and right exchanged.

    Args:
        view: The view.
        size: Its height and width.
    """
    return view @ np.array([[-1.0, 0, size[1] - 1], [0, 1, 0], [0, 0, 1]])


def to_image(points: np.ndarray, view: np.ndarray) -> np.ndarray:
    """Transform points (..., 2) from pixels of a view to pixels of the image."""
    return points @ view[:, :2].T + view[:, 2]


def to_view(points: np.ndarray, view: np.ndarray) -> np.ndarray:
    """Transform points (..., 2) from pixels of the image to pixels of a view."""
    return (points - view[:, 2]) @ np.linalg.inv(view[:, :2]).T


def transform_points(points: np.ndarray, transform: Callable[[np.ndarray], np.ndarray]) -> None:
    """Apply a function to all coordinates of key points in place.

    Args:
        points: Key points (joints, 7).
        transform: Maps coordinates (joints, 2) to others.
    """
    for columns in COORDINATE_COLUMNS:
        points[:, columns] = transform(points[:, columns])


def render_view(photo: Image.Image, view: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return what a view shows of an image; pixels outside of the image are black.

    Args:
        photo: An RGB image, or a mask of one channel.
        view: The view.
        size: Its height and width.

    Returns:
        Uint8 array of shape (height, width, 3) or (height, width).
    """
    # Downscale by an integer first: the affine transform samples single pixels.
    step = max(1, int(np.sqrt(abs(np.linalg.det(view[:, :2])))))
    small = photo.reduce(step) if step > 1 else photo
    # Pillow counts from a pixel's corner, and pixels of the small image are `step` wide.
    linear, shift = view[:, :2], view[:, 2]
    corner = (shift + 0.5 - linear @ (0.5, 0.5)) / step
    linear = linear / step
    data = (*linear[0], corner[0], *linear[1], corner[1])
    pixels = small.transform(
        (size[1], size[0]), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR
    )
    return np.asarray(pixels)


# Target value of joints without annotation, which do not contribute to the loss.
UNANNOTATED = -1.0
# A joint may be wherever its map reaches this fraction of its maximum.
SPREAD_LEVEL = 0.6


def target_sigma(height: int) -> float:
    """Return the standard deviation of a target in heat map pixels, as published: 2 for 64 rows."""
    return max(1.5, height / 32)


def draw_targets(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Draw the target heat maps of key points.

    Args:
        points: (joints, 3): x and y in pixels of the view, and whether the joint is annotated.
        size: Height and width of the heat maps.

    Returns:
        Float32 array of shape (height, width, joints) in [0, 1]. The map of a joint without
        annotation is `UNANNOTATED`. The map of a joint outside of the view is 0, so that the
        network learns which part of a person is in the view.
    """
    sigma = target_sigma(size[0])
    x, y = points[:, 0] / STRIDE, points[:, 1] / STRIDE
    inside = (x > -0.5) & (y > -0.5) & (x < size[1] - 0.5) & (y < size[0] - 0.5)
    across = np.exp(-((np.arange(size[1])[:, None] - x) ** 2) / (2 * sigma**2))
    down = np.exp(-((np.arange(size[0])[:, None] - y) ** 2) / (2 * sigma**2))
    maps = down[:, None, :] * across[None, :, :]
    maps = np.where(inside, maps, 0.0)
    return np.where(points[:, 2] > 0, maps, UNANNOTATED).astype(np.float32)


# A pixel belongs to the person if the mask's value is above this one: a probability of a half.
MASK_THRESHOLD = 127
# Pixels of the grid on which boxes are found, for each pixel of the mask's array.
BOX_PRECISION = 4
# Area of a part of the mask that counts, relative to the largest part.
MIN_PART_AREA = 0.1
# Height and width of a mask's array, and its region.
MASK_HEADER = struct.Struct("<HH4d")
MASK_BOUNDS = struct.Struct("<4d")
# Half of the thickness of a limb, and the farthest that a body reaches from its bones, relative to
# the size of the body; at the ends of limbs it reaches farther, by parts of the joint's name.
LIMB_RADIUS, BODY_RADIUS = 0.015, 0.10
END_RADII = {"ankle": 0.15, "head": 0.13, "nose": 0.13, "eye": 0.13, "ear": 0.13, "wrist": 0.12}
# The factor of these for people with a joint that is not annotated.
PARTIAL_BODY = 4.0
# The longer side of the joints' box is at least this multiple of the longest bone: a crouching
# person has the same limbs.
BONES_PER_BODY = 3.5


def mask_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return height and width of the mask for a view's height and width."""
    return -(-size[0] // MASK_STRIDE), -(-size[1] // MASK_STRIDE)


@dataclass(frozen=True, eq=False)
class PersonMask:
    """Where an image shows the person.

    Attributes:
        values: Probabilities times 255, uint8 array of shape (height, width).
        region: Left, top, right and bottom of the part of the image that the array covers, in
            pixels from the image's corner. There is no person outside of it.
        bounds: Left, top, right and bottom of the person by the network's box head, in pixels from
            the image's corner; None without one.
    """

    values: np.ndarray
    region: Box
    bounds: Box | None = None

    def draw(self, size: tuple[int, int]) -> Image.Image:
        """Return the mask of an image, 0 to 255, in the image's size (width, height)."""
        height, width = self.values.shape
        left, top, right, bottom = self.region
        across, down = width / (right - left), height / (bottom - top)
        data = across, 0.0, -left * across, 0.0, down, -top * down
        return Image.fromarray(self.values).transform(
            size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR
        )

    def box(self, level: float) -> Box | None:
        """Return the bounding box of the person in pixels of the image; None without a person.

        Parts that are much smaller than the largest one are ignored: they are other people, or
        mistakes.

        Args:
            level: Probability above which a pixel counts.
        """
        height, width = self.values.shape
        # Enlarged, the edge is found between the pixels of the array.
        size = (width * BOX_PRECISION, height * BOX_PRECISION)
        pixels = Image.fromarray(self.values).resize(size, Image.Resampling.BILINEAR)
        parts, _ = label(np.asarray(pixels) > 255 * level)
        areas = np.bincount(parts.ravel())
        areas[0] = 0
        if not areas.any():
            return None
        kept = (areas >= MIN_PART_AREA * areas.max())[parts]
        columns, rows = np.flatnonzero(kept.any(axis=0)), np.flatnonzero(kept.any(axis=1))
        left, top, right, bottom = self.region
        across, down = (right - left) / size[0], (bottom - top) / size[1]
        return (
            left + across * columns[0],
            top + down * rows[0],
            left + across * (columns[-1] + 1),
            top + down * (rows[-1] + 1),
        )

    def scaled(self, factors: np.ndarray) -> "PersonMask":
        """Return the mask of an image that is resized by factors (horizontal, vertical)."""
        region, bounds = (
            box and as_box(np.reshape(box, (2, 2)) * factors) for box in (self.region, self.bounds)
        )
        assert region
        return PersonMask(self.values, region, bounds)

    def to_bytes(self) -> bytes:
        """Return the mask as bytes for `from_bytes`."""
        header = MASK_HEADER.pack(*self.values.shape, *self.region)
        bounds = MASK_BOUNDS.pack(*self.bounds) if self.bounds else b""
        return header + zlib.compress(self.values.tobytes()) + bounds

    @classmethod
    def from_bytes(cls, data: bytes) -> "PersonMask":
        """Return the mask that `to_bytes` saved."""
        height, width, *region = MASK_HEADER.unpack_from(data)
        stream = zlib.decompressobj()
        values = np.frombuffer(stream.decompress(data[MASK_HEADER.size :]), np.uint8)
        left, top, right, bottom = region
        bounds = MASK_BOUNDS.unpack(stream.unused_data) if stream.unused_data else None
        return cls(values.reshape(height, width), (left, top, right, bottom), bounds)


@dataclass(frozen=True)
class Estimate:
    """What a pose network finds in an image.

    Attributes:
        points: Key points (joints, 7) in pixels of the image.
        mask: The person's mask; None if the network has no mask head.
    """

    points: np.ndarray
    mask: PersonMask | None = None

    def scaled(self, factors: np.ndarray) -> "Estimate":
        """Return the estimate for an image that is resized by factors (horizontal, vertical)."""
        points = self.points.copy()
        # Coordinates are those of pixel centers.
        transform_points(points, lambda coordinates: (coordinates + 0.5) * factors - 0.5)
        return Estimate(points, self.mask and self.mask.scaled(factors))


def mean_estimate(first: Estimate, second: Estimate) -> Estimate:
    """Return the mean of two estimates of a person by a network with a box head.

    Args:
        first: An estimate, whose mask is kept.
        second: Another one.
    """
    points, mask = (first.points + second.points) / 2, first.mask
    if mask and mask.bounds and second.mask and second.mask.bounds:
        corners = np.mean([mask.bounds, second.mask.bounds], axis=0)
        mask = replace(mask, bounds=as_box(corners.reshape(2, 2)))
    return Estimate(points, mask)


def mask_region(view: np.ndarray, size: tuple[int, int]) -> Box:
    """Return the region of an image that the mask of an upright view covers.

    Args:
        view: The view.
        size: Height and width of the view.
    """
    height, width = (side * MASK_STRIDE for side in mask_size(size))
    return _box_in_image(np.array([(0, 0), (width, height)]), view)


def _box_in_image(corners: np.ndarray, view: np.ndarray) -> Box:
    """Return the box in an image of corners (2, 2) in pixels of an upright view."""
    # Points are those of pixel centers, boxes are in pixels from the corner.
    return as_box(to_image(corners - 0.5, view) + 0.5)


def as_box(corners: np.ndarray) -> Box:
    """Return left, top, right and bottom of points (corners, 2)."""
    left, top, right, bottom = map(float, [*corners.min(axis=0), *corners.max(axis=0)])
    return left, top, right, bottom


def decode_box(box: np.ndarray, view: np.ndarray, size: tuple[int, int]) -> Box:
    """Return left, top, right and bottom in pixels of the image of a box in a view.

    Args:
        box: Left, top, right and bottom relative to the view.
        view: The view.
        size: Its height and width.
    """
    return _box_in_image(box.reshape(2, 2) * size[::-1], view)


def box_target(
    box: tuple[float, float, float, float], view: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Return the target of a box: the inverse of `decode_box`, at most `BOX_REACH` outside.

    Args:
        box: Left, top, width and height in pixels of the image.
        view: An upright view.
        size: Its height and width.
    """
    left, top, width, height = box
    corners = to_view(np.array([(left, top), (left + width, top + height)]) - 0.5, view)
    places = np.clip((corners + 0.5) / size[::-1], -BOX_REACH, 1 + BOX_REACH)
    return np.array(as_box(places), np.float32)


# The bounds of fewer joints say little about the person's box.
MIN_BOX_JOINTS = 8


def rotated_box_target(
    points: np.ndarray,
    margin: float,
    view: np.ndarray,
    photo: tuple[int, int],
    size: tuple[int, int],
) -> np.ndarray:
    """Return the target of the box in a rotated view: the bounds of the joints, with a margin.

    Args:
        points: The joints (joints, 3) in pixels of the view.
        margin: Margin, relative to the longer side of the bounds.
        view: A view.
        photo: Width and height of the image, which the box stays inside of.
        size: Height and width of the view.

    Returns:
        As `box_target`; `UNANNOTATED` with fewer than `MIN_BOX_JOINTS` annotated joints.
    """
    annotated = points[points[:, 2] > 0, :2]
    if len(annotated) < MIN_BOX_JOINTS:
        return np.full(4, UNANNOTATED, np.float32)
    width, height = photo
    corners = to_view(np.array([(0, 0), (width, 0), (0, height), (width, height)]) - 0.5, view)
    added = margin * np.ptp(annotated, axis=0).max()
    low = np.maximum(annotated.min(axis=0) - added, corners.min(axis=0))
    high = np.minimum(annotated.max(axis=0) + added, corners.max(axis=0))
    places = (np.stack([low, high]) + 0.5) / size[::-1]
    return np.array(as_box(np.clip(places, -BOX_REACH, 1 + BOX_REACH)), np.float32)


def shrink_mask(mask: np.ndarray) -> np.ndarray:
    """Return the target of a mask.

    Args:
        mask: Mask in a view, uint8 array of shape (height, width), 0 to 255.

    Returns:
        Float32 array of the shape of `mask_size` in [0, 1]: means over squares of pixels.
    """
    image = Image.fromarray(mask).reduce(MASK_STRIDE)
    return np.asarray(image, np.float32) / 255


def draw_partial_mask(points: np.ndarray, joints: JointSet, size: tuple[int, int]) -> np.ndarray:
    """Draw the part of a mask that key points imply: bones are inside, distant pixels outside.

    Args:
        points: (joints, 3): x and y in pixels of the view, and whether the joint is annotated.
        joints: The joint set.
        size: Height and width of the view.

    Returns:
        Float32 array of the shape of `mask_size`: 1 along the bones and between shoulders and hips,
        0 far away from them, and `UNANNOTATED` elsewhere.
    """
    height, width = mask_size(size)
    annotated = points[:, 2] > 0
    unknown = np.full((height, width), UNANNOTATED, np.float32)
    bones = [pair for pair in joints.bones if annotated[list(pair)].all()]
    if not bones:
        return unknown
    places = (points[:, :2] + 0.5) / MASK_STRIDE - 0.5
    longest = max(float(np.linalg.norm(places[a] - places[b])) for a, b in bones)
    body = max(float(np.ptp(places[annotated], axis=0).max()), BONES_PER_BODY * longest)
    reach = body if annotated.all() else PARTIAL_BODY * body
    radii = [
        next((radius for part, radius in END_RADII.items() if part in name), BODY_RADIUS)
        for name in joints.names
    ]
    torso = [i for i, name in enumerate(joints.names) if name.endswith(("shoulder", "hip"))]
    corners = places[torso] if annotated[torso].all() else places[:0]
    limb, size = max(0.5, LIMB_RADIUS * body), (height, width)
    inside = draw_body(places, bones, corners, limb, [limb] * len(places), size)
    ends = [reach * radius for radius in radii]
    near = draw_body(places, bones, corners, reach * BODY_RADIUS, ends, size)
    return np.where(inside, 1.0, np.where(near, unknown, 0.0)).astype(np.float32)


def draw_body(
    places: np.ndarray,
    bones: Sequence[tuple[int, int]],
    torso: np.ndarray,
    radius: float,
    ends: Sequence[float],
    size: tuple[int, int],
) -> np.ndarray:
    """Return a boolean array of the pixels within a radius of bones or in the torso's hull.

    Args:
        places: Joints (joints, 2).
        bones: Pairs of joints.
        torso: Corners of the torso (corners, 2).
        radius: The radius in pixels.
        ends: The radius around each joint.
        size: Height and width of the result.
    """
    image = Image.new("1", (size[1], size[0]))
    draw = ImageDraw.Draw(image)
    for first, second in bones:
        line = [*places[first], *places[second]]
        draw.line(line, 1, max(1, round(2 * radius)))
        for joint in (first, second):
            (x, y), end = places[joint], ends[joint]
            draw.ellipse([x - end, y - end, x + end, y + end], fill=1)
    if len(torso) >= 3:
        middle = torso.mean(axis=0)
        turns = np.arctan2(*(torso - middle).T)
        corners = [(float(x), float(y)) for x, y in torso[np.argsort(turns)]]
        draw.polygon(corners, fill=1)
        draw.line([*corners, corners[0]], 1, max(1, round(2 * radius)))
    return np.asarray(image)


def decode_points(maps: np.ndarray, dark: bool = False) -> np.ndarray:
    """Decode key points from heat maps.

    The location is a quarter pixel from the maximum towards its higher neighbor, as published, or
    with DARK the maximum of a Gaussian that is fitted there (Zhang et al., "Distribution-Aware
    Coordinate Representation for Human Pose Estimation", CVPR 2020).

    Args:
        maps: Heat maps (batch, height, width, joints).
        dark: Whether to use DARK.

    Returns:
        Key points (batch, joints, 7) in pixels of the view. The score is the maximum of the map;
        the region is where the map is at least `SPREAD_LEVEL` of it.
    """
    batch, height, width, joints = maps.shape
    flat = maps.transpose(0, 3, 1, 2).reshape(batch * joints, height, width)
    top = flat.reshape(len(flat), -1).argmax(axis=1)
    y, x = np.divmod(top, width)
    scores = flat[np.arange(len(flat)), y, x]
    place = np.stack([x, y], axis=1) + (
        _dark_offsets(flat, x, y) if dark else _quarter_offsets(flat, x, y)
    )
    columns = [place * STRIDE, scores[:, None], _spread_boxes(flat, scores) * STRIDE]
    return np.concatenate(columns, axis=1).reshape(batch, joints, 7)


def _spread_boxes(maps: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Return left, top, right and bottom of the region around each maximum in heat map pixels."""
    high = maps >= SPREAD_LEVEL * scores[:, None, None]
    across: np.ndarray = np.any(high, axis=1)
    down: np.ndarray = np.any(high, axis=2)
    left, top = across.argmax(axis=1), down.argmax(axis=1)
    right = across.shape[1] - 1 - across[:, ::-1].argmax(axis=1)
    bottom = down.shape[1] - 1 - down[:, ::-1].argmax(axis=1)
    return np.stack([left, top, right, bottom], axis=1)


def _quarter_offsets(maps: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    (dx, dy), inner = _gradients(maps, x, y)
    return np.where(inner[:, None], 0.25 * np.sign(np.stack([dx, dy], axis=1)), 0.0)


def _gradients(
    maps: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Return central differences at (x, y), and whether it has neighbors on all sides."""
    height, width = maps.shape[1:]
    inner = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
    row = np.arange(len(maps))
    x, y = x.clip(1, width - 2), y.clip(1, height - 2)
    dx = (maps[row, y, x + 1] - maps[row, y, x - 1]) / 2
    dy = (maps[row, y + 1, x] - maps[row, y - 1, x]) / 2
    return (dx, dy), inner


def _dark_offsets(maps: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return one Newton step on the logarithm of the smoothed maps, at most a pixel each way."""
    sigma = target_sigma(maps.shape[1])
    smooth = np.stack([gaussian_filter(heatmap, sigma / 2, mode="constant") for heatmap in maps])
    log = np.log(np.maximum(smooth, 1e-10))
    (dx, dy), inner = _gradients(log, x, y)
    row, height, width = np.arange(len(maps)), *maps.shape[1:]
    x, y = x.clip(1, width - 2), y.clip(1, height - 2)
    dxx = log[row, y, x + 1] - 2 * log[row, y, x] + log[row, y, x - 1]
    dyy = log[row, y + 1, x] - 2 * log[row, y, x] + log[row, y - 1, x]
    dxy = (
        log[row, y + 1, x + 1]
        - log[row, y - 1, x + 1]
        - log[row, y + 1, x - 1]
        + log[row, y - 1, x - 1]
    ) / 4
    determinant = dxx * dyy - dxy**2
    usable = inner & (determinant > 1e-9) & (dxx < 0)
    safe = np.where(usable, determinant, 1.0)
    step = np.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], axis=1) / safe[:, None]
    return np.where(usable[:, None], step.clip(-1, 1), 0.0)


# Factor before the softmax: a correct peak of height 1 gets nearly all of its mass.
SHARPNESS = 12.0
LOCATION_WEIGHT = 0.01
EPSILON = 1e-6


def heatmap_loss(targets: Any, maps: Any) -> Any:
    """Return the loss of heat maps, a tensor of shape (batch,).

    It is the sum of the published mean squared error, which trains the height of a map, and a
    cross-entropy over its pixels, which trains the location and has a gradient where the former has
    none. Joints without annotation do not count.

    Args:
        targets: Target heat maps (batch, height, width, joints).
        maps: Predicted heat maps of the same shape.
    """
    import keras

    ops = keras.ops
    targets = ops.cast(targets, maps.dtype)
    annotated = ops.cast(targets[:, 0, 0, :] != UNANNOTATED, maps.dtype)
    heights = ops.maximum(targets, 0.0)
    squares = ops.mean(ops.square(maps - heights), axis=(1, 2))
    flat_shape = int(maps.shape[1]) * int(maps.shape[2]), int(maps.shape[3])
    distribution = ops.reshape(heights, (-1, *flat_shape))
    distribution = distribution / (ops.sum(distribution, axis=1, keepdims=True) + EPSILON)
    logs = ops.log_softmax(ops.reshape(maps, (-1, *flat_shape)) * SHARPNESS, axis=1)
    entropies = -ops.sum(distribution * logs, axis=1)
    return ops.mean(annotated * (squares + LOCATION_WEIGHT * entropies), axis=-1)


# Weight of the mask's loss beside that of the heat maps, which is mostly the entropy of the targets
# and has no gradient.
MASK_WEIGHT = 0.03


def mask_loss(targets: Any, logits: Any) -> Any:
    """Return the loss of masks, a tensor of shape (batch,).

    It is the sum of the binary cross-entropy and of the Dice loss (Milletari et al., "V-Net", 3DV
    2016), which does not depend on how large the person is. Pixels that are `UNANNOTATED` do not
    count.

    Args:
        targets: Target masks (batch, height, width) in [0, 1].
        logits: Predicted logits of the same shape.
    """
    import keras

    ops = keras.ops
    targets = ops.cast(targets, logits.dtype)
    annotated = ops.cast(targets != UNANNOTATED, logits.dtype)
    targets = ops.maximum(targets, 0.0)
    probabilities = ops.sigmoid(logits)
    entropies = ops.relu(logits) - logits * targets + ops.softplus(-ops.abs(logits))
    count = ops.maximum(ops.sum(annotated, axis=(1, 2)), 1.0)
    entropy = ops.sum(annotated * entropies, axis=(1, 2)) / count
    both = ops.sum(annotated * probabilities * targets, axis=(1, 2))
    total = ops.sum(annotated * (probabilities + targets), axis=(1, 2))
    dice = 1 - (2 * both + 1) / (total + 1)
    return entropy + dice


# Weight of the box's loss where all heads are trained together.
BOX_WEIGHT = 0.06


def box_loss(targets: Any, boxes: Any) -> Any:
    """Return the loss of boxes, a tensor of shape (batch,).

    It is the sum of the absolute differences and of 1 - IoU. Boxes that are `UNANNOTATED` do not
    count.

    Args:
        targets: Target boxes (batch, 4): left, top, right and bottom relative to the view.
        boxes: Predicted boxes of the same shape.
    """
    import keras

    ops = keras.ops
    targets = ops.cast(targets, boxes.dtype)
    annotated = ops.cast(targets[:, 0] != UNANNOTATED, boxes.dtype)

    def area(low: Any, high: Any) -> Any:
        return ops.prod(ops.relu(high - low), axis=1)

    low, high = ops.maximum(targets, boxes)[:, :2], ops.minimum(targets, boxes)[:, 2:]
    both = area(low, high)
    total = sum(area(corners[:, :2], corners[:, 2:]) for corners in (targets, boxes)) - both
    differences = ops.sum(ops.abs(boxes - targets), axis=1)
    return annotated * (differences + 1 - both / (total + EPSILON))
