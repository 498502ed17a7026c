"""Outlines: every shape is a polygon, an array (n, 2) of x, y in pixels, y downwards."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFilter

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


Pixels = NDArray[np.floating[Any]]
Colour = tuple[float, float, float]
# An edge is the mean of 3 x 3 samples a pixel.
SAMPLES = 3
MARGIN = 10


class Texture(Protocol):
    """A cloth: the colours at places given in pixels."""

    def at(self, x: Pixels, y: Pixels) -> Pixels:
        """RGB 0..255, (h, w, 3), for X (1, w) and Y (h, 1)."""


@dataclass(frozen=True)
class Patch:
    """A part of the canvas and how much of each of its pixels a shape covers, 0..1."""

    left: int
    top: int
    cover: Pixels

    @property
    def window(self) -> tuple[slice, slice]:
        """The rows and columns of the canvas."""
        height, width = self.cover.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)


class Canvas:
    """A picture that grows layer by layer; `pixels` is (height, width, 3) float32 in 0..255."""

    def __init__(self, backdrop: Pixels, light: float) -> None:
        """LIGHT says where the light comes from: -1 from the left, 1 from the right."""
        self.pixels = backdrop
        self.light = light
        # How much of each pixel the person covers: shadows fall on the person only.
        self.person = np.zeros(backdrop.shape[:2], np.float32)

    def paint(
        self,
        shapes: Points | Sequence[Points],
        fill: Colour | Texture,
        *,
        relief: float = 0.0,
        depth: float = 1.0,
        shadow: float = 0.0,
        folds: Sequence[Points] = (),
        opacity: float = 1.0,
    ) -> None:
        """Lay SHAPES over the picture, filled.

        RELIEF is how round they look, as the reach of the shading in pixels (0: flat), and DEPTH
        how strong; SHADOW, in pixels, is how far they darken the person behind them; FOLDS are
        soft creases; OPACITY 1 hides what is behind.
        """
        patch = self._patch([shapes] if isinstance(shapes, np.ndarray) else shapes)
        if patch is None:
            return
        if shadow:
            self._darken(patch, shadow)
        colour = _colours(fill, patch)
        if relief:
            colour = colour * self._relief(patch, relief, depth, folds)[:, :, None]
        cover = (patch.cover * opacity)[:, :, None]
        below = self.pixels[patch.window]
        below += (np.clip(colour, 0, 255) - below) * cover
        if opacity == 1:
            np.maximum(self.person[patch.window], patch.cover, out=self.person[patch.window])

    def glow(self, shapes: Sequence[Points], gain: float, blur: float) -> None:
        """Brighten (GAIN above 1) or darken what SHAPES cover, with edges soft over BLUR pixels."""
        patch = self._patch(shapes, margin=int(3 * blur))
        if patch is not None:
            soft = _blurred(patch.cover, blur)
            self.pixels[patch.window] *= (1 + (gain - 1) * soft)[:, :, None]

    def image(self) -> Image.Image:
        """The picture as RGB."""
        return Image.fromarray(np.clip(self.pixels + 0.5, 0, 255).astype(np.uint8))

    def _patch(self, shapes: Sequence[Points], margin: int = MARGIN) -> Patch | None:
        """The coverage of SHAPES together, or None when none of them is on the canvas."""
        height, width = self.pixels.shape[:2]
        corners = np.vstack(shapes)
        left, top = np.maximum(corners.min(axis=0).astype(int) - margin, 0)
        right, bottom = np.minimum(corners.max(axis=0).astype(int) + margin, (width, height))
        if right <= left or bottom <= top:
            return None
        size = ((right - left) * SAMPLES, (bottom - top) * SAMPLES)
        mask = Image.new("L", size)
        draw = ImageDraw.Draw(mask)
        for shape in shapes:
            places = (shape - (left, top)) * SAMPLES
            draw.polygon(places.ravel().tolist(), fill=255)
        return Patch(int(left), int(top), np.asarray(mask.reduce(SAMPLES), np.float32) / 255)

    def _darken(self, patch: Patch, reach: float) -> None:
        soft = _blurred(patch.cover, reach) * self.person[patch.window]
        self.pixels[patch.window] *= (1 - 0.38 * soft)[:, :, None]

    def _relief(self, patch: Patch, reach: float, depth: float, folds: Sequence[Points]) -> Pixels:
        """What to multiply colours by, (h, w): lighter towards the light, darker away from it."""
        soft = _blurred(patch.cover, reach)
        step = max(1, int(reach * 0.7))
        towards = _shifted(soft, -step) - _shifted(soft, step)
        shade = 0.97 + depth * (0.2 * -self.light * towards - 0.12 * (1 - soft))
        if folds:
            crease = self._crease(patch, folds, reach)
            lit = np.roll(crease, int(self.light * max(2, reach * 0.25)), axis=1)
            shade = shade - 0.2 * crease + 0.13 * lit
        return shade

    def _crease(self, patch: Patch, folds: Sequence[Points], reach: float) -> Pixels:
        height, width = patch.cover.shape
        mask = Image.new("L", (width, height))
        draw = ImageDraw.Draw(mask)
        for fold in folds:
            draw.polygon((fold - (patch.left, patch.top)).ravel().tolist(), fill=255)
        return _blurred(np.asarray(mask, np.float32) / 255, max(1.2, reach * 0.16))


def _colours(fill: Colour | Texture, patch: Patch) -> Pixels:
    if isinstance(fill, tuple):
        return np.asarray(fill, np.float32)[None, None]
    height, width = patch.cover.shape
    x = np.arange(patch.left, patch.left + width, dtype=np.float32)[None, :]
    y = np.arange(patch.top, patch.top + height, dtype=np.float32)[:, None]
    return fill.at(x, y)


def _blurred(cover: Pixels, reach: float) -> Pixels:
    """COVER blurred over REACH pixels, at a quarter of its size where that can't be seen."""
    scale = 4 if reach > 6 else 1
    image = Image.fromarray((cover * 255).astype(np.uint8))
    small = image.reduce(scale) if scale > 1 and min(image.size) >= scale else image
    soft = small.filter(ImageFilter.GaussianBlur(reach / scale))
    if soft.size != image.size:
        soft = soft.resize(image.size, Image.Resampling.BILINEAR)
    return np.asarray(soft, np.float32) / 255


def _shifted(values: Pixels, by: int) -> Pixels:
    """VALUES moved BY columns to the right, zeros coming in."""
    moved = np.zeros_like(values)
    if abs(by) >= values.shape[1]:
        return moved
    if by > 0:
        moved[:, by:] = values[:, :-by]
    else:
        moved[:, :by] = values[:, -by:]
    return moved
