"""Quality measurements of generated photos."""

import io
from pathlib import Path

import matplotlib
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from dataset.images.io import open_photo
from dataset.images.quality import measure
from dataset.selection.candidates import load_quality_gates
from tests.dataset.duplicates.test_alignment import drawn

FONT = f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans-Bold.ttf"


GATE = load_quality_gates().for_site("any site")["text"]
CLOTHING = Path(__file__).parents[4] / "shared" / "data" / "clothing"


def banner(*lines: str, ground: str = "#fadc28", ink: str = "black") -> Image.Image:
    """Draw lines of text, the first one largest."""
    page = Image.new("RGB", (600, 600), ground)
    pen = ImageDraw.Draw(page)
    for row, text in enumerate(lines):
        font = ImageFont.truetype(FONT, 90 - 16 * row)
        pen.text((30, 30 + 140 * row), text, font=font, fill=ink)
    return page


BANNERS = {
    "Cyrillic": banner("СКИДКИ", "до 31 мая", "Промокод POLO", "Бесплатная доставка"),
    "light on dark": banner("Mega Sale", "up to 70% off", ground="#102040", ink="white"),
    "price tag": banner("1 990 ₽", "вместо 3 500", "только в приложении", ground="#e0f0ff"),
    "coloured": banner("SALE -50%", "Shop now", ground="#ffe0e8", ink="#c01030"),
}


def product_on_white() -> Image.Image:
    """Draw a small dark object on white."""
    page = Image.new("RGB", (600, 800), "white")
    ImageDraw.Draw(page).polygon(
        [(280, 300), (330, 310), (340, 480), (270, 500)], fill=(40, 40, 60)
    )
    return page


def test_a_blank_photo_has_no_contrast() -> None:
    assert measure(Image.new("RGB", (300, 300), "white")).contrast < 12
    noisy = Image.effect_noise((300, 300), 2).convert("RGB")
    assert measure(noisy).contrast < 12
    assert measure(product_on_white()).contrast > 100


def test_blur_is_the_width_of_the_sharpest_edges() -> None:
    sharp = measure(drawn(1)).blur
    assert sharp < 3
    blurred = [measure(drawn(1).filter(ImageFilter.GaussianBlur(r))).blur for r in (1, 3, 6)]
    assert sharp < blurred[0] < 6 < blurred[1] < blurred[2]


def test_a_white_background_does_not_count_as_blur() -> None:
    assert measure(product_on_white()).blur < 3


@pytest.mark.parametrize("name", BANNERS)
def test_a_banner_fails_the_quality_gate(name: str) -> None:
    assert measure(BANNERS[name]).text > GATE
    out = io.BytesIO()
    BANNERS[name].save(out, "JPEG", quality=75)
    assert measure(open_photo(out.getvalue())).text > GATE


@pytest.mark.slow
@pytest.mark.skipif(not CLOTHING.is_dir(), reason="needs the photos of ../shared/data/clothing")
def test_printed_garments_are_not_banners() -> None:
    photos = sorted(CLOTHING.glob("*/t-shirt/*"))
    assert max(measure(open_photo(path)).text for path in photos) < GATE


def test_stripes_checks_and_objects_are_not_text() -> None:
    page = Image.new("RGB", (400, 400), "white")
    pen = ImageDraw.Draw(page)
    for place in range(0, 400, 16):
        pen.line([(place, 0), (place, 400)], fill="navy", width=5)
        pen.line([(0, place), (400, place)], fill="navy", width=5)
    for photo in (page, product_on_white(), drawn(3)):
        assert measure(photo).text < GATE / 2


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (700, 2), (26, 26)])
def test_any_size_is_measured(size: tuple[int, int]) -> None:
    assert measure(Image.new("RGB", size)).text == 0
