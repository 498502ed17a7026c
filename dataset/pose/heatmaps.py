"""Convert between images, network views and heat maps.

A view is the part of an image that the network sees. It is described by an affine (2, 3) float
matrix from the view's pixels to the image's. Coordinates are those of pixel centers: 0 is the
center of the first pixel, as in COCO's files.

Key points are float arrays of shape (joints, 7): x, y and score, and left, top, right and bottom of
the region where the joint may be; or (joints, 3) without that region.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from dataset.pose.models import STRIDE

# Margin around the person's box, as published.
BOX_SCALE = 1.25
# Columns of key points that are x and y: the point and two corners of its region.
COORDINATE_COLUMNS = slice(0, 2), slice(3, 5), slice(5, 7)


def person_view(
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    widen: float = BOX_SCALE,
    turn: float = 0.0,
) -> np.ndarray:
    """Return the view that shows a box in its middle.

    The box is extended to the view's aspect ratio, scaled and rotated.

    Args:
        box: Left, top, width and height in pixels of the image.
        size: Height and width of the view.
        widen: Factor for the size of the box.
        turn: Rotation in degrees.
    """
    left, top, width, height = box
    scale = max(width / size[1], height / size[0]) * widen
    a, b = scale * np.cos(np.radians(turn)), scale * np.sin(np.radians(turn))
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
        photo: An RGB image.
        view: The view.
        size: Its height and width.

    Returns:
        Uint8 array of shape (height, width, 3).
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
        network learns which part of a person it sees.
    """
    sigma = target_sigma(size[0])
    x, y = points[:, 0] / STRIDE, points[:, 1] / STRIDE
    inside = (x > -0.5) & (y > -0.5) & (x < size[1] - 0.5) & (y < size[0] - 0.5)
    across = np.exp(-((np.arange(size[1])[:, None] - x) ** 2) / (2 * sigma**2))
    down = np.exp(-((np.arange(size[0])[:, None] - y) ** 2) / (2 * sigma**2))
    maps = down[:, None, :] * across[None, :, :]
    maps = np.where(inside, maps, 0.0)
    return np.where(points[:, 2] > 0, maps, UNANNOTATED).astype(np.float32)


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
