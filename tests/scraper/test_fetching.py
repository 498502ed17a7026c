"""Tests of image downloads: accepted images, and the reasons for rejections."""

import asyncio
import contextlib
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imagehash
import pytest
from PIL import Image

from dataset.images.io import open_photo
from dataset.images.store import ImageStore
from scraper.examining import Fetched, Refused, examine
from scraper.fetching import Answer, fetch_image
from scraper.readers import Readers
from tests.support.catalogue_data import photo_bytes

PHOTO = photo_bytes(1)


def fetch(
    responses: dict[str, Answer | Refused], folder: Path
) -> tuple[Fetched | Refused, list[str]]:
    requested: list[str] = []

    async def download(url: str) -> Answer | Refused:
        requested.append(url)
        return responses[url]

    with contextlib.closing(Readers(1)) as readers, ThreadPoolExecutor(1) as files:
        fetched = fetch_image(download, tuple(responses), ImageStore(folder), readers, files)
        return asyncio.run(fetched), requested


@pytest.mark.parametrize("status", [403, 404, 410])
def test_first_available_url_is_used(tmp_path: Path, status: int) -> None:
    responses: dict[str, Answer | Refused] = {
        "large": Answer(status, b"", {}),
        "middle": Answer(200, PHOTO, {"content-type": "text/plain"}),
        "small": Answer(200, photo_bytes(2), {}),
    }
    outcome, requested = fetch(responses, tmp_path)
    assert requested == ["large", "middle"]
    assert isinstance(outcome, Fetched)
    assert (tmp_path / outcome.store_key).read_bytes() == PHOTO
    with Image.open(io.BytesIO(PHOTO)) as photo:
        assert outcome.phash == str(imagehash.phash(photo))
        assert (outcome.width, outcome.height, outcome.format) == (*photo.size, "JPEG")


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (Answer(404, b"", {}), "HTTP 404"),
        (Answer(500, PHOTO, {}), "HTTP 500"),
        (Answer(200, b"", {}), "empty"),
        (Answer(200, b"<html>sorry</html>", {}), "broken or no image"),
        (Answer(200, PHOTO[:-200], {}), "broken or no image"),
        (Answer(200, photo_bytes(3, (74, 300)), {}), "smaller than 75 pixels"),
        (Answer(200, PHOTO, {"x-robots-tag": "noindex, noai"}), "noai"),
        (Answer(200, PHOTO, {"x-robots-tag": "otherbot: noindex,NoImageAI"}), "noai"),
        (Refused("robots.txt"), "robots.txt"),
    ],
)
def test_rejected_images_have_a_reason(
    tmp_path: Path, response: Answer | Refused, reason: str
) -> None:
    outcome, _ = fetch({"only": response}, tmp_path)
    assert isinstance(outcome, Refused)
    assert outcome.reason == reason
    assert list(tmp_path.iterdir()) == []


def test_other_robots_directives_do_not_reject_an_image(tmp_path: Path) -> None:
    outcome, _ = fetch({"only": Answer(200, PHOTO, {"x-robots-tag": "noindex"})}, tmp_path)
    assert isinstance(outcome, Fetched)


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_image_format_is_detected(image_format: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (80, 90), "teal").save(out, image_format)
    outcome = examine(out.getvalue())
    assert isinstance(outcome, Fetched)
    assert (outcome.format, outcome.width, outcome.height) == (image_format, 80, 90)


def test_image_size_respects_exif_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.new("RGB", (80, 120), "teal").save(out, "JPEG", exif=exif)
    outcome = examine(out.getvalue())
    assert isinstance(outcome, Fetched)
    assert (outcome.width, outcome.height) == (120, 80)


def test_large_image_is_hashed_at_reduced_size_and_measured_in_full() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    # Smooth like a real photo: sharp squares have many nearly equal DCT coefficients.
    photo = open_photo(photo_bytes(5)).resize((1600, 2400), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    photo.save(out, "JPEG", exif=exif)
    outcome = examine(out.getvalue())
    assert isinstance(outcome, Fetched)
    assert (outcome.width, outcome.height) == (2400, 1600)
    full_hash = int(str(imagehash.phash(open_photo(out.getvalue()))), 16)
    assert (int(outcome.phash, 16) ^ full_hash).bit_count() <= 2
