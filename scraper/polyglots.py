"""Files that are a photo and something else as well, which another program would open or run."""

import io
import re
import zipfile

# What begins a page, script, document or archive, in small letters. Long enough that a million
# photos hold none of it by chance.
PAGE = re.compile(rb"<(script[ >]|!doctype |html[ >]|\?php |svg xmlns|iframe |body )")
FOREIGN = (
    *(b"javascript:", b"#!/bin/", b"#!/usr/bin/"),
    *(b"%pdf-1.", b"rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c\x00", b"\xfd7zxz\x00"),
    *(b"ustar\x0000", b"ustar  \x00", b"\x7felf\x01\x01\x01\x00", b"\x7felf\x02\x01\x01\x00"),
    b"this program cannot be run in dos mode",
)
# A photo whose width, size or first part is written so that a browser reads the whole as a script:
# GIF89a/* … */=1. No photo of use has a width or a part that these signs stand for.
SCRIPT = re.compile(
    rb"(GIF8[79]a(/\*|[/=][ -~])|BM/\*|RIFF/\*|\xff\xd8\xff[\xe0-\xef\xfe]/\*)", re.DOTALL
)


def is_polyglot(body: bytes) -> bool:
    """Whether BODY, which a reader of photos opens, holds a page, script, document or archive."""
    small = body.lower()
    if SCRIPT.match(body) or PAGE.search(small) or any(one in small for one in FOREIGN):
        return True
    # An archive is read from its end.
    return zipfile.is_zipfile(io.BytesIO(body))
