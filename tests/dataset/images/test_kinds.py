"""Photos of all kinds: colour profiles, formats, depths, and files without their end."""

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from dataset.images import io as images
from dataset.images.io import TooManyPixels, Unreadable, UnsupportedHeic, find_photos, open_photo
from dataset.images.structure import detect_format
from tests.support.catalogue_data import photo_bytes

CASES = Path("../shared/cases")
needs_cases = pytest.mark.skipif(not CASES.exists(), reason=f"no {CASES}")
JPEG = photo_bytes(7, (60, 80))
SCAN = bytes.fromhex("ffda0008010100000001") + bytes(100)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def difference(photo: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(photo, float) - np.asarray(other, float)).mean())


@needs_cases
@pytest.mark.parametrize("name", ["adobe.jpg", "swapped.jpg"])
def test_profiles_are_applied(name: str) -> None:
    expected = open_photo(CASES / "icc" / "srgb.jpg")
    assert difference(open_photo(CASES / "icc" / name), expected) < 4
    small = open_photo(CASES / "icc" / name, at_least=60)
    assert difference(small, open_photo(CASES / "icc" / "srgb.jpg", at_least=60)) < 4


def srgb_profile() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@needs_cases
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_profile_is_applied_in_every_format_and_srgb_is_left_as_it_is(kind: str) -> None:
    photo = open_photo(CASES / "icc" / "srgb.jpg")
    photo.info = {}
    with Image.open(CASES / "icc" / "swapped.jpg") as image:
        profile = image.info["icc_profile"]
    plain, swapped, srgb = (
        open_photo(encoded(photo, kind, quality=95, icc_profile=icc))
        for icc in (b"", profile, srgb_profile())
    )
    assert difference(swapped, plain) > 20
    assert srgb.tobytes() == plain.tobytes()


def icc_of(colours: bytes, kind: bytes, channels: int, table: bytes) -> bytes:
    """Return an ICC profile with a table of the Lab colours of the corners of its colour space."""
    identity = bytes(range(256))
    matrix = b"".join(struct.pack(">i", 65536 * (i % 4 == 0)) for i in range(9))
    lut = b"mft1" + bytes(4) + bytes([channels, 3, 2, 0]) + matrix
    lut += identity * channels + table + identity * 3
    size = 128 + 4 + 12 + len(lut)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, kind, colours, b"Lab ")
    header = header.ljust(36, b"\0") + b"acsp"
    illuminant = struct.pack(">iii", 0xF6D6, 0x10000, 0xD32D)
    header = header.ljust(68, b"\0") + illuminant
    return header.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", 144, len(lut)) + lut


def test_a_cmyk_profile_is_applied() -> None:
    # Each ink has the lightness of black, in this order: C, M, Y, K.
    corners = range(16)
    table = b"".join(bytes([0 if corner & 1 else 255, 128, 128]) for corner in corners)
    profile = icc_of(b"CMYK", b"prtr", 4, table)
    inks = Image.new("CMYK", (20, 10), (255, 255, 0, 0))
    for kind in ("JPEG", "TIFF"):
        plain = open_photo(encoded(inks, kind))
        assert difference(plain, Image.new("RGB", (20, 10), (0, 0, 255))) < 2
        managed = open_photo(encoded(inks, kind, icc_profile=profile))
        assert difference(managed, Image.new("RGB", (20, 10), "white")) < 2
        black = Image.new("CMYK", (20, 10), (0, 0, 0, 255))
        managed = open_photo(encoded(black, kind, icc_profile=profile))
        assert difference(managed, Image.new("RGB", (20, 10), "black")) < 2


def test_a_grey_profile_is_applied_to_grey_photos() -> None:
    # Half of the lightness, which is much lighter than half of the light.
    profile = icc_of(b"GRAY", b"mntr", 1, bytes([255, 128, 128, 0, 128, 128]))
    grey = Image.new("L", (20, 10), 255)
    assert open_photo(encoded(grey, "JPEG", icc_profile=profile)).getpixel((5, 5)) == (0, 0, 0)
    colour = Image.new("RGB", (20, 10), "white")
    assert difference(open_photo(encoded(colour, "JPEG", icc_profile=profile)), colour) < 2


def test_a_profile_of_another_kind_of_image_costs_no_pixels() -> None:
    grey = Image.new("L", (20, 10), 90)
    cmyk = Image.new("CMYK", (20, 10), (10, 20, 30, 40))
    for image in (grey, cmyk):
        plain = open_photo(encoded(image, "TIFF"))
        assert open_photo(encoded(image, "TIFF", icc_profile=srgb_profile())).size == plain.size


@needs_cases
@pytest.mark.parametrize(
    ("name", "mean"), [("photo.avif", 213.5), ("photo.jfif", 234), ("no-end-mark.jpg", 202)]
)
def test_kinds_that_people_have_are_read(name: str, mean: float) -> None:
    photo = open_photo(CASES / "kinds" / name)
    assert photo.size == (342, 342)
    assert abs(np.asarray(photo).mean() - mean) < 1


@needs_cases
def test_floats_from_0_to_1_are_grey() -> None:
    assert round(np.asarray(open_photo(CASES / "kinds" / "float-0-to-1.tif")).mean()) == 127


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
def test_further_formats_are_read(kind: str) -> None:
    photo = open_photo(encoded(Image.new("RGB", (40, 30), (200, 100, 50)), kind))
    assert photo.info == {"format": kind, "size": (40, 30)}
    assert difference(photo, Image.new("RGB", (40, 30), (200, 100, 50))) < 3


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (1 / 255, "float32"),
        (1.0, "float32"),
        (257.0, "float32"),
        (1 / 255, "float64"),
        (257, ">u2"),
        (257, "<u2"),
        (16843009, "uint32"),
    ],
)
def test_samples_of_more_than_eight_bits_are_scaled(values: float, dtype: str) -> None:
    import cv2

    grey = np.tile(np.arange(256, dtype=np.uint8), (10, 1))
    samples = (grey * np.float64(values)).astype(dtype)
    if dtype == ">u2":
        image = Image.frombytes("I;16B", (256, 10), samples.tobytes())
        data = encoded(image, "TIFF")
        assert data[:2] == b"MM"
    else:
        data = cv2.imencode(".tiff", samples)[1].tobytes()
    assert difference(open_photo(data), Image.fromarray(grey).convert("RGB")) <= 0.5


def test_a_heic_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    head = b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(400)
    with pytest.raises(UnsupportedHeic, match=r"HEIC.*fashion-tagger\[heif\]"):
        open_photo(head)


def test_heic_is_read_with_pillow_heif() -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    exif = Image.Exif()
    exif[0x0112] = 6
    for options in ({}, {"exif": exif}):
        photo = open_photo(encoded(Image.new("RGB", (80, 64), "teal"), "HEIF", **options))
        assert photo.info == {"format": "HEIF", "size": (80, 64)}


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_without_its_end_mark_is_read_if_it_has_all_pixels(progressive: bool) -> None:
    whole = encoded(open_photo(JPEG), "JPEG", progressive=progressive)
    for missing in (1, 2):
        assert open_photo(whole[:-missing]).tobytes() == open_photo(whole).tobytes()
    for missing in (5, 50, 500):
        with pytest.raises(Unreadable):
            open_photo(whole[:-missing])


def test_a_progressive_jpeg_without_its_last_scan_is_truncated() -> None:
    whole = encoded(open_photo(JPEG), "JPEG", progressive=True)
    with pytest.raises(Unreadable, match="truncated"):
        open_photo(whole[: whole.rindex(b"\xff\xda")])


def test_what_follows_the_end_mark_is_ignored() -> None:
    assert open_photo(JPEG + JPEG[:200] + b"video").tobytes() == open_photo(JPEG).tobytes()


@pytest.mark.parametrize(("side", "scans"), [(7000, 40), (100, 5000)])
def test_a_jpeg_of_very_many_scans_is_rejected_before_it_is_decoded(side: int, scans: int) -> None:
    frame = b"\xff\xc2\0\x0b\x08" + side.to_bytes(2, "big") * 2 + b"\x01\x01\x11\0"
    with pytest.raises(TooManyPixels, match=f"{scans} scans"):
        open_photo(b"\xff\xd8" + frame + SCAN * scans + b"\xff\xd9")


def test_photos_are_found_by_content_and_others_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "find_spec", lambda name: None)
    for name in ("b.jfif", "a", "c.JPG", "d.photo", ".e.jpg", "broken.png"):
        (tmp_path / name).write_bytes(b"" if name == "broken.png" else JPEG)
    (tmp_path / "x.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    (tmp_path / "Thumbs.db").write_bytes(b"BM is no bitmap")
    (tmp_path / "labels.csv").write_text("a,b")
    (tmp_path / "folder.jpg").mkdir()
    found = find_photos(tmp_path.rglob("*"))
    assert [path.name for path in found.paths] == ["a", "b.jfif", "broken.png", "c.JPG", "d.photo"]
    assert found.describe_skipped().startswith(
        "3 files skipped, not readable as photos: 1 .csv, 1 .db, 1 HEIC; to read HEIC: pip install"
    )


def test_formats_are_detected_by_their_brands() -> None:
    boxes = {b"avif": "AVIF", b"heix": "HEIF", b"mp42": None, b"mif1": "HEIF"}
    for brand, kind in boxes.items():
        assert detect_format(b"\0\0\0\x14ftyp" + brand + bytes(4) + b"miaf") == kind
    assert detect_format(b"\0\0\0\x18ftypmif1\0\0\0\0miafavif") == "AVIF"
