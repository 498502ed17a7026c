"""Local features: keys, matches and placements."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from dataset.duplicates.features import (
    AUDIT_KEYS,
    LARGE_AUDIT_KEYS,
    SEARCH_KEYS,
    KeyScheme,
    LocalFeatures,
    extract_features,
    find_placement,
    unpack_features,
)
from dataset.duplicates.voting import MAX_SHARED, feature_pairs
from tests.dataset.duplicates.test_alignment import drawn

SCHEMES = (SEARCH_KEYS, AUDIT_KEYS, LARGE_AUDIT_KEYS)


def random_features(seed: int, like: LocalFeatures | None = None) -> LocalFeatures:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 256, (60, 16), dtype=np.uint8)
    if like is not None:
        codes[:30] = like.codes[:30]
    return LocalFeatures((320, 320), rng.random((60, 2)).astype(np.float32) * 320, codes)


def test_features_are_packed_without_loss_of_codes() -> None:
    features = extract_features(drawn(1))
    again = unpack_features(features.packed)
    assert again.size == features.size == (249, 320)
    assert np.array_equal(again.codes, features.codes)
    assert np.abs(again.points - features.points).max() <= 1 / 64
    nothing = extract_features(Image.new("RGB", (90, 120), "white"))
    assert unpack_features(nothing.packed).codes.shape == (0, 16)


def test_mirrored_features_are_those_of_the_mirrored_photo() -> None:
    photo = drawn(2)
    placement = find_placement(
        extract_features(photo).mirrored(), extract_features(ImageOps.mirror(photo))
    )
    assert placement is not None and placement.inliers > 30
    assert placement.transform == pytest.approx(np.eye(2, 3), abs=1.5)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_photo_is_placed_where_it_was_pasted(mirrored: bool) -> None:
    photo = drawn(3)
    page = Image.new("RGB", (700, 500), "white")
    pasted = ImageOps.mirror(photo) if mirrored else photo
    page.paste(pasted.resize((210, 270)), (400, 100))
    placement = find_placement(extract_features(photo), extract_features(page), mirrored)
    assert placement is not None
    corner = placement.transform @ [248 if mirrored else 0, 0, 1]
    assert corner == pytest.approx(np.array([400, 100]) * 320 / 700, abs=2)
    assert find_placement(extract_features(photo), extract_features(page), not mirrored) is None


def test_keys_of_all_schemes_differ() -> None:
    features = random_features(0)
    assert features.keys().shape == (SEARCH_KEYS.count, 60)
    keys = [set(features.keys(scheme).ravel()) for scheme in SCHEMES]
    assert len(set.union(*keys)) == sum(map(len, keys))


def pairs(
    photos: list[LocalFeatures], new: list[int], scheme: KeyScheme = SEARCH_KEYS
) -> list[list[int]]:
    is_new = np.isin(np.arange(len(photos)), new)
    return feature_pairs(is_new, lambda numbers: [photos[n] for n in numbers], scheme).tolist()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("indexed", [100, 10, 0])
def test_photos_with_common_features_are_candidates(
    scheme: KeyScheme, indexed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fewer photos are indexed in memory than there are: the keys are sorted on disk.
    monkeypatch.setattr("dataset.duplicates.voting.MAX_INDEXED_PHOTOS", indexed)
    photos = [random_features(seed) for seed in range(20)]
    photos[7] = random_features(70, photos[3])
    photos[9] = random_features(90, photos[15].mirrored())
    everything = [[3, 7, 0], [9, 15, 1]]
    assert pairs(photos, list(range(20)), scheme) == everything
    # Only pairs with a new photo, from either side.
    assert pairs(photos, [7], scheme) == [[3, 7, 0]]
    assert pairs(photos, [3, 9], scheme) == everything
    assert pairs(photos, [1, 2], scheme) == []


def test_a_key_of_many_photos_does_not_hide_a_copy_and_costs_little() -> None:
    count = 6 * MAX_SHARED
    logo = random_features(1000)
    photos = [random_features(seed, logo) for seed in range(count)]
    copy = np.concatenate([photos[5].codes[30:], photos[80].codes[:30]])
    photos[80] = LocalFeatures((320, 320), photos[80].points, copy)
    found = pairs(photos, list(range(count)))
    assert [5, 80, 0] in found
    assert len(found) < 20 * count
