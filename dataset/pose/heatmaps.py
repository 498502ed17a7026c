"""Heat maps: what a network is taught to draw for a joint, and the joint read from it."""

import numpy as np
from scipy.ndimage import gaussian_filter

from dataset.pose.network import STRIDE

# A target's value for a joint that nobody annotated: nothing is learned there.
UNKNOWN = -1.0
# A joint may be wherever its map is at least this part of its highest value.
MAYBE = 0.6


def sigma_of(height: int) -> float:
    """Width of a target's bell in map pixels: as published 2 for 64 pixels, 3 for 96."""
    return max(1.5, height / 32)


def draw_targets(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Heat maps (*SIZE, joints) float32 in [0, 1] of POINTS (joints, 3): x, y in the view, known.

    A map whose joint nobody annotated is UNKNOWN everywhere; one whose joint lies outside the view
    is 0 everywhere, so that a network learns to say of half a person which half it sees.
    """
    sigma = sigma_of(size[0])
    x, y = points[:, 0] / STRIDE, points[:, 1] / STRIDE
    inside = (x > -0.5) & (y > -0.5) & (x < size[1] - 0.5) & (y < size[0] - 0.5)
    across = np.exp(-((np.arange(size[1])[:, None] - x) ** 2) / (2 * sigma**2))
    down = np.exp(-((np.arange(size[0])[:, None] - y) ** 2) / (2 * sigma**2))
    maps = down[:, None, :] * across[None, :, :]
    maps = np.where(inside, maps, 0.0)
    return np.where(points[:, 2] > 0, maps, UNKNOWN).astype(np.float32)


def read_points(maps: np.ndarray, dark: bool = False) -> np.ndarray:
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
    high = maps >= MAYBE * scores[:, None, None]
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
    sigma = sigma_of(maps.shape[1])
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
