"""Similarity of copies and of different photos."""

import io
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

import fashion_tagger
from dataset.duplicates.alignment import DUPLICATE_SIMILARITY, POSSIBLE_SIMILARITY, similarity
from dataset.duplicates.hashing import fingerprint
from dataset.images.io import open_photo

CLOTHING = Path(fashion_tagger.__file__).parents[1] / "shared" / "data" / "clothing" / "train"


def alike(one: Image.Image, other: Image.Image, mirrored: bool = False) -> float:
    return float(similarity([fingerprint(one)], [fingerprint(other)], np.array([mirrored]))[0])


def drawn(seed: int) -> Image.Image:
    """Draw a smooth scene with sharp shapes, different for each seed."""
    draw = np.random.default_rng(seed)
    scene = Image.fromarray(draw.integers(0, 256, (9, 7, 3), dtype=np.uint8))
    scene = scene.resize((280, 360), Image.Resampling.BICUBIC)
    for _ in range(12):
        x, y = int(draw.integers(0, 240)), int(draw.integers(0, 320))
        colour = tuple(int(level) for level in draw.integers(0, 256, 3))
        scene.paste(colour, (x, y, x + int(draw.integers(8, 60)), y + int(draw.integers(8, 60))))
    return scene


def encoded(photo: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    photo.save(out, "JPEG", quality=quality)
    return open_photo(out.getvalue())


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "encoded": lambda photo: encoded(photo, 20),
    "smaller": lambda photo: photo.resize((100, 130)),
    "lighter": lambda photo: ImageEnhance.Brightness(photo).enhance(1.2),
    "bordered": lambda photo: ImageOps.expand(photo, 30, "white"),
    "cropped": lambda photo: photo.crop(
        (photo.width // 14, photo.height // 40, photo.width - 6, photo.height - 20)
    ),
    "turned": lambda photo: photo.rotate(2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_is_similar(change: str) -> None:
    for seed in range(5):
        assert alike(drawn(seed), CHANGES[change](drawn(seed))) >= DUPLICATE_SIMILARITY


def test_a_mirrored_copy_is_similar_in_its_orientation() -> None:
    turned = ImageOps.mirror(drawn(1))
    assert alike(drawn(1), turned, mirrored=True) >= DUPLICATE_SIMILARITY
    assert alike(drawn(1), turned) < POSSIBLE_SIMILARITY


def test_different_photos_are_not_similar() -> None:
    photos = [fingerprint(drawn(seed)) for seed in range(12)]
    pairs = list(itertools.combinations(photos, 2))
    ones, others = zip(*pairs, strict=True)
    assert similarity(ones, others, np.zeros(len(pairs), bool)).max() < POSSIBLE_SIMILARITY


def test_the_same_object_in_another_colour_is_not_a_copy() -> None:
    red = drawn(2)
    blue = Image.merge("RGB", red.split()[::-1])
    assert POSSIBLE_SIMILARITY <= alike(red, blue) < DUPLICATE_SIMILARITY


def test_photos_of_one_colour_are_similar_to_none() -> None:
    flat = Image.new("RGB", (200, 200), "white")
    assert alike(flat, flat) < POSSIBLE_SIMILARITY
    assert alike(flat, drawn(1)) < POSSIBLE_SIMILARITY


@pytest.mark.skipif(not CLOTHING.is_dir(), reason=f"needs the garment photos {CLOTHING}")
def test_copies_of_real_photos_are_found_and_photos_of_the_same_class_are_not() -> None:
    photos = [open_photo(path) for path in sorted((CLOTHING / "dress").glob("*.jpg"))[:25]]
    fingerprints = [fingerprint(photo) for photo in photos]
    for change in CHANGES.values():
        copies = [fingerprint(change(photo)) for photo in photos]
        scores = similarity(fingerprints, copies, np.zeros(len(photos), bool))
        assert (scores >= DUPLICATE_SIMILARITY).mean() >= 0.8
        assert (scores >= POSSIBLE_SIMILARITY).mean() >= 0.9
    ones, others = zip(*itertools.combinations(fingerprints, 2), strict=True)
    assert similarity(ones, others, np.zeros(len(ones), bool)).max() < DUPLICATE_SIMILARITY
