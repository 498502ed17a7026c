"""How photos reach the model: read side by side, shown once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.build import build
from dataset.export.build_result import BuildOptions
from dataset.images.io import sha256_of
from dataset.selection.crops import PoseOptions
from dataset.vocabulary import load_vocabulary
from model.data.loading import boxed
from model.inference.preprocessing import CHUNK, Eyes, Shown, Wanted
from scraper.sample_shop.drawing.product import draw_product
from tests.support.catalogue_data import Filling, photo_bytes

EYES = Eyes(PoseOptions(pose="none"), {}, 75)


def given(data: bytes) -> Callable[[], bytes]:
    return lambda: data


def test_a_photo_that_comes_again_is_shown_once_for_each_zone() -> None:
    one, other = photo_bytes(1, (90, 120)), photo_bytes(2, (90, 120))
    wanted = [
        *(Wanted(given(one)), Wanted(given(other)), Wanted(given(one))),
        *(Wanted(given(one), "upper"), Wanted(given(b"no photo")), Wanted(given(b"no photo"))),
        *[Wanted(given(other))] * CHUNK,
    ]
    seen = [each for some in EYES.see(wanted, Shown()) for each in some]
    first = [True, True, False, True, True, False, *[False] * CHUNK]
    assert [not each.again for each in seen] == first
    assert [each.pixels is not None for each in seen[:5]] == [True, True, False, True, False]
    assert seen[4].problem.startswith("broken") and seen[0].sha256 == seen[2].sha256
    assert all(each.pixels is None for each in seen[5:])


def test_without_a_memory_each_is_shown() -> None:
    wanted = [Wanted(given(photo_bytes(1, (90, 120))))] * 2
    ((first, second),) = EYES.see(wanted)
    assert first.pixels is not None and second.pixels is not None
    assert np.array_equal(first.pixels, second.pixels)


def test_what_can_not_be_read_says_why(tmp_path: Path) -> None:
    ((seen,),) = EYES.see([Wanted((tmp_path / "gone.jpg").read_bytes)], Shown())
    assert (seen.problem, seen.pixels, seen.again) == ("no such file", None, False)


@pytest.mark.usefixtures("one_estimator")
def test_a_photo_of_a_feed_is_cropped_and_fitted_as_a_build_wrote_it(tmp_path: Path) -> None:
    filling, drawn = Filling(tmp_path), {}
    for seed in range(4):
        path = tmp_path / f"{seed}.png"
        draw_product("jeans", seed).photo.save(path)
        filling.image(path.read_bytes(), filling.post(str(seed), "jeans"))
        drawn[sha256_of(path.read_bytes())] = path
    for crop in ("person", "zone"):
        options = BuildOptions(
            filling.catalogue,
            filling.folder / "images",
            tmp_path / crop,
            min_per_class=1,
            size=160,
            resize="stretch",
            pose=PoseOptions(crop=crop),
        )
        built = build(options, load_vocabulary())
        assert {item.person_crop and item.person_crop.crop.outcome for item in built.items} != {
            "whole"
        }
        eyes = Eyes(PoseOptions(crop=crop), {"size": 160, "resize": "stretch"}, 75)
        zone = load_vocabulary().zone_of("jeans")
        for item in built.items:
            path = drawn[item.photo.sha256]
            ((seen,),) = eyes.see([Wanted(path.read_bytes, zone)])
            written = boxed(Image.open(tmp_path / crop / item.path).convert("RGB"), 75)
            assert seen.pixels is not None
            # What JPEG makes of it; another crop differs by tens.
            assert np.abs(seen.pixels.astype(int) - written).mean() < 2
