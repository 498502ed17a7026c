"""The structure of image files: which bytes are pixels, which are metadata, and where they end.

Decoders receive files without metadata, so that broken metadata never prevents decoding. Nothing
here raises an error for malformed files: decoders find what is wrong with the pixels.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

# Bytes at the start of a file that identify its format.
HEAD_BYTES = 64
MAX_ICC_BYTES = 8_000_000
JPEG_END = b"\xff\xd9"
# Values of the EXIF orientation tag are 1 to 8.
ORIENTATION_TAG, ICC_TAG, XMP_TAG = 0x0112, 0x8773, 0x02BC
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation(?:\s*=\s*[\"']|>)\s*([1-8])\b")
_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
}
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {
    *(b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"),
    *(b"mif1", b"msf1", b"mif2"),
}


def detect_format(head: bytes) -> str | None:
    """Return Pillow's name of the format of a file, None if it is not a known image format.

    Args:
        head: The first HEAD_BYTES of the file, or more.
    """
    for signature, name in _SIGNATURES.items():
        # Text may start with BM: the reserved bytes of a bitmap are zero.
        if head.startswith(signature) and (name != "BMP" or head[6:10] == bytes(4)):
            return name
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        size = min(int.from_bytes(head[:4], "big"), HEAD_BYTES)
        brands = {head[8:12], *(head[start : start + 4] for start in range(16, size, 4))}
        if brands & _AVIF_BRANDS:
            return "AVIF"
        if brands & _HEIF_BRANDS:
            return "HEIF"
    return None


@dataclass(frozen=True, slots=True)
class Part:
    """A segment, chunk, box or block of a file.

    Attributes:
        kind: Its marker or name; empty for entropy-coded data of JPEG.
        start: Offset of its header.
        body: Offset of its content.
        end: Offset after it, at most the size of the file.
        is_cut: Whether the file ends before it does.
    """

    kind: bytes
    start: int
    body: int
    end: int
    is_cut: bool = False


# Kinds of parts that hold pixels. The box of an AVIF file that does has metadata as well.
_PIXEL_PARTS = {
    "JPEG": {b""},
    "PNG": {b"IDAT", b"fdAT"},
    "WEBP": {b"VP8 ", b"VP8L", b"ALPH", b"ANMF"},
    "GIF": {b","},
    "BMP": {b"pixels"},
    "TIFF": {b"pixels"},
    "JPEG2000": {b"pixels"},
}
# Kinds of parts that decoders need.
_JPEG_NEEDED = {bytes([marker]) for marker in (*range(0xC0, 0xD0), 0xDA, 0xDB, 0xDC, 0xDD)}
_PNG_NEEDED = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
_WEBP_NEEDED = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"}
_TIFF_NEEDED = {
    *(256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324),
    *(325, 332, 336, 338, 339, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531),
    532,
}
# Optional ones that decoders can do without if their values are not in these ranges.
_TIFF_RANGES = {266: (1, 2), 338: (0, 2), 339: (1, 6)}
_EOI, _SOS, _SOF_MARKERS = b"\xd9", b"\xda", {bytes([m]) for m in range(0xC0, 0xD0)}
_NO_FRAME_MARKERS = {b"\xc4", b"\xc8", b"\xcc"}
# A marker within entropy-coded data; FF 00 is data, D0 to D7 restart the decoder, FF FF is padding.
# A literal first byte makes the search fast.
_NEXT_MARKER = re.compile(rb"\xff(?:[^\x00\xff\xd0-\xd7]|\xff+[^\x00\xff\xd0-\xd7])", re.DOTALL)


@dataclass(frozen=True)
class ImageStructure:
    """The parts of an image file.

    Attributes:
        data: The file.
        format: Pillow's name of its format.
    """

    data: bytes = field(repr=False)
    format: str

    @cached_property
    def parts(self) -> list[Part]:
        """The parts in the order of the file; what follows the image belongs to no part."""
        readers = {
            "JPEG": _jpeg_parts,
            "PNG": _png_parts,
            "WEBP": _webp_parts,
            "GIF": _gif_parts,
            "BMP": _bmp_parts,
            "TIFF": _tiff_parts,
            "JPEG2000": _jpeg2000_parts,
        }
        return list(readers.get(self.format, _boxes)(self.data))

    def bodies(self, kind: bytes, prefix: bytes = b"") -> list[bytes]:
        """Return the contents of all parts of a kind that start with a prefix."""
        bodies = (self.data[part.body : part.end] for part in self.parts if part.kind == kind)
        return [body for body in bodies if body.startswith(prefix)]

    @cached_property
    def outside_pixels(self) -> list[bytes]:
        """The bytes that are not pixels: headers, metadata, and what follows the image."""
        pieces, position = [], 0
        for part in self.parts:
            if part.kind in _PIXEL_PARTS.get(self.format, ()):
                pieces.append(self.data[position : part.body])
                position = part.end
        pieces.append(self.data[position:])
        if self.format == "JPEG" and not self.has_end:
            # What follows the pixels can't be told from them.
            pieces += self.bodies(b"")[-1:]
        return pieces

    @property
    def has_end(self) -> bool:
        """Whether a JPEG has its end mark."""
        return any(part.kind == _EOI for part in self.parts)

    @property
    def scan_count(self) -> int:
        """Number of scans of a JPEG: each one costs as much time as a whole image."""
        return sum(part.kind == _SOS for part in self.parts)

    @property
    def has_all_scans(self) -> bool:
        """Whether the scans of a JPEG cover all coefficients of all components in full."""
        frames = [part for part in self.parts if part.kind in _SOF_MARKERS - _NO_FRAME_MARKERS]
        if not frames:
            return False
        frame = self.data[frames[0].body : frames[0].end]
        missing = {(name, k) for name in frame[6::3] for k in range(64)}
        for scan in self.bodies(_SOS):
            count = scan[0] if scan else 0
            names, parameters = scan[1 : 1 + 2 * count : 2], scan[1 + 2 * count :]
            if len(parameters) >= 3 and parameters[2] & 15 == 0:
                last = min(63, parameters[1])
                missing -= {(n, k) for n in names for k in range(parameters[0], last + 1)}
        return not missing

    @property
    def exif(self) -> bytes:
        """The EXIF block of a JPEG, PNG, WebP or TIFF file, which may be broken; else empty."""
        if self.format == "JPEG":
            return b"".join(body[6:] for body in self.bodies(b"\xe1", b"Exif\0"))
        if self.format == "TIFF":
            return self.data
        kind = {"PNG": b"eXIf", "WEBP": b"EXIF"}.get(self.format)
        return next(iter(self.bodies(kind)), b"").removeprefix(b"Exif\0\0") if kind else b""

    @property
    def orientation(self) -> int:
        """The orientation, 1 to 8, of the EXIF block, or of the XMP data if that has none."""
        found = exif_orientation(self.exif)
        if found is None:
            matches = (_XMP_ORIENTATION.search(packet) for packet in self._xmp_packets())
            found = next((int(match[1]) for match in matches if match), 1)
        return found

    def tiff_numbers(self, tag: int) -> list[int]:
        """Return the integers of a tag of the first directory of a TIFF file."""
        return _tiff_numbers(self.data, tag)

    def _xmp_packets(self) -> list[bytes]:
        if self.format == "JPEG":
            return self.bodies(b"\xe1", b"http://ns.adobe.com/xap/")
        if self.format == "TIFF":
            return [_tiff_value(self.data, XMP_TAG)]
        kinds = {"PNG": b"iTXt", "WEBP": b"XMP "}
        return self.bodies(kinds[self.format]) if self.format in kinds else []

    @property
    def icc_profile(self) -> bytes | None:
        """The ICC profile of a JPEG, PNG, WebP, TIFF or JPEG 2000 file, if it has one."""
        if self.format == "JPEG":
            pieces = sorted(body[12:] for body in self.bodies(b"\xe2", b"ICC_PROFILE\0"))
            profile = b"".join(piece[2:] for piece in pieces)
        elif self.format == "PNG":
            profile = _png_profile(next(iter(self.bodies(b"iCCP")), b""))
        elif self.format == "WEBP":
            profile = next(iter(self.bodies(b"ICCP")), b"")
        elif self.format == "TIFF":
            profile = _tiff_value(self.data, ICC_TAG)
        elif self.format == "JPEG2000":
            profile = _jpeg2000_profile(self.bodies(b"jp2h"))
        else:
            profile = b""
        return profile if 0 < len(profile) <= MAX_ICC_BYTES else None

    def without_metadata(self) -> bytes:
        """Return a file of the same pixels with nothing but what a decoder needs."""
        writers = {
            "JPEG": self._plain_jpeg,
            "PNG": self._plain_png,
            "WEBP": self._plain_webp,
            "AVIF": self._plain_avif,
        }
        if self.format == "TIFF":
            return _plain_tiff(self.data)
        return writers[self.format]() if self.format in writers else self.data

    def _plain_jpeg(self) -> bytes:
        if not self.scan_count:
            return self.data
        needed = [b"\xff\xd8"]
        for part in self.parts:
            content = self.data[part.body : part.end]
            # These two segments name the colour space.
            is_jfif = part.kind == b"\xe0" and content.startswith(b"JFIF\0") and len(content) >= 14
            is_adobe = part.kind == b"\xee" and content.startswith(b"Adobe") and len(content) >= 12
            if not part.kind:
                needed.append(content)
            elif part.kind in _JPEG_NEEDED or is_jfif or is_adobe:
                size = struct.pack(">H", len(content) + 2)
                needed += [b"\xff", part.kind, size, content]
        return b"".join([*needed, b"\xff\xd9" if self.has_end else b""])

    def _plain_png(self) -> bytes:
        needed = [self.data[:8]]
        for part in self.parts:
            chunk = self.data[part.start : part.end]
            is_intact = zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:], "big")
            if part.kind in _PNG_NEEDED and (part.kind != b"tRNS" or is_intact):
                needed.append(chunk)
        return b"".join(needed)

    def _plain_webp(self) -> bytes:
        chunks = []
        for part in self.parts:
            chunk = self.data[part.start : part.end]
            if part.kind == b"VP8X" and len(chunk) > 8:
                # Without the flags of the profile, EXIF and XMP chunks.
                chunk = chunk[:8] + bytes([chunk[8] & ~0x2C]) + chunk[9:]
            if part.kind in _WEBP_NEEDED:
                chunks.append(chunk)
        body = b"WEBP" + b"".join(chunks)
        return b"RIFF" + struct.pack("<I", len(body)) + body

    def _plain_avif(self) -> bytes:
        data = self.data
        if data[8:12] not in (*_AVIF_BRANDS, b"mif1", b"msf1"):
            # Pillow looks at the major brand only.
            data = data[:8] + b"avif" + data[12:]
        for part in self.parts:
            if part.kind == b"meta":
                # Rename the type of the EXIF item, so that it is not found.
                meta = re.sub(
                    rb"(infe(?:\x02.{7}|\x03.{9}))Exif",
                    rb"\1none",
                    data[part.body : part.end],
                    flags=re.DOTALL,
                )
                data = data[: part.body] + meta + data[part.end :]
        return data


def exif_orientation(block: bytes) -> int | None:
    """Return the orientation tag of an EXIF block or TIFF file; None without a valid one.

    No other tag is read.
    """
    value = _tiff_value(block, ORIENTATION_TAG)
    order = "little" if block[:2] == b"II" else "big"
    number = int.from_bytes(value, order) if len(value) <= 4 else 0  # type: ignore[arg-type]
    return number if 1 <= number <= 8 else None


@dataclass(frozen=True, slots=True)
class _Layout:
    """Struct formats of a TIFF file, which has 32-bit offsets, or 64-bit ones (BigTIFF)."""

    count: struct.Struct
    entry: struct.Struct
    offset: struct.Struct
    first: int


def _tiff_layout(data: bytes) -> _Layout | None:
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None or len(data) < 16:
        return None
    is_big = data[2:4] in (b"+\0", b"\0+")
    count, entry, offset = ("Q", "HHQ8s", "Q") if is_big else ("H", "HHI4s", "I")
    pointer = struct.Struct(order + offset)
    (first,) = pointer.unpack_from(data, 8 if is_big else 4)
    return _Layout(struct.Struct(order + count), struct.Struct(order + entry), pointer, first)


def _tiff_entries(data: bytes, layout: _Layout) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield tag, type, count and value field of the entries of the first directory."""
    if layout.first + layout.count.size > len(data):
        return
    (count,) = layout.count.unpack_from(data, layout.first)
    start = layout.first + layout.count.size
    for position in range(start, start + count * layout.entry.size, layout.entry.size):
        if position + layout.entry.size > len(data):
            return
        yield layout.entry.unpack_from(data, position)


_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1, 8: 2, 9: 4, 13: 4, 16: 8, 18: 8}


def _tiff_value(data: bytes, tag: int) -> bytes:
    """Return the bytes of a value of the first directory; empty if it is missing or broken."""
    layout = _tiff_layout(data)
    if layout is None:
        return b""
    for name, kind, count, value in _tiff_entries(data, layout):
        if name == tag and kind in _TYPE_BYTES:
            size = count * _TYPE_BYTES[kind]
            if size <= layout.offset.size:
                return value[:size]
            (start,) = layout.offset.unpack(value)
            return data[start : start + size] if start + size <= len(data) else b""
    return b""


def _plain_tiff(data: bytes) -> bytes:
    """Return a TIFF file whose only directory has the tags that decoders need."""
    layout = _tiff_layout(data)
    entries = list(_tiff_entries(data, layout)) if layout else []
    if layout is None or not entries:
        return data
    kept = [
        layout.entry.pack(*entry)
        for entry in entries
        if entry[0] in _TIFF_NEEDED and _is_valid(data, *entry[:2])
    ]
    directory = layout.count.pack(len(kept)) + b"".join(kept) + layout.offset.pack(0)
    return data[: layout.first] + directory + data[layout.first + len(directory) :]


def _is_valid(data: bytes, tag: int, kind: int) -> bool:
    """Return whether the value of an optional tag can be used."""
    if tag not in _TIFF_RANGES:
        return True
    low, high = _TIFF_RANGES[tag]
    values = _tiff_numbers(data, tag)
    return kind == 3 and bool(values) and low <= min(values) <= max(values) <= high


def _tiff_numbers(data: bytes, tag: int) -> list[int]:
    """Return the integers of a tag of the first directory; empty if it is missing or broken."""
    layout = _tiff_layout(data)
    entries = _tiff_entries(data, layout) if layout else []
    width = next((_TYPE_BYTES.get(kind, 1) for name, kind, _, _ in entries if name == tag), 1)
    value, order = _tiff_value(data, tag), "little" if data[:2] == b"II" else "big"
    pieces = (value[start : start + width] for start in range(0, len(value), width))
    return [int.from_bytes(piece, order) for piece in pieces]  # type: ignore[arg-type]


def _tiff_parts(data: bytes) -> Iterator[Part]:
    """Yield the strips and tiles of the first directory."""
    strips, tiles = (
        zip(_tiff_numbers(data, offsets), _tiff_numbers(data, sizes), strict=False)
        for offsets, sizes in ((273, 279), (324, 325))
    )
    pixels = [*strips, *tiles]
    position = 0
    for start, size in sorted(pixels):
        if start >= position and start + size <= len(data):
            position = start + size
            yield Part(b"pixels", start, start, position)


def _jpeg_parts(data: bytes) -> Iterator[Part]:
    """Yield the segments of the first image, to its end mark."""
    position = 2
    while position < len(data):
        marker = _NEXT_MARKER.search(data, position)
        if marker is None:
            return
        kind, body = marker[0][-1:], marker.end()
        if kind == _EOI:
            yield Part(kind, marker.start(), body, body)
            return
        if kind in (b"\xd8", b"\x01"):
            position = body
            continue
        size = int.from_bytes(data[body : body + 2], "big")
        if size < 2:
            return
        end = min(len(data), body + size)
        yield Part(kind, marker.start(), min(body + 2, end), end, body + size > len(data))
        position = end
        if kind == _SOS:
            following = _NEXT_MARKER.search(data, end)
            position = following.start() if following else len(data)
            yield Part(b"", end, end, position, following is None)


def _png_parts(data: bytes) -> Iterator[Part]:
    position = 8
    while position + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        end = position + 12 + size
        yield Part(kind, position, position + 8, min(end, len(data)), end > len(data))
        position = end
        if kind == b"IEND":
            return


def _png_profile(chunk: bytes) -> bytes:
    """Return the profile of an iCCP chunk with its checksum; empty if it is broken."""
    _, _, compressed = chunk.partition(b"\0")
    try:
        return zlib.decompressobj().decompress(compressed[1:], MAX_ICC_BYTES)
    except zlib.error:
        return b""


def _webp_parts(data: bytes) -> Iterator[Part]:
    position = 12
    limit = min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while position + 8 <= limit:
        kind, size = struct.unpack_from("<4sI", data, position)
        end = position + 8 + size + size % 2
        yield Part(kind, position, position + 8, min(end, len(data)), end > len(data))
        position = end


def _gif_parts(data: bytes) -> Iterator[Part]:
    def after_table(position: int, flags: int) -> int:
        return position + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)

    position = after_table(13, data[10] if len(data) > 10 else 0)
    while position < len(data):
        kind, start = data[position : position + 1], position
        if kind == b"," and position + 10 < len(data):
            body = after_table(position + 10, data[position + 9]) + 1
        elif kind == b"!":
            body = position + 2
        else:
            return
        position = body
        while position < len(data) and data[position]:
            position += 1 + data[position]
        position += 1
        yield Part(kind, start, body, min(position, len(data)), position > len(data))


def _bmp_parts(data: bytes) -> Iterator[Part]:
    if len(data) >= 38:
        (start,) = struct.unpack_from("<I", data, 10)
        width, height, _, bits, compression, size = struct.unpack_from("<iiHHII", data, 18)
        if compression in (0, 3):
            size = (abs(width) * bits + 31) // 32 * 4 * abs(height)
        yield Part(b"pixels", start, start, min(start + size, len(data)))


def _boxes(data: bytes, position: int = 0) -> Iterator[Part]:
    """Yield the boxes of an ISO base media file."""
    while position + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, position)
        body = position + 8
        if size == 1 and position + 16 <= len(data):
            (size,) = struct.unpack_from(">Q", data, body)
            body += 8
        end = position + size if size else len(data)
        if end < body or not kind.isascii():
            return
        yield Part(kind, position, body, min(end, len(data)), end > len(data))
        position = end


def _jpeg2000_parts(data: bytes) -> Iterator[Part]:
    """Yield boxes, with the tiles of the codestream as pixels."""
    is_codestream = data.startswith(b"\xff\x4f")
    boxes = [Part(b"jp2c", 0, 0, len(data))] if is_codestream else list(_boxes(data))
    for box in boxes:
        if box.kind == b"jp2c":
            # Tiles start with SOT (FF 90) and end with EOC (FF D9).
            start = data.find(b"\xff\x90", box.body, box.end)
            end = data.rfind(b"\xff\xd9", box.body, box.end)
            if box.body <= start < end:
                yield Part(b"pixels", start, start, end)
        else:
            yield box


def _jpeg2000_profile(headers: list[bytes]) -> bytes:
    """Return the ICC profile of the colour specification box; empty if it has none."""
    for header in headers:
        for box in _boxes(header):
            if box.kind == b"colr" and header[box.body : box.body + 1] in (b"\x02", b"\x03"):
                return header[box.body + 3 : box.end]
    return b""
