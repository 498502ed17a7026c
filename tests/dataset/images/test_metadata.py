"""Broken metadata never costs the pixels, and of EXIF only the orientation is read."""

import io
import struct
import zlib
from collections.abc import Callable

import pytest
from PIL import ExifTags, Image, ImageCms

from dataset.images.io import open_photo
from dataset.images.structure import exif_orientation
from tests.support.catalogue_data import photo_bytes

# Tags of all kinds: text, numbers, fractions, pointers to other directories, and unknown ones.
TAGS = sorted({*ExifTags.TAGS, *ExifTags.GPSTAGS, 0xFFFF} - {0x0112})
TYPES = range(15)
SAMPLE = [(tag, kind) for tag in TAGS for kind in TYPES][::97]


def exif_block(tag: int, kind: int, order: str = ">", orientation: int = 6) -> bytes:
    """Return an EXIF block with the orientation, and a tag whose value is odd."""
    entries = [
        struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0),
        struct.pack(f"{order}HHI4s", tag, kind, 1 + (tag + kind) % 5, b"\xff\x00\xff\xfe"),
    ]
    head = (b"MM" if order == ">" else b"II") + struct.pack(f"{order}HI", 42, 8)
    return head + struct.pack(f"{order}H", 2) + b"".join(sorted(entries)) + bytes(4)


def in_jpeg(exif: bytes) -> bytes:
    photo, body = encoded("JPEG"), b"Exif\0\0" + exif
    return photo[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + photo[2:]


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def in_png(exif: bytes) -> bytes:
    photo = encoded("PNG")
    return photo[:33] + png_chunk(b"eXIf", exif) + photo[33:]


def in_webp(exif: bytes) -> bytes:
    photo = encoded("WEBP")
    extended = struct.pack("<4sIB3x", b"VP8X", 10, 8) + bytes([39, 0, 0, 19, 0, 0])
    body = b"WEBP" + extended + photo[12:] + struct.pack("<4sI", b"EXIF", len(exif)) + exif
    body += b"\0" * (len(exif) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def in_tiff(exif: bytes) -> bytes:
    """Add the entries of an EXIF block to the directory of a TIFF file."""
    photo = encoded("TIFF")
    assert photo[:4] == b"II*\0"
    (start,) = struct.unpack_from("<I", photo, 4)
    (count,) = struct.unpack_from("<H", photo, start)
    old = {
        photo[at : at + 2]: photo[at : at + 12]
        for at in range(start + 2, start + 2 + 12 * count, 12)
    }
    added = {exif[at : at + 2]: exif[at : at + 12] for at in (10, 22)}
    # The tags of the pixels stay.
    entries = sorted({**added, **old}.values(), key=lambda entry: struct.unpack("<H", entry[:2]))
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return photo[:4] + struct.pack("<I", len(photo)) + photo[8:] + directory


def encoded(kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (40, 20), (200, 100, 50)).save(out, kind, **options)
    return out.getvalue()


CONTAINERS: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "JPEG": (in_jpeg, ">"),
    "PNG": (in_png, ">"),
    "WEBP": (in_webp, "<"),
    "TIFF": (in_tiff, "<"),
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_an_odd_exif_value_costs_neither_the_photo_nor_its_orientation(kind: str) -> None:
    pack, order = CONTAINERS[kind]
    for tag, value_type in SAMPLE:
        photo = open_photo(pack(exif_block(tag, value_type, order)))
        assert photo.size == (20, 40), (hex(tag), value_type)
        assert photo.info == {"format": kind, "size": (20, 40)}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "exif",
    [
        b"no EXIF",
        b"MM",
        b"MM\0*\xff\xff\xff\xff",
        b"II*\0\x08\0\0\0\xff\xff",
        exif_block(1, 1, orientation=9),
        exif_block(1, 1)[:20],
        bytes(70),
    ],
)
def test_a_broken_exif_block_means_no_orientation(kind: str, exif: bytes) -> None:
    assert open_photo(CONTAINERS[kind][0](exif)).size == (40, 20)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied_as_pillow_does(orientation: int) -> None:
    from PIL import ImageOps

    photo = Image.open(io.BytesIO(photo_bytes(1, (40, 24))))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "WEBP", "TIFF", "AVIF"):
        out = io.BytesIO()
        photo.save(out, kind, exif=exif, lossless=True, quality=100)
        with Image.open(io.BytesIO(out.getvalue())) as image:
            expected = ImageOps.exif_transpose(image)
        assert open_photo(out.getvalue()).tobytes() == expected.convert("RGB").tobytes()


def test_orientation_of_xmp_is_used_if_exif_has_none() -> None:
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    for kind in ("JPEG", "WEBP"):
        assert open_photo(encoded(kind, xmp=xmp)).size == (20, 40)
    assert exif_orientation(xmp) is None


def test_avif_with_a_broken_exif_block_is_read() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    photo = encoded("AVIF", exif=exif)
    broken = photo.replace(b"MM\0*", b"XX\0*")
    assert broken != photo
    assert open_photo(broken).size == open_photo(photo).size == (20, 40)


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"tEXt", b"x" * 20)[:-1] + b"!",
        png_chunk(b"iCCP", b"icc\0\0no zlib"),
        png_chunk(b"zTXt", b"text\0\0" + zlib.compress(bytes(3_000_000))),
        png_chunk(b"pHYs", b"short"),
        png_chunk(b"gAMA", b""),
        png_chunk(b"acTL", b"\xff" * 8),
        png_chunk(b"eXIf", b""),
    ],
)
def test_broken_chunks_of_a_png_cost_no_pixels(chunk: bytes) -> None:
    photo = encoded("PNG")
    assert open_photo(photo[:33] + chunk + photo[33:]).getpixel((5, 5)) == (200, 100, 50)


@pytest.mark.parametrize(
    "segment",
    [
        b"\xff\xe0\0\x08JFIF\0\x01",
        b"\xff\xee\0\x07Adobe",
        b"\xff\xe2\0\x08MPF\0MM",
        b"\xff\xed\0\x1aPhotoshop 3.0\x008BIM\xff\xff\xff\xff",
        b"\xff\xe2\0\x10ICC_PROFILE\0\x07\x01",
    ],
)
def test_broken_segments_of_a_jpeg_cost_no_pixels(segment: bytes) -> None:
    photo = encoded("JPEG")
    assert open_photo(photo[:2] + segment + photo[2:]).tobytes() == open_photo(photo).tobytes()


def test_a_broken_profile_costs_no_pixels() -> None:
    good = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (
        b"no profile",
        good[:200],
        bytes(128),
        good[:-40],
        good.replace(b"RGB ", b"XYZ?"),
    ):
        for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
            photo = open_photo(encoded(kind, icc_profile=profile))
            plain = open_photo(encoded(kind))
            assert photo.size == (40, 20)
            if profile != good[:-40]:
                assert photo.tobytes() == plain.tobytes()
