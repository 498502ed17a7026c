"""What two photos have in common: copies, parts, look-alikes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageOps

import fashion_tagger
from dataset.duplicates.search import LoadedPhotos, PhotoSignature, compare_candidates
from dataset.duplicates.verification import Comparison, Picture, Relation, compare
from dataset.images.io import open_photo
from tests.dataset.duplicates.test_alignment import drawn, encoded
from tests.support.catalogue_data import jpeg_of

CASES = Path(fashion_tagger.__file__).parents[1] / "shared" / "cases" / "copies"


def comparisons(*photos: Image.Image) -> dict[tuple[int, int], Comparison]:
    files = [jpeg_of(photo, 88) for photo in photos]
    loaded = LoadedPhotos(
        [PhotoSignature.of(open_photo(file)) for file in files], lambda number: files[number]
    )
    batches = compare_candidates(loaded, np.ones(len(photos), bool), thorough=True)
    return {(pair.first, pair.second): pair.comparison for batch in batches for pair in batch}


def relation(one: Image.Image, other: Image.Image) -> Relation:
    comparison = comparisons(one, other).get((0, 1))
    return Relation.UNRELATED if comparison is None else comparison.relation


def photo(seed: int) -> Image.Image:
    """Draw a scene with texture all over."""
    noise = np.random.default_rng(seed).integers(0, 90, (120, 93, 3), dtype=np.uint8)
    grain = Image.fromarray(noise).resize((280, 360), Image.Resampling.BICUBIC)
    return Image.blend(drawn(seed), grain, 0.4)


def expanded(photo: Image.Image) -> Image.Image:
    return ImageOps.expand(photo, (0, 60, 0, 60), "black")


def captioned(photo: Image.Image) -> Image.Image:
    page = Image.new("RGB", (280, 420), "black")
    page.paste(photo, (0, 0))
    ImageDraw.Draw(page).text((10, 370), "SALE only today", "white", font_size=26)
    return page


def blurred_sides(photo: Image.Image) -> Image.Image:
    page = photo.resize((360, 360)).filter(ImageFilter.GaussianBlur(20))
    page.paste(photo, (40, 0))
    return page


def cut(photo: Image.Image) -> Image.Image:
    return photo.crop((0, 0, 238, 360))


def small(photo: Image.Image) -> Image.Image:
    return photo.resize((210, 270))


@pytest.mark.parametrize(
    "change", [ImageOps.mirror, expanded, captioned, blurred_sides, cut, small]
)
def test_the_whole_photo_is_one_photo(change: Callable[[Image.Image], Image.Image]) -> None:
    assert relation(photo(1), encoded(change(photo(1)), 70)) == Relation.NEAR_DUPLICATE


def collage(shown: Image.Image) -> Image.Image:
    page = Image.new("RGB", (560, 720), "white")
    for number, member in enumerate((photo(8), shown, photo(9), photo(10))):
        page.paste(member.resize((276, 356)), (number % 2 * 280, number // 2 * 360))
    return page


def screenshot(shown: Image.Image) -> Image.Image:
    page = Image.new("RGB", (900, 600), "white")
    page.paste(shown.resize((370, 476)), (30, 90))
    pen = ImageDraw.Draw(page)
    pen.rectangle((0, 0, 900, 60), fill="#dee1e6")
    for row, text in enumerate(("https://shop.example", "Polo shirt", "1 299", "Add to cart")):
        pen.text((450, 20 + 110 * row), text, "black", font_size=30)
    return page


def badged(shown: Image.Image) -> Image.Image:
    page = shown.copy()
    ImageDraw.Draw(page).ellipse((90, 120, 180, 210), fill="red")
    return page


def printed(shown: Image.Image) -> Image.Image:
    page = shown.copy()
    ImageDraw.Draw(page).rectangle((130, 170, 154, 194), fill="white")
    return page


def grey(shown: Image.Image) -> Image.Image:
    return shown.convert("L").convert("RGB")


def dark(shown: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(shown).enhance(0.4)


def cut_out(shown: Image.Image) -> Image.Image:
    mask = Image.new("L", shown.size, 0)
    ImageDraw.Draw(mask).ellipse((30, 20, 250, 340), fill=255)
    return Image.composite(shown, Image.new("RGB", shown.size, "white"), mask)


@pytest.mark.parametrize("change", [collage, screenshot, badged, printed, grey, cut_out])
def test_a_part_or_a_changed_photo_is_the_same_photo_in_part(
    change: Callable[[Image.Image], Image.Image],
) -> None:
    assert relation(photo(1), encoded(change(photo(1)), 70)) == Relation.POSSIBLE


@pytest.mark.parametrize("frame", [captioned, screenshot, badged, lambda shown: shown])
def test_a_common_frame_makes_different_photos_no_copies(
    frame: Callable[[Image.Image], Image.Image],
) -> None:
    assert relation(frame(photo(1)), frame(photo(2))) == Relation.UNRELATED


def test_a_comparison_is_symmetric() -> None:
    one, other = photo(1), collage(photo(1))
    pictures = [Picture(np.asarray(shown)) for shown in (one, other)]
    transform = np.array([[276 / 280, 0, 280], [0, 356 / 360, 0]])
    forth = compare(pictures[0], pictures[1], transform, 99)
    back = compare(
        pictures[1], pictures[0], np.array([[280 / 276, 0, -284.06], [0, 360 / 356, 0]]), 99
    )
    assert forth is not None and back is not None
    assert forth.relation == back.relation == Relation.POSSIBLE
    assert forth.coverages == pytest.approx(back.coverages[::-1], abs=0.02)
    assert forth.coverages[0] > 0.95 and forth.coverages[1] == pytest.approx(0.24, abs=0.02)


def test_the_added_part_is_a_decoration() -> None:
    for change in (captioned, badged):
        comparison = comparisons(photo(1), change(photo(1)))[0, 1]
        assert comparison.decorations[0] < 0.01 < comparison.decorations[1], change


def names() -> list[str]:
    return sorted(path.name.removesuffix("_a.jpg") for path in CASES.glob("leak_*_a.jpg"))


@pytest.mark.skipif(not CASES.exists(), reason="../shared/cases is not there")
def test_real_copies_are_in_one_split_and_real_products_are_not_one_photo() -> None:
    def case(name: str) -> Image.Image:
        return open_photo(CASES / f"{name}.jpg")

    assert len(names()) > 5
    for name in names():
        assert relation(case(f"{name}_a"), case(f"{name}_b")) != Relation.UNRELATED, name
    assert relation(case("false_fold_tees_a"), case("false_fold_tees_b")) != Relation.NEAR_DUPLICATE
    colours = comparisons(*(case(f"colours_{name}") for name in ("grey", "green", "beige")))
    assert {pair: c.relation for pair, c in colours.items()} == dict.fromkeys(
        [(0, 1), (0, 2), (1, 2)], Relation.POSSIBLE
    )
