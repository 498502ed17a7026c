"""Perceptual hashes and the index of them."""

import imagehash
from PIL import Image, ImageFilter

from dataset.duplicates import HashIndex, perceptual_hash
from dataset.images import open_photo
from tests.dataset.filling import photo_bytes


def test_the_hash_is_imagehashs_phash() -> None:
    photo = open_photo(photo_bytes(1, (300, 400)))
    assert perceptual_hash(photo) == str(imagehash.phash(photo))
    assert len(perceptual_hash(Image.new("RGB", (9, 9)))) == 16


def test_the_nearest_within_the_distance_is_found() -> None:
    index = HashIndex(["0000000000000000", "00000000000000ff"], [1, 2])
    assert index.nearest("000000000000000f") == 1
    assert index.nearest("000000000000007f") == 2
    assert index.nearest("000000000000001f") == 2  # five from the first, three from the second
    assert index.nearest("ffffffff00000000") is None
    assert index.nearest("ffffffffffffffff", within=56) == 2


def test_what_is_added_is_found_and_the_index_grows() -> None:
    index = HashIndex()
    assert index.nearest("0000000000000000") is None
    for number in range(3000):
        index.add(f"{number << 20:016x}", number)
    assert len(index) == 3000
    assert index.nearest(f"{(2999 << 20) | 1:016x}", within=1) == 2999


def test_a_re_encoded_and_resized_copy_is_near_and_another_photo_is_not() -> None:
    photo = open_photo(photo_bytes(7, (300, 400)))
    copy = open_photo(photo_bytes(7, (150, 200), quality=40)).filter(ImageFilter.GaussianBlur(0.5))
    index = HashIndex([perceptual_hash(photo)], [5])
    assert index.nearest(perceptual_hash(copy)) == 5
    assert index.nearest(perceptual_hash(open_photo(photo_bytes(8)))) is None
