"""Images that are programs as well are rejected, and photos with such bytes by chance are not."""

import gzip
import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from dataset.images.structure import ImageStructure, detect_format
from scraper.decoding.inspection import (
    POLYGLOT,
    TOO_MANY_PIXELS,
    AcceptedImage,
    RejectedImage,
    inspect_image,
    is_polyglot,
)
from tests.support.catalogue_data import photo_bytes

CASES = Path("../shared/cases/crawl")
needs_cases = pytest.mark.skipif(not CASES.exists(), reason=f"no {CASES}")
PHOTO = photo_bytes(1)
# JavaScript and HTML in other encodings, PHP, and archives.
PROGRAMS = [
    b"<?=`$_GET[1]`;?>",
    b"<? system($_GET[1]); ?>",
    b"<?php\neval($x);",
    b'<%@ page import="java.io.*" %>',
    b"<%= `id -a -n` %>",
    b"<img src=x onerror=alert(1)>",
    b"<SVG/onload=alert(1)>",
    b"<p style='a'\nonmouseover = 'x()'>",
    b"<body onload=x()>",
    b"<script>alert(1)</script>",
    "<script>alert(1)</script>".encode("utf-16-le"),
    "<img src=x onerror=alert(1)>".encode("utf-16-be"),
    "<html>".encode("utf-32-le"),
    b"+ADw-script+AD4-alert(1)",
    b'<meta http-equiv="refresh">',
    b"<object data=x.swf>",
    b"<?php __HALT_COMPILER(); ?>",
    b"#!/bin/sh\nrm -r x\n",
]
# Bytes that photos have by chance, or that metadata has.
CHANCE = [
    b"PK\x05\x06",
    b"PK\x05\x06" + bytes(18),
    b"PK\x05\x06" + b"\xf3" * 18,
    b"/*",
    b"*/",
    b"*/\x00\x9d",
    b"<?=\x80\x91",
    b"<? \x00\x01\x02",
    b"<svg\x80",
    b"PK\x03\x04\xf0\x9d",
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">',
    b'<rdf:Description photoshop:Instructions="" crs:OnlineEdit="a"/>',
    b"a shirt < 20 euros, on = sale; <b>new</b>",
]


def in_jpeg_comment(text: bytes) -> bytes:
    return PHOTO[:2] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + PHOTO[2:]


def in_jpeg_exif(text: bytes) -> bytes:
    body = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + text
    return PHOTO[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + PHOTO[2:]


def after_jpeg(text: bytes) -> bytes:
    return PHOTO + text


def encoded(kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    with Image.open(io.BytesIO(PHOTO)) as photo:
        photo.save(out, kind, **options)
    return out.getvalue()


def in_png_text(text: bytes) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add(b"tEXt", b"Comment\0" + text)
    return encoded("PNG", pnginfo=info)


def after_png(text: bytes) -> bytes:
    return encoded("PNG") + text


def in_gif_comment(text: bytes) -> bytes:
    return encoded("GIF", comment=text)


def in_webp_chunk(text: bytes) -> bytes:
    photo = encoded("WEBP", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0")
    chunk = b"EXTR" + struct.pack("<I", len(text)) + text + b"\0" * (len(text) % 2)
    return b"RIFF" + struct.pack("<I", len(photo) - 8 + len(chunk)) + photo[8:] + chunk


def in_tiff_text(text: bytes) -> bytes:
    return encoded("TIFF", tiffinfo={270: text.decode("latin-1")}) + text


def in_bmp_gap(text: bytes) -> bytes:
    photo = encoded("BMP")
    (start,) = struct.unpack_from("<I", photo, 10)
    gap = photo[:10] + struct.pack("<I", start + len(text)) + photo[14:start] + text
    return gap + photo[start:]


def in_avif_box(text: bytes) -> bytes:
    return encoded("AVIF") + struct.pack(">I", 8 + len(text)) + b"free" + text


def in_jp2_box(text: bytes) -> bytes:
    return encoded("JPEG2000") + struct.pack(">I", 8 + len(text)) + b"free" + text


PLACES: list[Callable[[bytes], bytes]] = [
    *(in_jpeg_comment, in_jpeg_exif, after_jpeg, in_png_text, after_png, in_gif_comment),
    *(in_webp_chunk, in_tiff_text, in_bmp_gap, in_avif_box, in_jp2_box),
]


@pytest.mark.parametrize("place", PLACES)
def test_programs_in_metadata_and_after_the_image_are_found(place: Callable) -> None:
    assert not is_polyglot(place(b"a plain comment"))
    missed = [program for program in PROGRAMS if not is_polyglot(place(program))]
    assert not missed


@pytest.mark.parametrize("place", PLACES)
def test_bytes_that_occur_by_chance_are_no_program(place: Callable) -> None:
    assert [text for text in CHANCE if is_polyglot(place(text))] == []


def test_pixels_may_have_any_short_bytes() -> None:
    pixels = np.zeros((100, 100, 3), np.uint8)
    short = b"".join(CHANCE) + b"<?=`$_GET[1]`?> <svg onload=alert(1)> PK\x03\x04\x14\0\0\0\x08\0"
    pixels.reshape(-1)[: len(short)] = np.frombuffer(short, np.uint8)
    for kind in ("BMP", "TIFF"):
        out = io.BytesIO()
        Image.fromarray(pixels[..., ::-1] if kind == "BMP" else pixels).save(out, kind)
        assert isinstance(inspect_image(out.getvalue()), AcceptedImage)


def test_archives_after_and_within_images_are_found() -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a.txt", "text")
    for place in (after_jpeg, in_jpeg_comment, after_png, in_gif_comment):
        assert is_polyglot(place(out.getvalue()))
    # A second end of a directory hides the first one from some programs.
    assert is_polyglot(PHOTO + out.getvalue() + b"PK\x05\x06" + bytes(18))
    for archive_start in (b"Rar!\x1a\x07\x01\0", b"7z\xbc\xaf\x27\x1c\x00\x04", b"%PDF-1.7\n"):
        assert is_polyglot(PHOTO + archive_start)


def test_images_that_are_javascript_are_found() -> None:
    assert is_polyglot(b"GIF89a/*" + b"\0" * 50 + b"*/=1;alert(1)")
    assert is_polyglot(b"GIF89a= '" + b"\0" * 50 + b"';alert(1)")
    assert is_polyglot(b"GIF89a=1;/*" + b"\0" * 50 + b"*/alert(1)//")
    assert is_polyglot(b"BM/*" + bytes(60) + b"*//*" + bytes(9) + b"*/=alert(1);/*")
    assert not is_polyglot(b"GIF89a=\x01" + b"\0" * 50)
    script = b"*/=alert('x');/*"
    comment = b"\xff\xfe" + struct.pack(">H", len(script) + 2) + script
    exif = b"\xff\xe1/*Exif\0\0" + bytes(0x2F2A - 8)
    assert is_polyglot(PHOTO[:2] + exif + comment + PHOTO[2:])
    # The length of a segment is /* by chance.
    assert isinstance(inspect_image(PHOTO[:2] + exif + PHOTO[2:]), AcceptedImage)
    broad = io.BytesIO()
    Image.new("P", (0x2A2F, 80)).save(broad, "GIF")
    assert broad.getvalue()[6:8] == b"/*"
    assert isinstance(inspect_image(broad.getvalue()), AcceptedImage)


def test_a_program_after_a_jpeg_without_an_end_mark_is_found() -> None:
    assert is_polyglot(PHOTO[:-2] + b"<?=`$_GET[1]`;?>")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000"])
def test_most_bytes_of_an_image_are_pixels(kind: str) -> None:
    data = encoded(kind)
    structure = ImageStructure(data, detect_format(data) or "")
    assert structure.format == kind
    assert sum(map(len, structure.outside_pixels)) < 1500


@needs_cases
def test_photos_of_the_wild() -> None:
    bomb = gzip.decompress((CASES / "photo_scan_bomb.jpg.gz").read_bytes())
    for body, reason in (
        ((CASES / "photo_short_php.jpg").read_bytes(), POLYGLOT),
        (bomb, TOO_MANY_PIXELS),
    ):
        outcome = inspect_image(body)
        assert isinstance(outcome, RejectedImage) and outcome.reason == reason
    good = inspect_image((CASES / "photo_exif_12074.jpg").read_bytes())
    assert isinstance(good, AcceptedImage)


def test_compressed_metadata_is_no_program() -> None:
    chunk = b"Comment\0\0" + zlib.compress(b"<?=`$_GET[1]`;?>")
    info = PngImagePlugin.PngInfo()
    info.add(b"zTXt", chunk)
    assert not is_polyglot(encoded("PNG", pnginfo=info))
