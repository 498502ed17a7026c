"""Outlines: every shape is a polygon, an array (n, 2) of x, y in pixels, y downwards."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]


def curve(points: ArrayLike, steps: int = 8, closed: bool = False) -> Points:
    """A smooth line through POINTS (n, 2): Catmull-Rom with STEPS points a span."""
    p = np.asarray(points, float)
    padded = np.vstack([p[-1:], p, p[:2]]) if closed else np.vstack([p[:1], p, p[-1:]])
    a, b, c, d = padded[:-3, None], padded[1:-2, None], padded[2:-1, None], padded[3:, None]
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    spans = 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )
    line: Points = spans.reshape(-1, 2)
    return line if closed else np.vstack([line, p[-1:]])


def normals(path: Points) -> Points:
    """Unit vectors (n, 2) to the right of someone who walks along PATH on the screen."""
    along = np.gradient(path, axis=0)
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    return np.column_stack([-along[:, 1], along[:, 0]])


def ribbon(path: ArrayLike, widths: ArrayLike) -> Points:
    """The band around PATH (n, 2), as far to each side as WIDTHS (one or n) say; flat ends."""
    p = np.asarray(path, float)
    offset = normals(p) * np.broadcast_to(np.asarray(widths, float), len(p))[:, None]
    return np.vstack([p + offset, (p - offset)[::-1]])


def oval(centre: ArrayLike, rx: float, ry: float | None = None, turn: float = 0.0) -> Points:
    """An ellipse about CENTRE with radii RX and RY, turned by TURN radians."""
    t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    p = np.column_stack([np.cos(t) * rx, np.sin(t) * (rx if ry is None else ry)])
    return p @ rotation(turn).T + np.asarray(centre, float)


def box(left: float, top: float, right: float, bottom: float) -> Points:
    """A rectangle with upright sides."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)


def rotation(turn: float) -> Points:
    """The matrix (2, 2) that turns by TURN radians."""
    c, s = np.cos(turn), np.sin(turn)
    return np.array([[c, -s], [s, c]])


def moved(place: Points, x: float, y: float) -> Points:
    """PLACE, or each of many, X to the right and Y down."""
    return place + np.array([x, y])


def blend(a: Points, b: Points, t: float) -> Points:
    """The point T of the way from A to B."""
    return a + (b - a) * t


def dashes(path: Points, count: int, width: float) -> list[Points]:
    """A dashed line of COUNT pieces along PATH, each as wide as WIDTH."""
    at = np.linspace(0, len(path) - 1, 2 * count)
    x, y = (np.interp(at, np.arange(len(path)), path[:, i]) for i in (0, 1))
    ends = np.column_stack([x, y])
    return [ribbon(ends[i : i + 2], width / 2) for i in range(0, len(ends) - 1, 2)]


def together(*parts: Points | Sequence[Points]) -> list[Points]:
    """All polygons of PARTS in one list."""
    flat: list[Points] = []
    for part in parts:
        flat.extend([part] if isinstance(part, np.ndarray) else part)
    return flat
