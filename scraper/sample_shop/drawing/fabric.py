"""Fabrics: colours and patterns, chosen independently of the label."""

from dataclasses import dataclass, replace

import numpy as np

from scraper.sample_shop.drawing.canvas import Colour, Pixels

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
