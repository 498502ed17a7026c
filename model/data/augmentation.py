"""Augmentation: photos changed at random so that a label does not hang on how it was taken.

Mirror, rotate, scale and cutout are the thesis' four; cutout is DeVries & Taylor, "Improved
Regularization of Convolutional Neural Networks with Cutout", 2017.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageEnhance

from dataset.errors import BadInput
from model.data.loading import Data, Example, boxed, read

# Name -> its strength where none is said, the most that makes sense, and what it means.
KINDS: Mapping[str, tuple[float, float, str]] = {
    "mirror": (0.5, 1.0, "share of photos that are mirrored left to right"),
    "rotate": (15.0, 180.0, "degrees at most, to either side"),
    "scale": (0.2, 0.9, "0.2: between 1/1.2 and 1.2 times as large"),
    "cutout": (0.3, 0.9, "side of a grey square at a random place, of the photo's side"),
    "colour": (0.2, 0.9, "brightness, contrast and saturation, each changed by so much at most"),
}
WHITE, GREY = (255, 255, 255), 128


@dataclass(frozen=True)
class Augmentation:
    """What is done to a photo: pairs of a name of KINDS and its strength, in KINDS' order."""

    steps: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        return ",".join(f"{name}={strength:g}" for name, strength in self.steps) or "none"

    def __bool__(self) -> bool:
        return bool(self.steps)

    @property
    def mirrors_only(self) -> bool:
        """Whether there is nothing random but left and right."""
        return [name for name, _ in self.steps] == ["mirror"]

    def apply(
        self, pixels: np.ndarray, rng: np.random.Generator, mirror: bool | None = None
    ) -> np.ndarray:
        """PIXELS, (size, size, 3) uint8, changed as RNG draws; the same shape.

        MIRROR says whether a photo is mirrored, where the augmentation mirrors at all.
        """
        strength = dict(self.steps)
        if mirror is not None and "mirror" in strength:
            strength["mirror"] = float(mirror)
        photo = _moved(Image.fromarray(pixels), strength, rng)
        if "colour" in strength:
            photo = _coloured(photo, strength["colour"], rng)
        if "cutout" not in strength:
            return np.asarray(photo)
        return _cut_out(np.array(photo), strength["cutout"], rng)


def parse(words: Iterable[str]) -> Augmentation:
    """`mirror`, `rotate=15`, … -> what they mean; no words or `none`: nothing is changed.

    Raises:
        BadInput: a name that is none of KINDS, or a strength out of its range.
    """
    found: dict[str, float] = {}
    for word in words:
        name, given, text = word.partition("=")
        name = {"color": "colour"}.get(name.strip(), name.strip())
        if name == "none" and not given:
            continue
        if name not in KINDS:
            raise BadInput(f"--augment {word}: no such change; there are {', '.join(KINDS)}, none")
        usual, most, meaning = KINDS[name]
        try:
            strength = float(text) if given else usual
        except ValueError:
            strength = math.nan
        if not 0 < strength <= most:
            raise BadInput(f"--augment {word}: {name} takes a number to {most:g} ({meaning})")
        found[name] = strength
    return Augmentation(tuple((name, found[name]) for name in KINDS if name in found))


def _moved(
    photo: Image.Image, strength: Mapping[str, float], rng: np.random.Generator
) -> Image.Image:
    """PHOTO mirrored, turned and scaled about its middle in one step; white comes in."""
    mirror = rng.random() < strength.get("mirror", 0)
    angle = math.radians(rng.uniform(-1, 1) * strength.get("rotate", 0))
    # As likely 1.2 times as large as 1.2 times as small.
    zoom = math.exp(rng.uniform(-1, 1) * math.log1p(strength.get("scale", 0)))
    if mirror:
        photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if not angle and zoom == 1:
        return photo
    cos, sin, middle = math.cos(angle) / zoom, math.sin(angle) / zoom, photo.width / 2
    place = (
        *(cos, -sin, middle - cos * middle + sin * middle),
        *(sin, cos, middle - sin * middle - cos * middle),
    )
    method, smooth = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    return photo.transform(photo.size, method, place, smooth, fillcolor=WHITE)


def _coloured(photo: Image.Image, most: float, rng: np.random.Generator) -> Image.Image:
    kinds = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for kind in kinds:
        photo = kind(photo).enhance(1 + rng.uniform(-most, most))
    return photo


def _cut_out(pixels: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """A grey square whose middle may lie anywhere, so that part of it may fall outside."""
    size = len(pixels)
    half = max(1, round(share * size / 2))
    y, x = rng.integers(0, size, 2)
    pixels[max(0, y - half) : y + half, max(0, x - half) : x + half] = GREY
    return pixels


ROWS, COLUMNS, SIDE, GAP = 5, 6, 150, 4


def samples_png(
    data: Data, examples: Sequence[Example], augmentation: Augmentation, seed: int
) -> bytes | None:
    """Some of EXAMPLES, a row each: first as it is, then as AUGMENTATION changes it; a PNG.

    None where nothing is changed.
    """
    if not augmentation or not examples:
        return None
    chosen = [examples[place] for place in np.linspace(0, len(examples) - 1, ROWS).astype(int)]
    wanted = list(dict.fromkeys(chosen))
    rows = []
    for place, (_, photo) in enumerate(read(data.folder, wanted, partial(boxed, size=SIDE))):
        if isinstance(photo, str):
            continue
        rng = np.random.default_rng((seed, place))
        rows.append([photo, *(augmentation.apply(photo, rng) for _ in range(COLUMNS - 1))])
    step = SIDE + GAP
    sheet = Image.new("RGB", (COLUMNS * step - GAP, len(rows) * step - GAP), "white")
    for y, row in enumerate(rows):
        for x, photo in enumerate(row):
            sheet.paste(Image.fromarray(photo), (x * step, y * step))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()
