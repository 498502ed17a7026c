"""Polygon painting, and the fabrics that fill shapes.

A shape is an array (n, 2) of x, y in pixels, y downwards. Colours and patterns of fabrics are
chosen independently of the label.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from types import EllipsisType
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFilter

Points = NDArray[np.float64]
_ANGLES = np.linspace(0, 2 * np.pi, 28, endpoint=False)
UNIT_CIRCLE = np.column_stack([np.cos(_ANGLES), np.sin(_ANGLES)])


def curve(points: ArrayLike, steps: int = 8, closed: bool = False) -> Points:
    """Return a smooth line through `points` (n, 2): Catmull-Rom with `steps` points per segment."""
    p = np.asarray(points, float)
    padded = np.concatenate([p[-1:], p, p[:2]] if closed else [p[:1], p, p[-1:]])
    a, b, c, d = padded[:-3, None], padded[1:-2, None], padded[2:-1, None], padded[3:, None]
    t, t2, t3 = _powers(steps)
    spans = 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t2 + (3 * b - a - 3 * c + d) * t3
    )
    line: Points = spans.reshape(-1, 2)
    return line if closed else np.concatenate([line, p[-1:]])


@cache
def _powers(steps: int) -> tuple[Points, Points, Points]:
    """Return `steps` numbers from 0 to 1, their squares and cubes, each (1, steps, 1)."""
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    return t, t**2, t**3


def normals(path: Points) -> Points:
    """Return unit normals (n, 2) on the right of the path in the direction of travel."""
    along = np.gradient(path, axis=0)
    along /= np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)[:, None]
    return np.column_stack([-along[:, 1], along[:, 0]])


def ribbon(path: ArrayLike, widths: ArrayLike) -> Points:
    """Return the band around `path` (n, 2) with half widths `widths` (one or n) and flat ends."""
    p = np.asarray(path, float)
    offset = normals(p) * np.broadcast_to(np.asarray(widths, float), len(p))[:, None]
    return np.vstack([p + offset, (p - offset)[::-1]])


def oval(centre: ArrayLike, rx: float, ry: float | None = None, turn: float = 0.0) -> Points:
    """Return an ellipse with radii `rx` and `ry`, rotated by `turn` radians."""
    p = UNIT_CIRCLE * (rx, rx if ry is None else ry)
    return p @ rotation(turn).T + np.asarray(centre, float)


def box(left: float, top: float, right: float, bottom: float) -> Points:
    """Return an axis-aligned rectangle."""
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)


def rotation(turn: float) -> Points:
    """Return the rotation matrix (2, 2) for `turn` radians."""
    c, s = np.cos(turn), np.sin(turn)
    return np.array([[c, -s], [s, c]])


def moved(place: Points, x: float, y: float) -> Points:
    """Return one or many places moved by `x` to the right and `y` down."""
    return place + np.array([x, y])


def blend(a: Points, b: Points, t: float) -> Points:
    """Interpolate linearly from `a` (t = 0) to `b` (t = 1)."""
    return a + (b - a) * t


def dashes(path: Points, count: int, width: float) -> list[Points]:
    """Return a dashed line of `count` pieces along `path`, each `width` wide."""
    at = np.linspace(0, len(path) - 1, 2 * count)
    x, y = (np.interp(at, np.arange(len(path)), path[:, i]) for i in (0, 1))
    ends = np.column_stack([x, y])
    return [ribbon(ends[i : i + 2], width / 2) for i in range(0, len(ends) - 1, 2)]


def together(*parts: Points | Sequence[Points]) -> list[Points]:
    """Return the polygons of all parts in one list."""
    flat: list[Points] = []
    for part in parts:
        flat.extend([part] if isinstance(part, np.ndarray) else part)
    return flat


Pixels = NDArray[np.floating[Any]]
Colour = tuple[float, float, float]
# Samples per pixel along each axis, for smooth edges.
SAMPLES = 3
MARGIN = 10


class Texture(Protocol):
    """A fill: colours at pixel positions."""

    def at(self, x: Pixels, y: Pixels) -> Pixels:
        """Return RGB in 0..255, (3, h, w), for `x` (1, w) and `y` (h, 1)."""


@dataclass(frozen=True)
class Patch:
    """A region of the canvas that a shape covers.

    Attributes:
        left: Its first column.
        top: Its first row.
        mask: Coverage of each pixel by the shape, 0 to 255.
        cover: The same as (height, width) float32, 0 to 1.
    """

    left: int
    top: int
    mask: Image.Image
    cover: Pixels

    @property
    def window(self) -> tuple[EllipsisType, slice, slice]:
        """The rows and columns of the canvas."""
        height, width = self.cover.shape
        return ..., slice(self.top, self.top + height), slice(self.left, self.left + width)


class Canvas:
    """A picture that is painted in layers.

    Attributes:
        pixels: (3, height, width) float32 in 0..255. NumPy computes with whole rows of a colour
            several times faster than with the three colours of a pixel.
        light: Direction of the light, from -1 (left) to 1 (right).
        person: Coverage (0..1) of each pixel by the person, (height, width) float32.
    """

    def __init__(self, backdrop: Pixels, light: float) -> None:
        """Start with a backdrop.

        Args:
            backdrop: (3, height, width) float32 in 0..255.
            light: Direction of the light, from -1 (left) to 1 (right).
        """
        self.pixels = backdrop
        self.light = light
        # Coverage of each pixel by the person; shadows fall on the person only.
        height, width = backdrop.shape[1:]
        self.person = np.zeros((height, width), np.float32)

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
        """Paint shapes over the picture.

        Args:
            shapes: Polygons, each (n, 2).
            fill: Colour or texture.
            relief: Reach of the shading in pixels; 0 is flat.
            depth: Strength of the shading.
            shadow: Reach in pixels of the shadow on the person behind the shapes.
            folds: Soft creases.
            opacity: 1 hides what is behind.
        """
        patch = self._patch([shapes] if isinstance(shapes, np.ndarray) else shapes)
        if patch is None:
            return
        if shadow:
            self._darken(patch, shadow)
        colour = _colours(fill, patch)
        if relief:
            colour = colour * self._relief(patch, relief, depth, folds)
        below = self.pixels[patch.window]
        change = np.clip(colour, 0, 255, out=colour) - below
        change *= patch.cover if opacity == 1 else patch.cover * opacity
        below += change
        if opacity == 1:
            np.maximum(self.person[patch.window], patch.cover, out=self.person[patch.window])

    def glow(self, shapes: Sequence[Points], gain: float, blur: float) -> None:
        """Brighten (`gain` above 1) or darken the shapes; `blur` is the width of soft edges."""
        patch = self._patch(shapes, margin=int(3 * blur))
        if patch is not None:
            soft = _blurred(patch.mask, blur)
            self.pixels[patch.window] *= 1 + (gain - 1) * soft

    def image(self) -> Image.Image:
        """Return the picture as an RGB image."""
        rounded = np.clip(self.pixels + 0.5, 0, 255).astype(np.uint8)
        return Image.merge("RGB", [Image.fromarray(channel) for channel in rounded])

    def _patch(self, shapes: Sequence[Points], margin: int = MARGIN) -> Patch | None:
        """Return the common coverage of the shapes, or None where none is on the canvas."""
        height, width = self.person.shape
        corners = np.vstack(shapes)
        first, last = corners.min(axis=0), corners.max(axis=0)
        left, top = (max(0, int(value) - margin) for value in first)
        right, bottom = min(int(last[0]) + margin, width), min(int(last[1]) + margin, height)
        if right <= left or bottom <= top:
            return None
        size = ((right - left) * SAMPLES, (bottom - top) * SAMPLES)
        mask = Image.new("L", size)
        draw = ImageDraw.Draw(mask)
        for shape in shapes:
            places = (shape - (left, top)) * SAMPLES
            draw.polygon(places.ravel().tolist(), fill=255)
        cover = mask.reduce(SAMPLES)
        return Patch(left, top, cover, _as_array(cover))

    def _darken(self, patch: Patch, reach: float) -> None:
        soft = _blurred(patch.mask, reach) * self.person[patch.window]
        self.pixels[patch.window] *= 1 - 0.38 * soft

    def _relief(self, patch: Patch, reach: float, depth: float, folds: Sequence[Points]) -> Pixels:
        """Return colour factors (h, w): lighter towards the light and darker away from it."""
        soft = _blurred(patch.mask, reach)
        step = max(1, int(reach * 0.7))
        towards = _shifted(soft, -step) - _shifted(soft, step)
        shade = 0.97 + depth * (0.2 * -self.light * towards - 0.12 * (1 - soft))
        if folds:
            crease = self._crease(patch, folds, reach)
            lit = np.roll(crease, int(self.light * max(2, reach * 0.25)), axis=1)
            shade = shade - 0.2 * crease + 0.13 * lit
        return shade

    def _crease(self, patch: Patch, folds: Sequence[Points], reach: float) -> Pixels:
        mask = Image.new("L", patch.mask.size)
        draw = ImageDraw.Draw(mask)
        for fold in folds:
            draw.polygon((fold - (patch.left, patch.top)).ravel().tolist(), fill=255)
        return _blurred(mask, max(1.2, reach * 0.16))


def _colours(fill: Colour | Texture, patch: Patch) -> Pixels:
    if isinstance(fill, tuple):
        return np.array(fill, np.float32)[:, None, None]
    height, width = patch.cover.shape
    x = np.arange(patch.left, patch.left + width, dtype=np.float32)[None, :]
    y = np.arange(patch.top, patch.top + height, dtype=np.float32)[:, None]
    return fill.at(x, y)


def _blurred(mask: Image.Image, reach: float) -> Pixels:
    """Blur a mask over `reach` pixels, at a quarter of its size where that is invisible.

    Returns:
        Float32 in 0 to 1, (height, width).
    """
    scale = 4 if reach > 6 else 1
    small = mask.reduce(scale) if scale > 1 and min(mask.size) >= scale else mask
    soft = small.filter(ImageFilter.GaussianBlur(reach / scale))
    if soft.size != mask.size:
        soft = soft.resize(mask.size, Image.Resampling.BILINEAR)
    return _as_array(soft)


def _as_array(mask: Image.Image) -> Pixels:
    """Return a mask as float32 in 0 to 1, (height, width)."""
    values = np.asarray(mask).astype(np.float32)
    values /= 255
    return values


def _shifted(values: Pixels, by: int) -> Pixels:
    """Shift `values` by `by` columns to the right and fill with zeros."""
    moved = np.zeros_like(values)
    if abs(by) >= values.shape[1]:
        return moved
    if by > 0:
        moved[:, by:] = values[:, :-by]
    else:
        moved[:, :by] = values[:, -by:]
    return moved


COLOURS: dict[str, Colour] = {
    "white": (240, 238, 233),
    "ivory": (233, 222, 200),
    "sand": (205, 182, 148),
    "camel": (182, 134, 86),
    "brown": (104, 70, 50),
    "black": (38, 37, 41),
    "graphite": (75, 78, 84),
    "grey": (150, 153, 157),
    "navy": (36, 48, 84),
    "blue": (56, 98, 168),
    "sky": (148, 187, 219),
    "indigo": (66, 84, 124),
    "teal": (32, 120, 124),
    "mint": (158, 210, 188),
    "green": (54, 118, 76),
    "olive": (112, 112, 66),
    "yellow": (232, 192, 76),
    "mustard": (198, 148, 48),
    "orange": (220, 118, 58),
    "coral": (230, 124, 108),
    "red": (184, 44, 52),
    "burgundy": (108, 34, 50),
    "pink": (232, 172, 184),
    "lilac": (182, 162, 210),
    "plum": (100, 62, 104),
}
NEUTRALS = ("white", "ivory", "sand", "brown", "black", "graphite", "grey", "navy", "olive")
PATTERNS = (
    "plain",
    "plain",
    "plain",
    "stripes",
    "pinstripes",
    "checks",
    "gingham",
    "dots",
    "flowers",
)


@dataclass(frozen=True)
class Fabric:
    """A fabric; `repeat` is the pattern's period in pixels, `turn` its angle."""

    pattern: str
    base: Colour
    second: Colour
    repeat: float
    name: str = ""
    turn: float = 0.0
    centre: tuple[float, float] = (0.0, 0.0)

    def placed(self, centre: Pixels, turn: float = 0.0) -> "Fabric":
        """Return the same fabric with its origin at `centre` and its pattern rotated by `turn`."""
        return replace(self, centre=(float(centre[0]), float(centre[1])), turn=turn)

    def plain(self, gain: float = 1.0) -> Colour:
        """Return one matching colour, brighter by `gain`, for collars, cuffs and seams."""
        r, g, b = self.base
        return (r * gain, g * gain, b * gain)

    def at(self, x: Pixels, y: Pixels) -> Pixels:
        """Return RGB (3, h, w) at columns `x` (1, w) and rows `y` (h, 1)."""
        c, s = np.float32(np.cos(self.turn)), np.float32(np.sin(self.turn))
        dx, dy = x - np.float32(self.centre[0]), y - np.float32(self.centre[1])
        u, v = (dx * c + dy * s) / self.repeat, (dy * c - dx * s) / self.repeat
        # Bands curve down at the sides, as on a round body.
        v = v - 0.012 * u * u
        mix = _MIXES[self.pattern](u, v, np.float32(1.0 / self.repeat))
        base, second = (
            np.asarray(colour, np.float32)[:, None, None] for colour in (self.base, self.second)
        )
        cloth = (second - base) * np.clip(mix, 0, 1)
        cloth += base
        cloth *= _weave(x, y)
        return cloth


def _weave(x: Pixels, y: Pixels) -> Pixels:
    """Return a grain of about 1 % that does not depend on the fabric's place."""
    return 1 + np.float32(0.012) * np.sin(x * 2.1 + y * 0.9) * np.sin(y * 1.7 - x * 0.4)


def _edge(distance: Pixels, soft: np.float32) -> Pixels:
    """Return 1 inside (`distance` below 0) and 0 outside, with a transition of about a pixel."""
    return np.asarray(np.clip(0.5 - distance / (1.4 * soft), 0, 1), np.float32)


def _plain(u: Pixels, v: Pixels, soft: np.float32) -> Pixels:
    return np.zeros_like(u * v)


def _stripes(u: Pixels, v: Pixels, soft: np.float32) -> Pixels:
    return _edge(np.abs(v % 1 - 0.5) - 0.23, soft) + 0 * u


def _pinstripes(u: Pixels, v: Pixels, soft: np.float32) -> Pixels:
    return _edge(np.abs((u * 1.3) % 1 - 0.5) - 0.12, soft) + 0 * v


def _gingham(u: Pixels, v: Pixels, soft: np.float32) -> Pixels:
    across = _edge(np.abs(u % 1 - 0.5) - 0.25, soft)
    return 0.45 * across + 0.45 * _edge(np.abs(v % 1 - 0.5) - 0.25, soft)


def _checks(u: Pixels, v: Pixels, soft: np.float32) -> Pixels:
    lines = [_edge(np.abs((t * 0.55) % 1 - 0.5) - 0.16, soft) for t in (u, v)]
    thin = [_edge(np.abs((t * 0.55 + 0.45) % 1 - 0.5) - 0.03, soft) for t in (u, v)]
    return 0.38 * (lines[0] + lines[1]) + 0.6 * np.maximum(thin[0], thin[1])


def _dots(u: Pixels, v: Pixels, soft: np.float32) -> Pixels:
    row = np.floor(v)
    du, dv = (u + 0.5 * (row % 2)) % 1 - 0.5, v - row - 0.5
    return _edge(np.sqrt(du * du + dv * dv) - 0.27, soft)


def _flowers(u: Pixels, v: Pixels, soft: np.float32) -> Pixels:
    u, v = u * 0.62, v * 0.62
    row = np.floor(v)
    column = np.floor(u + 0.5 * (row % 2))
    jitter = np.sin(column * 12.9 + row * 78.2)
    du = u + 0.5 * (row % 2) - column - 0.5 - 0.12 * jitter
    dv = v - row - 0.5 + 0.12 * np.sin(jitter * 7)
    distance = np.sqrt(du * du + dv * dv)
    petals = 0.22 + 0.09 * np.cos(5 * np.arctan2(dv, du) + 3 * jitter)
    return _edge(distance - petals, soft) - 0.8 * _edge(distance - 0.07, soft)


def _denim(u: Pixels, v: Pixels, soft: np.float32) -> Pixels:
    """Return twill lines and an irregular wash."""
    twill = 0.10 * np.sin((u + v) * 40) + 0.07 * np.sin(u * 61 - v * 23)
    wash = 0.22 * np.exp(-((v - 6.5) ** 2) / 14) * np.exp(-((np.abs(u) - 2.2) ** 2) / 1.4)
    return 0.12 + twill + wash


_MIXES = {
    "plain": _plain,
    "stripes": _stripes,
    "pinstripes": _pinstripes,
    "checks": _checks,
    "gingham": _gingham,
    "dots": _dots,
    "flowers": _flowers,
    "denim": _denim,
}


def choose_fabric(rng: np.random.Generator) -> Fabric:
    """Choose any colour with any pattern; `repeat` is in units of the person's height."""
    first, second = (str(name) for name in rng.choice(list(COLOURS), 2, replace=False))
    pattern = str(rng.choice(PATTERNS))
    base, other = COLOURS[first], COLOURS[second]
    if _contrast(base, other) < 70:
        other = COLOURS["white"] if sum(base) < 420 else COLOURS["navy"]
    return Fabric(pattern, base, other, float(rng.uniform(0.022, 0.042)), first)


def choose_neutral(rng: np.random.Generator) -> Fabric:
    """Choose a plain fabric in a muted colour."""
    name = str(rng.choice(NEUTRALS))
    return Fabric("plain", COLOURS[name], COLOURS[name], 0.03, name)


def choose_denim(rng: np.random.Generator) -> Fabric:
    """Choose denim: mostly blue, or black, grey, white or dyed."""
    names = (
        "indigo",
        "indigo",
        "navy",
        "blue",
        "sky",
        "graphite",
        "grey",
        "ivory",
        "olive",
        "burgundy",
    )
    name = str(rng.choice(names))
    r, g, b = (c * rng.uniform(0.92, 1.06) for c in COLOURS[name])
    faded = (r + (235 - r) * 0.5, g + (238 - g) * 0.5, b + (240 - b) * 0.5)
    return Fabric("denim", (r, g, b), faded, 0.03, name)


def _contrast(a: Colour, b: Colour) -> float:
    return sum(abs(p - q) for p, q in zip(a, b, strict=True)) / 3 * 1.5
