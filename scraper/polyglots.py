"""Files that are a photo and something else as well, which another program would open or run."""

import io
import zipfile

# What begins a page, script, document or archive, in small letters. Long enough that a million
# photos hold none of it by chance.
FOREIGN = (
    *(b"<script>", b"<script ", b"<!doctype ", b"<html>", b"<html ", b"<?php ", b"<svg xmlns"),
    *(b"%pdf-1.", b"rar!\x1a\x07", b"7z\xbc\xaf\x27\x1c\x00"),
)


def is_polyglot(body: bytes) -> bool:
    """Whether BODY, which a reader of photos opens, holds a page, script, document or archive."""
    small = body.lower()
    # An archive is read from its end.
    return any(one in small for one in FOREIGN) or zipfile.is_zipfile(io.BytesIO(body))
