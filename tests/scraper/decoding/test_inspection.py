"""Tests of the inspection of image bytes."""

import io

import imagehash
import pytest
from PIL import Image

from dataset.images.io import open_photo
from scraper.decoding.inspection import AcceptedImage, RejectedImage, inspect_image
from tests.support.catalogue_data import photo_bytes

PHOTO = photo_bytes(1)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty"),
        (b"<html>sorry</html>", "broken or no image"),
        (PHOTO[:-200], "broken or no image"),
        (photo_bytes(3, (74, 300)), "smaller than 75 pixels"),
    ],
)
def test_rejected_images_have_a_reason(body: bytes, reason: str) -> None:
    outcome = inspect_image(body)
    assert isinstance(outcome, RejectedImage)
    assert outcome.reason == reason


def test_accepted_image_is_hashed_and_measured() -> None:
    outcome = inspect_image(PHOTO)
    assert isinstance(outcome, AcceptedImage)
    with Image.open(io.BytesIO(PHOTO)) as photo:
        assert outcome.phash == str(imagehash.phash(photo))
        assert (outcome.width, outcome.height, outcome.format) == (*photo.size, "JPEG")


@pytest.mark.parametrize("image_format", ["PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_image_format_is_detected(image_format: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (80, 90), "teal").save(out, image_format)
    outcome = inspect_image(out.getvalue())
    assert isinstance(outcome, AcceptedImage)
    assert (outcome.format, outcome.width, outcome.height) == (image_format, 80, 90)


def test_image_size_respects_exif_orientation() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.new("RGB", (80, 120), "teal").save(out, "JPEG", exif=exif)
    outcome = inspect_image(out.getvalue())
    assert isinstance(outcome, AcceptedImage)
    assert (outcome.width, outcome.height) == (120, 80)


def test_large_image_is_hashed_at_reduced_size_and_measured_in_full() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    # Smooth like a real photo: sharp squares have many nearly equal DCT coefficients.
    photo = open_photo(photo_bytes(5)).resize((1600, 2400), Image.Resampling.BICUBIC)
    out = io.BytesIO()
    photo.save(out, "JPEG", exif=exif)
    outcome = inspect_image(out.getvalue())
    assert isinstance(outcome, AcceptedImage)
    assert (outcome.width, outcome.height) == (2400, 1600)
    full_hash = int(str(imagehash.phash(open_photo(out.getvalue()))), 16)
    assert (int(outcome.phash, 16) ^ full_hash).bit_count() <= 2
