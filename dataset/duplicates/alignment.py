"""How alike two photos are: one is laid over the other as well as it can be, then compared.

Shift, scale, shear and small turns are found by Gauss-Newton on the little pictures, first on
pictures of half the side (Lucas-Kanade with gain and offset taken out, so light does not count).
What is compared is the detail that is left when the picture's own blur is subtracted: two garments
laid out alike share their outline, not their folds.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from dataset.duplicates.hashing import Fingerprint

# From benchmarks/duplicates.py; the README has the table. Above FOLD at least 999 pairs of 1,000
# are one photo; from POSSIBLE on they may be, and stay in one split.
DUPLICATE_SIMILARITY, POSSIBLE_SIMILARITY = 0.93, 0.86
# Standard deviations of the blurs, in parts of a side: for either step, and for the detail.
COARSE, FINE, DETAIL = 1 / 30, 1 / 70, 1 / 24
STEPS_COARSE, STEPS_FINE = 12, 5
# A residual of this many standard deviations counts half; a step is damped by this part.
ROBUST, DAMPING = 0.7, 1e-3
# A pair that is this different after the coarse step is not looked at again.
HOPELESS = 0.4
# The worst pixels, a twentieth, may be a watermark.
KEPT = 0.95
# Less of the photo than this in common is no copy.
LEAST_OVERLAP = 0.5
# Colours that vary less than this tell nothing; below this correlation they differ.
GREYISH, SAME_COLOURS = 3.0, 0.6
# So many stay in the cache.
BATCH_PAIRS = 32


def similarity(
    ones: Sequence[Fingerprint], others: Sequence[Fingerprint], turns: np.ndarray
) -> np.ndarray:
    """How alike each of ONES and its one of OTHERS are: (n,) float32, at most 1.

    TURNS: (n,) int, how the other one is turned first (see search.py); True mirrors it.
    """
    found = np.zeros(len(ones), np.float32)
    for start in range(0, len(ones), BATCH_PAIRS):
        part = slice(start, start + BATCH_PAIRS)
        turned = [
            (_turned(f.picture, int(turn)), _turned(f.colours, int(turn)))
            for f, turn in zip(others[part], turns[part], strict=True)
        ]
        found[part] = _alike(
            np.asarray([f.picture for f in ones[part]], np.float32),
            np.asarray([picture for picture, _ in turned], np.float32),
        )
        differ = ~_colours_agree(
            np.asarray([f.colours for f in ones[part]], np.float32),
            np.asarray([colours for _, colours in turned], np.float32),
        )
        # The same thing in another colour: worth keeping together, never one photo.
        found[part][differ] = np.minimum(
            found[part][differ], np.float32(DUPLICATE_SIMILARITY - 1e-3)
        )
    return found


def _turned(picture: np.ndarray, turn: int) -> np.ndarray:
    """PICTURE, (…, side, side), mirrored where TURN is odd, then turned left by its quarters."""
    return np.rot90(picture[..., ::-1] if turn % 2 else picture, turn // 2, (-2, -1))


def _alike(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Likeness of ONES and OTHERS, both (n, side, side) float32."""
    found = np.zeros(len(ones), np.float32)
    half, its_half = _halved(ones), _halved(others)
    moves = np.zeros((len(ones), 6), np.float32)
    moves = _align(_blurred(half, COARSE), _blurred(its_half, COARSE), moves, STEPS_COARSE)
    worth = np.flatnonzero(_compare(half, its_half, moves) > HOPELESS)
    if len(worth):
        ones, others, moves = ones[worth], others[worth], moves[worth]
        moves = _align(_blurred(ones, FINE), _blurred(others, FINE), moves, STEPS_FINE)
        found[worth] = _compare(ones, others, moves)
    return found


def _halved(pictures: np.ndarray) -> np.ndarray:
    count, side, _ = pictures.shape
    return pictures.reshape(count, side // 2, 2, side // 2, 2).mean((2, 4))


def _blurred(pictures: np.ndarray, part: float) -> np.ndarray:
    blur = _blur(pictures.shape[1], part)
    return blur @ pictures @ blur.T


@lru_cache
def _blur(side: int, part: float) -> np.ndarray:
    """(SIDE, SIDE) float32: what blurs a line of pixels, by PART of it; edges are mirrored.

    A product of matrices takes less than a filter here, and no library that is large to import.
    """
    sigma = part * side
    reach = int(4 * sigma + 0.5)
    away = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (away / sigma) ** 2)
    found = np.zeros((side, side))
    # Mirrored at the edge of the first and last pixel: 1 0 | 0 1 2 … | n-1 n-2.
    places = (np.arange(side)[:, None] + away) % (2 * side)
    np.add.at(
        found,
        (np.arange(side)[:, None], np.minimum(places, 2 * side - 1 - places)),
        weights / weights.sum(),
    )
    return found.astype(np.float32)


@lru_cache
def _places(side: int) -> np.ndarray:
    """x, y of each pixel in parts of a side, from the middle, and 1: (3, side * side) float32."""
    line = ((np.arange(side) - (side - 1) / 2) / side).astype(np.float32)
    x, y = np.meshgrid(line, line)
    return np.stack([x, y, np.ones_like(x)]).reshape(3, -1)


class _Moved:
    """Where MOVES, (n, 6) affine, take each of SIDE x SIDE pixels: between which, and how far.

    `inside`: (n, side * side) float32, 1 where that is within the picture.
    """

    def __init__(self, side: int, moves: np.ndarray) -> None:
        places = _places(side)
        # Here for x and y: (n, 2, side * side), in pixels.
        to = (moves.reshape(-1, 2, 3) @ places + places[:2]) * side + np.float32((side - 1) / 2)
        kept = np.minimum(np.maximum(to, 0), np.float32(side - 1))
        self.inside = (to == kept).all(1).astype(np.float32)
        to = np.minimum(kept, np.float32(side - 1.001))
        whole = to.astype(np.int32)
        (right, down), (column, row) = (to - whole).swapaxes(0, 1), whole.swapaxes(0, 1)
        first = (np.arange(len(moves), dtype=np.int32) * (side * side))[:, None]
        self._at = first + row * np.int32(side) + column
        low = right * down
        self._corners = (
            (0, 1 - right - down + low),
            (1, right - low),
            (side, down - low),
            (side + 1, low),
        )

    def sample(self, planes: np.ndarray) -> np.ndarray:
        """PLANES, (k, n * side * side), there: bilinear, (k, n, side * side)."""
        parts = [planes.take(self._at + step, 1) * part for step, part in self._corners]
        return (parts[0] + parts[1]) + (parts[2] + parts[3])


def _mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of VALUES, (…, n, pixels), by WEIGHTS, (n, pixels): (…, n, 1)."""
    total = weights.sum(-1, keepdims=True) + 1e-6
    return np.einsum("...np,np->...n", values, weights)[..., None] / total


def _scale(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """VALUES, (…, n, pixels), less their mean, and the deviation of each picture, (…, n, 1)."""
    centred = values - _mean(values, weights)
    return centred, np.sqrt(_mean(centred * centred, weights)) + 1e-3


def _align(ones: np.ndarray, others: np.ndarray, moves: np.ndarray, steps: int) -> np.ndarray:
    """MOVES, (n, 6), made better by STEPS: OTHERS moved by them lie on ONES."""
    count, side, _ = ones.shape
    places = _places(side)
    slope_y, slope_x = np.gradient(others, axis=(1, 2))
    planes = np.stack([others, slope_x, slope_y]).reshape(3, -1)
    ones, damping = ones.reshape(1, count, -1), np.eye(6, dtype=np.float32) * (DAMPING / 6)
    for _ in range(steps):
        moved = _Moved(side, moves)
        seen = moved.sample(planes)
        scaled, deviations = _scale(np.concatenate([ones, seen[:1]]), moved.inside)
        one, other = scaled / deviations
        wrong = one - other
        weights = moved.inside / (1 + (wrong / ROBUST) ** 2)
        slopes = (seen[1:] * (side / deviations[1])).swapaxes(0, 1)
        slopes = (slopes[:, :, None] * places).reshape(count, 6, -1)
        weighed = slopes * weights[:, None]
        square = weighed @ slopes.transpose(0, 2, 1)
        size = np.trace(square, axis1=1, axis2=2)[:, None, None] + np.float32(6e-6)
        step = np.linalg.solve(square + damping * size, weighed @ wrong[..., None])
        moves = np.minimum(np.maximum(moves + step[..., 0], -0.5), 0.5)
    return moves


def _compare(ones: np.ndarray, others: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """(n,) similarity: the mean of the details' correlation over all pixels and over the best."""
    count, side, _ = ones.shape
    moved = _Moved(side, moves)
    mask = moved.inside
    both = np.concatenate([ones.reshape(1, count, -1), moved.sample(others.reshape(1, -1))])
    one, other = _detail(both, mask, side)
    apart = np.where(mask > 0, np.abs(one - other), np.inf)
    kept = np.maximum((mask.sum(1) * KEPT).astype(int) - 1, 0)
    limit = np.take_along_axis(np.sort(apart, axis=1), kept[:, None], 1)
    best = mask * (apart <= limit)
    alike = (_correlation(one, other, mask) + _correlation(one, other, best)) / 2
    return np.where(mask.mean(1) >= LEAST_OVERLAP, alike, 0)


def _detail(pictures: np.ndarray, mask: np.ndarray, side: int) -> np.ndarray:
    """PICTURES, (…, n, pixels), less their blur, evened out; one without detail stays flat."""
    centred, deviation = _scale(pictures, mask)
    sharp = centred / deviation * mask
    blurred = _blurred(sharp.reshape(-1, side, side), DETAIL).reshape(sharp.shape)
    fine, spread = _scale(sharp - blurred, mask)
    return fine / spread


def _correlation(one: np.ndarray, other: np.ndarray, mask: np.ndarray) -> np.ndarray:
    (one, own), (other, its) = _scale(one, mask), _scale(other, mask)
    return (_mean(one * other, mask) / (own * its))[:, 0]


def _colours_agree(ones: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(n,) bool: whether the colours of ONES and OTHERS, (n, 2, 8, 8), vary alike.

    A shift of all colours and their strength don't count, nor photos without colours.
    """
    flat = [c.reshape(len(c), 2, -1) for c in (ones, others)]
    one, other = (c - c.mean(2, keepdims=True) for c in flat)
    own, its = (np.sqrt((c * c).mean((1, 2))) for c in (one, other))
    correlation = (one * other).mean((1, 2)) / (own * its + 1e-6)
    return (correlation >= SAME_COLOURS) | (own < GREYISH) | (its < GREYISH)
