"""Fingerprints of changed photos."""

import numpy as np
from PIL import Image, ImageOps

from dataset.duplicates.hamming import MAX_DISTANCE_BITS
from dataset.duplicates.hashing import (
    VIEW_AREAS,
    content_box,
    fingerprint,
    quarter_turn_hashes,
    unpack,
)
from dataset.images.io import open_photo
from tests.support.catalogue_data import photo_bytes


def photo(seed: int = 1) -> Image.Image:
    return open_photo(photo_bytes(seed, (300, 400)))


def bits_apart(one: int, other: int) -> int:
    return (int(one) ^ int(other)).bit_count()


def test_a_fingerprint_is_packed_and_unpacked() -> None:
    one = fingerprint(photo())
    again = unpack(*one.packed)
    assert (again.views == one.views).all()
    assert (again.thumbnail == one.thumbnail).all()
    assert (again.colours == one.colours).all()


def test_hashes_of_turned_photos_are_computed_from_the_hash() -> None:
    found = quarter_turn_hashes(fingerprint(photo()).views[:1])
    for quarters in (1, 2, 3):
        straight = fingerprint(photo().rotate(90 * quarters, expand=True)).views[0]
        assert bits_apart(found[0, quarters - 1], straight) < MAX_DISTANCE_BITS


def test_a_mirror_image_has_the_mirrored_view() -> None:
    one, mirror = fingerprint(photo()), fingerprint(ImageOps.mirror(photo()))
    assert bits_apart(one.views[0], mirror.views[len(VIEW_AREAS)]) <= 4
    assert bits_apart(one.views[0], mirror.views[0]) > 10


def test_a_border_does_not_change_the_hash() -> None:
    for colour in ("white", "black", (200, 30, 30)):
        framed = ImageOps.expand(photo(), 40, colour)
        assert bits_apart(fingerprint(framed).views[0], fingerprint(photo()).views[0]) <= 4


def test_the_content_box_excludes_the_border() -> None:
    grey = np.full((100, 80), 255, np.uint8)
    grey[20:90, 10:60] = np.arange(50, dtype=np.uint8) * 3
    assert content_box(grey) == (11, 21, 59, 89)


def test_a_photo_of_one_colour_has_no_border() -> None:
    assert content_box(np.full((50, 40), 7, np.uint8)) == (0, 0, 40, 50)


def test_any_size_has_a_fingerprint() -> None:
    for size in ((1, 1), (3000, 2), (2, 900), (129, 127)):
        assert fingerprint(Image.new("RGB", size)).thumbnail.shape == (48, 48)
