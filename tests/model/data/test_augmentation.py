"""Augmentations by name and strength."""

import numpy as np
import pytest

from dataset.errors import BadInput
from model.data.augmentation import ImageAugmentation, parse_augmentation


def photo(size: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)


def test_transforms_with_and_without_strength_are_parsed() -> None:
    assert str(parse_augmentation(["cutout=0.25", "mirror"])) == "mirror=0.5,cutout=0.25"
    assert str(parse_augmentation(["color"])) == "colour=0.2"
    assert not parse_augmentation(["none"])
    assert str(parse_augmentation([])) == "none"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("flip", "choose from mirror, rotate, scale, cutout, colour"),
        ("rotate=lots", "rotate takes a number above 0 and up to 180"),
        ("rotate=-3", "rotate takes a number"),
        ("cutout=2", "cutout takes a number above 0 and up to 0.9"),
        ("scale=nan", "scale takes a number"),
    ],
)
def test_invalid_augmentations_are_rejected(word: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse_augmentation([word])


def test_a_mirror_only_flips() -> None:
    pixels = photo()
    mirrored = parse_augmentation(["mirror"]).apply(pixels, np.random.default_rng(0), mirror=True)
    assert (mirrored == pixels[:, ::-1]).all()
    assert (
        parse_augmentation(["mirror"]).apply(pixels, np.random.default_rng(0), mirror=False)
        == pixels
    ).all()


def test_without_transforms_a_photo_is_unchanged() -> None:
    pixels = photo()
    assert (ImageAugmentation().apply(pixels, np.random.default_rng(1)) == pixels).all()


def test_cutout_covers_a_grey_square_or_a_part_of_it() -> None:
    white = np.full((100, 100, 3), 255, np.uint8)
    areas = [
        int(
            (parse_augmentation(["cutout=0.3"]).apply(white, np.random.default_rng(n)) == 128)
            .all(2)
            .sum()
        )
        for n in range(40)
    ]
    assert max(areas) == 30 * 30
    assert min(areas) >= 15 * 15


def test_a_rotation_keeps_the_centre_and_adds_white() -> None:
    black = np.zeros((101, 101, 3), np.uint8)
    turned = parse_augmentation(["rotate=45"]).apply(black, np.random.default_rng(3))
    assert (turned[50, 50] == 0).all()
    assert turned[0, 0].min() > 200


def test_scaling_moves_edges_by_at_most_its_strength() -> None:
    pixels = np.full((200, 200, 3), 255, np.uint8)
    pixels[50:150, 50:150] = 0
    sides = []
    for seed in range(30):
        seen = parse_augmentation(["scale=0.2"]).apply(pixels, np.random.default_rng(seed))
        sides.append(int((seen[100, :, 0] < 128).sum()))
    assert min(sides) < 92
    assert max(sides) > 108
    assert min(sides) >= 83
    assert max(sides) <= 121


def test_the_opacity_is_moved_with_the_photo() -> None:
    everything = parse_augmentation(["mirror", "rotate", "scale", "cutout", "colour"])
    colours = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    # Transparent, but for a square, whose opacity is that of a grey photo.
    opacity = np.zeros((40, 40, 1), np.uint8)
    opacity[5:20, 10:30] = 255
    for seed in range(10):
        found = everything.apply(np.concatenate([colours, opacity], 2), np.random.default_rng(seed))
        assert np.array_equal(
            found[..., :3], everything.apply(colours, np.random.default_rng(seed))
        )
        moved = parse_augmentation(["mirror", "rotate", "scale"]).apply(
            opacity.repeat(3, axis=2), np.random.default_rng(seed)
        )
        is_cut = (found[..., :3] == 128).all(axis=2)
        assert is_cut.any() and (found[is_cut, 3] == 255).all()
        assert np.array_equal(found[~is_cut, 3], moved[~is_cut, 0])


def test_equal_seeds_give_equal_pixels() -> None:
    everything = parse_augmentation(["mirror", "rotate", "scale", "cutout", "colour"])
    one, two = (everything.apply(photo(), np.random.default_rng(5)) for _ in range(2))
    assert (one == two).all()
    assert one.shape == (40, 40, 3)
    assert (one != everything.apply(photo(), np.random.default_rng(6))).any()
