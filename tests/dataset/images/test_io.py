"""Read photos of every format and mode, and store files."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset.errors import Failure
from dataset.images.io import (
    TooManyPixels,
    Unreadable,
    apply_to_channels,
    letterbox,
    open_photo,
)
from dataset.images.store import ImageStore
from dataset.utils.files import write_atomically
from tests.support.catalogue_data import photo_bytes


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "LA", "RGBA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    kind = "TIFF" if mode in ("CMYK", "LA") else "PNG"
    photo = open_photo(encoded(Image.new(mode, (20, 10)), kind))
    assert (photo.mode, photo.size) == ("RGB", (20, 10))


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    grey = Image.fromarray(np.full((10, 10), 32768, np.uint16))
    assert open_photo(encoded(grey, "PNG")).getpixel((5, 5)) == (128, 128, 128)


def test_transparency_becomes_white() -> None:
    clear = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    assert open_photo(encoded(clear, "PNG")).getpixel((5, 5)) == (255, 255, 255)


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = open_photo(encoded(Image.new("RGB", (40, 20)), "JPEG", exif=exif))
    assert photo.size == (20, 40)


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>not found</html>", photo_bytes(1)[:900], b"\x89PNG\r\n\x1a\n" + b"\0" * 50],
    ids=["empty", "page", "cut off", "bad png"],
)
def test_truncated_and_other_files_are_unreadable(data: bytes) -> None:
    with pytest.raises(Unreadable):
        open_photo(data)


@pytest.mark.parametrize("side", [7_100, 20_000])
def test_a_decompression_bomb_is_unreadable(side: int) -> None:
    bomb = encoded(Image.new("1", (side, side)), "PNG")
    assert len(bomb) < 100_000
    with pytest.raises(TooManyPixels):
        open_photo(bomb)


def test_colours_of_transparent_pixels_are_resized() -> None:
    red = Image.new("RGBA", (20, 20), (200, 0, 0, 0))
    small = apply_to_channels(red, lambda image: image.resize((5, 5), Image.Resampling.BILINEAR))
    assert small.mode == "RGBA" and small.getpixel((2, 2)) == (200, 0, 0, 0)
    assert apply_to_channels(red.convert("RGB"), lambda image: image).mode == "RGB"


def test_letterbox_keeps_the_aspect_ratio_and_pads_with_white() -> None:
    box = letterbox(Image.new("RGB", (50, 100)), 40)
    assert box.size == (40, 40)
    assert [box.getpixel((x, 20)) for x in (5, 20, 35)] == [(255,) * 3, (0,) * 3, (255,) * 3]


def test_the_store_uses_the_sha256_as_key(tmp_path: Path) -> None:
    store = ImageStore(tmp_path)
    key = ImageStore.key("abcd" + "0" * 60, "jpg")
    store.put(b"bytes", key)
    assert key == f"ab/cd/abcd{'0' * 60}.jpg"
    assert store.read(key) == b"bytes"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [key[6:]]


def test_a_store_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure, match="--images"):
        ImageStore(tmp_path / "file").put(b"x", "ab/cd/x.jpg")


def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    write_atomically(path, b"old")
    with pytest.raises(TypeError):
        write_atomically(path, "not bytes")  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
