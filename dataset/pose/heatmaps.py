"""Views: the part of a photo that a network looks at, as an affine map, and back.

A view is a (2, 3) float matrix from the view's pixels to the photo's. Coordinates are those of
pixel centres: 0 is the centre of the first pixel, as in COCO's files.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from dataset.pose.network import STRIDE

# As published: room around the person's box.
BOX_SCALE = 1.25
# The columns of a point that are x and y: its own, and two corners of where it may be.
COORDINATE_COLUMNS = slice(0, 2), slice(3, 5), slice(5, 7)


def person_view(
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    widen: float = BOX_SCALE,
    turn: float = 0.0,
) -> np.ndarray:
    """The view of SIZE (height, width) that shows BOX (left, top, width, height) in the middle.

    The box is first brought to the view's shape, then made WIDEN times as large, then turned by
    TURN degrees.
    """
    left, top, width, height = box
    scale = max(width / size[1], height / size[0]) * widen
    a, b = scale * np.cos(np.radians(turn)), scale * np.sin(np.radians(turn))
    matrix = np.array([[a, -b, 0.0], [b, a, 0.0]])
    # The middle of the box goes to the middle of the view, as in the published code.
    middle = np.array([size[1] / 2, size[0] / 2])
    matrix[:, 2] = (left + width / 2, top + height / 2) - matrix[:, :2] @ middle
    return matrix


def mirror_view(view: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """VIEW of SIZE (height, width), left and right exchanged."""
    return view @ np.array([[-1.0, 0, size[1] - 1], [0, 1, 0], [0, 0, 1]])


def to_image(points: np.ndarray, view: np.ndarray) -> np.ndarray:
    """POINTS (..., 2) of a view's pixels in the photo's."""
    return points @ view[:, :2].T + view[:, 2]


def to_view(points: np.ndarray, view: np.ndarray) -> np.ndarray:
    """POINTS (..., 2) of the photo's pixels in the view's."""
    return (points - view[:, 2]) @ np.linalg.inv(view[:, :2]).T


def transform_points(points: np.ndarray, how: Callable[[np.ndarray], np.ndarray]) -> None:
    """HOW, done to every place (joints, 2) of POINTS, which is changed."""
    for columns in COORDINATE_COLUMNS:
        points[:, columns] = how(points[:, columns])


def render_view(photo: Image.Image, view: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What VIEW shows of PHOTO: (height, width, 3) uint8, black where the photo ends."""
    # Without this first, shrinking would skip pixels.
    step = max(1, int(np.sqrt(abs(np.linalg.det(view[:, :2])))))
    small = photo.reduce(step) if step > 1 else photo
    # Pillow counts from a pixel's corner, and the small photo's pixels are STEP wide.
    linear, shift = view[:, :2], view[:, 2]
    corner = (shift + 0.5 - linear @ (0.5, 0.5)) / step
    linear = linear / step
    data = (*linear[0], corner[0], *linear[1], corner[1])
    seen = small.transform(
        (size[1], size[0]), Image.Transform.AFFINE, data, Image.Resampling.BILINEAR
    )
    return np.asarray(seen)


# A target's value for a joint that nobody annotated: nothing is learned there.
UNANNOTATED = -1.0
# A joint may be wherever its map is at least this part of its highest value.
SPREAD_LEVEL = 0.6


def target_sigma(height: int) -> float:
    """Width of a target's bell in map pixels: as published 2 for 64 pixels, 3 for 96."""
    return max(1.5, height / 32)


def draw_targets(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Heat maps (*SIZE, joints) float32 in [0, 1] of POINTS (joints, 3): x, y in the view, known.

    A map whose joint nobody annotated is UNKNOWN everywhere; one whose joint lies outside the view
    is 0 everywhere, so that a network learns to say of half a person which half it sees.
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
    """Joints of MAPS (batch, height, width, joints): (batch, joints, 7) float.

    x, y, score; and left, top, right, bottom of where the joint may be: where its map is at least
    MAYBE of its highest value. Places in the view's pixels. The score is that value, about 0 to 1.
    The place is a quarter pixel from there toward its higher neighbour, as published; with
    DARK (Zhang et al., CVPR 2020) the top of a bell fitted there.
    """
    batch, height, width, joints = maps.shape
    flat = maps.transpose(0, 3, 1, 2).reshape(batch * joints, height, width)
    top = flat.reshape(len(flat), -1).argmax(axis=1)
    y, x = np.divmod(top, width)
    scores = flat[np.arange(len(flat)), y, x]
    place = np.stack([x, y], axis=1) + (_dark(flat, x, y) if dark else _quarter(flat, x, y))
    columns = [place * STRIDE, scores[:, None], _spread(flat, scores) * STRIDE]
    return np.concatenate(columns, axis=1).reshape(batch, joints, 7)


def _spread(maps: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Left, top, right, bottom of what is at least MAYBE of its map's SCORE, in map pixels."""
    high = maps >= SPREAD_LEVEL * scores[:, None, None]
    across: np.ndarray = np.any(high, axis=1)
    down: np.ndarray = np.any(high, axis=2)
    left, top = across.argmax(axis=1), down.argmax(axis=1)
    right = across.shape[1] - 1 - across[:, ::-1].argmax(axis=1)
    bottom = down.shape[1] - 1 - down[:, ::-1].argmax(axis=1)
    return np.stack([left, top, right, bottom], axis=1)


def _quarter(maps: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    (dx, dy), inner = _slopes(maps, x, y)
    return np.where(inner[:, None], 0.25 * np.sign(np.stack([dx, dy], axis=1)), 0.0)


def _slopes(
    maps: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Half the difference of the neighbours of (x, y), and where it has both in each direction."""
    height, width = maps.shape[1:]
    inner = (x > 0) & (x < width - 1) & (y > 0) & (y < height - 1)
    row = np.arange(len(maps))
    x, y = x.clip(1, width - 2), y.clip(1, height - 2)
    dx = (maps[row, y, x + 1] - maps[row, y, x - 1]) / 2
    dy = (maps[row, y + 1, x] - maps[row, y - 1, x]) / 2
    return (dx, dy), inner


def _dark(maps: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A Newton step on the logarithm of the smoothed maps, at most a pixel either way."""
    sigma = target_sigma(maps.shape[1])
    smooth = np.stack([gaussian_filter(one, sigma / 2, mode="constant") for one in maps])
    log = np.log(np.maximum(smooth, 1e-10))
    (dx, dy), inner = _slopes(log, x, y)
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


# A map of the right height, 1 on 0, is then nearly all of the softmax over its places.
SHARPNESS = 12.0
PLACE_WEIGHT = 0.01
TINY = 1e-6


def heatmap_loss(targets: Any, maps: Any) -> Any:
    """How far MAPS are from TARGETS, both (batch, height, width, joints): (batch,).

    The published mean squared error, which says how high a map should be, and a cross entropy over
    each map's places, which says where, and goes on teaching where the first has become tiny.
    Joints whose targets are UNKNOWN count in neither.
    """
    ops = keras.ops
    targets = ops.cast(targets, maps.dtype)
    known = ops.cast(targets[:, 0, 0, :] != UNANNOTATED, maps.dtype)
    bells = ops.maximum(targets, 0.0)
    squares = ops.mean(ops.square(maps - bells), axis=(1, 2))
    places = int(maps.shape[1]) * int(maps.shape[2]), int(maps.shape[3])
    shares = ops.reshape(bells, (-1, *places))
    shares = shares / (ops.sum(shares, axis=1, keepdims=True) + TINY)
    logs = ops.log_softmax(ops.reshape(maps, (-1, *places)) * SHARPNESS, axis=1)
    entropies = -ops.sum(shares * logs, axis=1)
    return ops.mean(known * (squares + PLACE_WEIGHT * entropies), axis=-1)
