"""Augment photos with random transforms: mirror, rotate, scale, cutout and colour.

Cutout: DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout",
2017, https://arxiv.org/abs/1708.04552.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageEnhance

from dataset.errors import BadInput
from dataset.images.io import apply_to_channels
from model.data.loading import Example, SplitData, letterbox, read_images

# Transform -> default strength, maximum, and the meaning of the strength.
TRANSFORMS: Mapping[str, tuple[float, float, str]] = {
    "mirror": (0.5, 1.0, "probability of a horizontal flip"),
    "rotate": (15.0, 180.0, "degrees at most, in either direction"),
    "scale": (0.2, 0.9, "0.2: factors from 1/1.2 to 1.2"),
    "cutout": (0.3, 0.9, "side of a grey square as a fraction of the photo's side"),
    "colour": (0.2, 0.9, "largest relative change of brightness, contrast and saturation"),
}
GREY, OPAQUE = 128, 255


@dataclass(frozen=True)
class ImageAugmentation:
    """Random transforms of a photo.

    Attributes:
        transforms: Pairs of a name in TRANSFORMS and its strength, in the order of TRANSFORMS.
    """

    transforms: tuple[tuple[str, float], ...] = ()

    def __str__(self) -> str:
        return ",".join(f"{name}={strength:g}" for name, strength in self.transforms) or "none"

    def __bool__(self) -> bool:
        return bool(self.transforms)

    @property
    def is_mirror_only(self) -> bool:
        """Whether a horizontal flip is the only transform."""
        return [name for name, _ in self.transforms] == ["mirror"]

    def apply(
        self, pixels: np.ndarray, rng: np.random.Generator, mirror: bool | None = None
    ) -> np.ndarray:
        """Return an augmented photo.

        Args:
            pixels: Uint8 array of shape (size, size, channels): RGB, or RGB and opacity.
            rng: Source of the random strengths.
            mirror: Whether to flip the photo, if `mirror` is one of the transforms; None: at
                random.

        Returns:
            Uint8 array of the same shape.
        """
        strengths = dict(self.transforms)
        if mirror is not None and "mirror" in strengths:
            strengths["mirror"] = float(mirror)
        photo = _apply_affine(Image.fromarray(pixels), strengths, rng)
        if "colour" in strengths:
            # The enhancers keep the alpha channel.
            photo = _jitter_colour(photo, strengths["colour"], rng)
        if "cutout" not in strengths:
            return np.asarray(photo)
        return _cut_out(np.array(photo), strengths["cutout"], rng)


def parse_augmentation(words: Iterable[str]) -> ImageAugmentation:
    """Parse `mirror`, `rotate=15`, ...; `none` or no words: no transforms.

    Raises:
        BadInput: A transform is unknown, or a strength is out of range.
    """
    strengths: dict[str, float] = {}
    for word in words:
        name, has_value, text = word.partition("=")
        name = {"color": "colour"}.get(name.strip(), name.strip())
        if name == "none" and not has_value:
            continue
        if name not in TRANSFORMS:
            raise BadInput(
                f"--augment {word}: unknown transform; choose from {', '.join(TRANSFORMS)}, none"
            )
        default, maximum, meaning = TRANSFORMS[name]
        try:
            strength = float(text) if has_value else default
        except ValueError:
            strength = math.nan
        if not 0 < strength <= maximum:
            raise BadInput(
                f"--augment {word}: {name} takes a number above 0 and up to {maximum:g} ({meaning})"
            )
        strengths[name] = strength
    return ImageAugmentation(
        tuple((name, strengths[name]) for name in TRANSFORMS if name in strengths)
    )


def _apply_affine(
    photo: Image.Image, strengths: Mapping[str, float], rng: np.random.Generator
) -> Image.Image:
    """Flip, rotate and scale a photo about its centre; the background is white."""
    is_mirrored = rng.random() < strengths.get("mirror", 0)
    angle = math.radians(rng.uniform(-1, 1) * strengths.get("rotate", 0))
    # Uniform in the logarithm: enlarging by 1.2 is as likely as reducing by 1.2.
    zoom = math.exp(rng.uniform(-1, 1) * math.log1p(strengths.get("scale", 0)))
    if is_mirrored:
        photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if not angle and zoom == 1:
        return photo
    cos, sin, centre = math.cos(angle) / zoom, math.sin(angle) / zoom, photo.width / 2
    matrix = (
        *(cos, -sin, centre - cos * centre + sin * centre),
        *(sin, cos, centre - sin * centre - cos * centre),
    )
    method, filter_ = Image.Transform.AFFINE, Image.Resampling.BILINEAR
    return apply_to_channels(
        photo, lambda image: image.transform(image.size, method, matrix, filter_, fillcolor="white")
    )


def _jitter_colour(photo: Image.Image, maximum: float, rng: np.random.Generator) -> Image.Image:
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        photo = enhancer(photo).enhance(1 + rng.uniform(-maximum, maximum))
    return photo


def _cut_out(pixels: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Cover a grey square whose centre may be anywhere, so that a part may lie outside."""
    size = len(pixels)
    half = max(1, round(fraction * size / 2))
    y, x = rng.integers(0, size, 2)
    square = pixels[max(0, y - half) : y + half, max(0, x - half) : x + half]
    square[..., :3], square[..., 3:] = GREY, OPAQUE
    return pixels


ROWS, COLUMNS, SIDE_PIXELS, GAP_PIXELS = 5, 6, 150, 4


def render_samples(
    data: SplitData, examples: Sequence[Example], augmentation: ImageAugmentation, seed: int
) -> bytes | None:
    """Render some photos, one per row: the original first, then augmented versions.

    Returns:
        A PNG; None if nothing is augmented.
    """
    if not augmentation or not examples:
        return None
    chosen = [examples[index] for index in np.linspace(0, len(examples) - 1, ROWS).astype(int)]
    unique = list(dict.fromkeys(chosen))
    photos = read_images(data.folder, unique, partial(letterbox, size=SIDE_PIXELS))
    rows = []
    for index, (_, photo) in enumerate(photos):
        if isinstance(photo, str):
            continue
        rng = np.random.default_rng((seed, index))
        rows.append([photo, *(augmentation.apply(photo, rng) for _ in range(COLUMNS - 1))])
    step = SIDE_PIXELS + GAP_PIXELS
    sheet = Image.new("RGB", (COLUMNS * step - GAP_PIXELS, len(rows) * step - GAP_PIXELS), "white")
    for y, row in enumerate(rows):
        for x, photo in enumerate(row):
            sheet.paste(Image.fromarray(photo[..., :3]), (x * step, y * step))
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()
