"""Read photos of any supported format as RGB, and encode them as JPEG thumbnails."""

import contextlib
import hashlib
import io
import struct
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import (
    AvifImagePlugin,
    Image,
    ImageChops,
    ImageCms,
    ImageDraw,
    ImageFile,
    ImageOps,
    UnidentifiedImageError,
)

from dataset.errors import first_line
from dataset.images.structure import (
    HEAD_BYTES,
    JPEG_END,
    ImageStructure,
    detect_format,
    exif_orientation,
)

MAX_PIXELS = 50_000_000
# A scan of a JPEG takes as long as a whole image, and an image of one pixel may have thousands.
MAX_SCANS, MAX_SCANNED_PIXELS = 200, 20 * MAX_PIXELS
# Changes whenever the pixels of a file that was read before would change.
PIXELS_VERSION = 2
# Pillow warns above MAX_IMAGE_PIXELS and raises DecompressionBombError above twice as many.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Raise an error for truncated files instead of filling the missing rows with grey.
ImageFile.LOAD_TRUNCATED_IMAGES = False
# Photos are decoded in parallel: more threads for one photo would only wait for each other.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1
# File extension by Pillow's name of the format.
EXTENSIONS = {
    "JPEG": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tif",
    "AVIF": "avif",
    "JPEG2000": "jp2",
    "HEIF": "heic",
}
# Extensions of photos; files of other extensions are recognized by their content.
PHOTO_SUFFIXES = {f".{extension}" for extension in EXTENSIONS.values()} | {
    *(".jpeg", ".jpe", ".jfif", ".tiff", ".heif", ".j2k", ".jpx"),
}
HEIC, HEIC_REMEDY = "HEIC", "to read HEIC: pip install 'fashion-tagger[heif]'"
# What Pillow and its codecs raise for malformed files.
PILLOW_ERRORS = (
    *(OSError, ValueError, SyntaxError, EOFError, LookupError, TypeError, ArithmeticError),
    *(AttributeError, AssertionError, MemoryError, RuntimeError, struct.error, zlib.error),
)
# How to turn a photo with an EXIF orientation upright.
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# A profile whose colours are within this distance of sRGB, of 255, is sRGB.
MAX_SRGB_DIFFERENCE = 2
THUMBNAIL_PIXELS, THUMBNAIL_QUALITY = 112, 80
# Of a rectangle drawn on a thumbnail.
BOX_COLOUR = (239, 68, 68)
# Entropy-coded data that no decoder takes for padding.
_PROBE = bytes([0xA5, 0x5A, 0x36, 0xC9] * 64)


class Unreadable(ValueError):  # noqa: N818 - describes the file
    """The bytes are not an image of a supported format, or are damaged."""


class TooManyPixels(Unreadable):
    """The image has more than MAX_PIXELS pixels, or a JPEG has too many scans."""


class UnsupportedHeic(Unreadable):
    """The image is a HEIC file, and the library for these is not installed."""

    def __init__(self) -> None:
        super().__init__(f"a HEIC photo; {HEIC_REMEDY}")


def open_photo(source: Path | bytes, at_least: int | None = None) -> Image.Image:
    """Open a photo as sRGB, with its orientation applied and transparency on white.

    The orientation and the ICC profile are used if they are valid; no other metadata is read, and
    broken metadata never prevents decoding.

    Args:
        source: A file or its content.
        at_least: Allow a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size, which is faster, as
            long as each side keeps at least this many pixels.

    Returns:
        The image. Its `info` has only `format`, a key of EXTENSIONS, and `size`, width and height
        of the photo at full size.

    Raises:
        TooManyPixels: It has more than MAX_PIXELS pixels, or a JPEG has too many scans.
        UnsupportedHeic: It is a HEIC file that can't be read here.
        Unreadable: It is not an image, or is truncated.
        OSError: The file cannot be read.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    image_format = detect_format(data)
    if image_format is None:
        raise Unreadable("not an image of a supported format")
    if image_format == "HEIF":
        _register_heif()
    try:
        return _open(ImageStructure(data, image_format), at_least)
    except (Image.DecompressionBombError, MemoryError) as error:
        raise TooManyPixels(first_line(error)) from error
    except Unreadable:
        raise
    except UnidentifiedImageError as error:
        name = HEIC if image_format == "HEIF" else image_format
        raise Unreadable(f"damaged, or no {name} image") from error
    except PILLOW_ERRORS as error:
        raise Unreadable(first_line(error)) from error


def reduction_of(photo: Image.Image, at_least: int) -> int:
    """Return the factor by which `open_photo` reduces a photo that is decoded with `at_least`.

    Args:
        photo: The photo, decoded at any size.
        at_least: See `open_photo`.
    """
    if photo.info["format"] != "JPEG":
        return 1
    return next((n for n in (8, 4, 2) if min(photo.info["size"]) // at_least >= n), 1)


def _register_heif() -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError as error:
        raise UnsupportedHeic from error
    register_heif_opener()


def _open(structure: ImageStructure, at_least: int | None) -> Image.Image:
    data = structure.without_metadata()
    if structure.format == "JPEG" and structure.scan_count and not structure.has_end:
        _check_complete(structure, data)
        data += JPEG_END
    with _deep_tiff(structure) or _open_with_pillow(data, structure.format) as image:
        _check_scans(structure, image.size)
        size, orientation = image.size, structure.orientation
        if structure.format == "AVIF":
            # Pillow makes an EXIF block of the rotation that the file's boxes tell.
            orientation = exif_orientation(image.info.get("exif", b"")[6:]) or 1
        if at_least:
            image.draft("RGB", (at_least, at_least))
        icc_profile = structure.icc_profile or image.info.get("icc_profile")
        photo = _as_srgb(image, icc_profile)
    if orientation in TRANSPOSITIONS:
        photo = photo.transpose(TRANSPOSITIONS[orientation])
    is_swapped = orientation >= 5
    photo.info = {"format": structure.format, "size": size[::-1] if is_swapped else size}
    return photo


def _open_with_pillow(data: bytes, image_format: str) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=[image_format])


def _deep_tiff(structure: ImageStructure) -> Image.Image | None:
    """Read a TIFF file of more than 8 bits per sample, which Pillow reads in part only.

    Returns:
        The image with 8 bits per sample; None for other files.
    """
    if structure.format != "TIFF":
        return None
    bits, photometric, width, height = map(structure.tiff_numbers, (258, 262, 256, 257))
    is_deep = max(bits, default=1) > 8 and photometric in ([0], [1], [2]) and width and height
    if not is_deep or width[0] * height[0] > MAX_PIXELS:
        return None
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    flags = cv2.IMREAD_UNCHANGED | cv2.IMREAD_IGNORE_ORIENTATION
    data = np.frombuffer(structure.without_metadata(), np.uint8)
    with contextlib.suppress(cv2.error):
        pixels = cv2.imdecode(data, flags)
        if pixels is None or (pixels.ndim == 3 and pixels.shape[2] not in (3, 4)):
            return None
        levels = _eight_bits(pixels)
        if photometric == [0]:
            levels = 255 - levels
        if levels.ndim == 3:
            # OpenCV's order is blue, green, red, alpha.
            levels = levels[..., [2, 1, 0, 3][: levels.shape[2]]]
        return Image.fromarray(np.ascontiguousarray(levels))
    return None


def _check_scans(structure: ImageStructure, size: tuple[int, int]) -> None:
    scans = structure.scan_count if structure.format == "JPEG" else 1
    if scans > MAX_SCANS or scans * size[0] * size[1] > MAX_SCANNED_PIXELS:
        raise TooManyPixels(f"{scans} scans of {size[0]} x {size[1]} pixels")


def _check_complete(structure: ImageStructure, data: bytes) -> None:
    """Check that a JPEG without an end mark has all its pixels.

    A decoder ignores what follows the last pixel, and takes it for pixels if some are missing.

    Raises:
        Unreadable: Pixels are missing.
    """
    pixels = []
    for ending in (JPEG_END, _PROBE + JPEG_END):
        with Image.open(io.BytesIO(data.rstrip(b"\xff") + ending), formats=["JPEG"]) as image:
            _check_scans(structure, image.size)
            pixels.append(image.convert("RGB"))
    if not structure.has_all_scans or ImageChops.difference(*pixels).getbbox():
        raise Unreadable("truncated")


def _as_srgb(image: Image.Image, icc_profile: bytes | None) -> Image.Image:
    """Convert an image of any mode to sRGB, with transparency on white."""
    if image.mode.startswith(("I", "F")):
        image = _grey(image)
    is_grey = image.mode in ("1", "L", "LA")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if icc_profile and image.mode != "LAB":
        mode = "CMYK" if image.mode == "CMYK" else "L" if is_grey else "RGB"
        # A profile of another kind than the image may be of the colours that it had before.
        for profile_mode in (mode, "RGB"):
            transform = _srgb_transform(icc_profile, profile_mode)
            if transform is not None:
                return _transformed(image.convert(profile_mode), transform)
    if image.mode == "LAB":
        return _lab_to_srgb(image)
    return image.convert("RGB")


def _grey(image: Image.Image) -> Image.Image:
    """Convert greyscale of more than 8 bits to 8 bits."""
    values = np.asarray(image)
    grey = Image.fromarray(_eight_bits(values))
    if "transparency" in image.info:
        alpha = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
        grey.putalpha(Image.fromarray(alpha))
    return grey


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Scale samples to uint8: integers by their type, floats by the range that they are in."""
    maximum = float(np.nan_to_num(values, posinf=0).max(initial=0))
    if values.dtype.kind == "f":
        scale = 255 / next((limit for limit in (1.0, 255.0, 65535.0) if maximum <= limit), maximum)
    elif values.dtype.itemsize == 1 or (values.dtype.itemsize == 4 and maximum <= 255):
        scale = 1.0
    else:
        # Pillow reads 16 bits as 32.
        scale = 1 / 256 if values.dtype.itemsize == 2 or maximum <= 65535 else 2**-24
    return np.clip(np.nan_to_num(values) * scale, 0, 255).astype(np.uint8)


_CMS_ERRORS = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


@lru_cache(32)
def _srgb_transform(icc_profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from a profile to sRGB.

    Args:
        icc_profile: The profile.
        mode: Pillow's mode of the image: RGB, L or CMYK.

    Returns:
        The transform; None if the profile is sRGB, is broken, or is not of this mode.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
        if source.profile.xcolor_space.strip() != {"L": "GRAY"}.get(mode, mode):
            return None
        srgb = ImageCms.createProfile("sRGB")
        exact = ImageCms.Intent.RELATIVE_COLORIMETRIC
        if mode != "CMYK" and _is_identity(
            ImageCms.buildTransform(source, srgb, mode, "RGB", exact), mode
        ):
            return None
        return ImageCms.buildTransform(source, srgb, mode, "RGB")
    except _CMS_ERRORS:
        return None


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return whether a transform leaves colours as they are."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    channels = np.meshgrid(*[levels] * len(mode))
    colours = np.stack(channels, -1).reshape(1, -1, len(mode))
    before = Image.fromarray(colours[..., 0] if mode == "L" else colours)
    difference = np.asarray(before.convert("RGB"), np.int16) - np.asarray(
        _transformed(before, transform)
    )
    return int(np.abs(difference).max()) <= MAX_SRGB_DIFFERENCE


def _transformed(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    converted = ImageCms.applyTransform(image, transform)
    # It is None if the image is changed in place.
    assert converted is not None
    return converted


def _lab_to_srgb(image: Image.Image) -> Image.Image:
    profiles = (ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"))
    return _transformed(image, ImageCms.buildTransform(*profiles, "LAB", "RGB"))


@dataclass(frozen=True)
class FoundPhotos:
    """The photos of a folder, and what else it has.

    Attributes:
        paths: Paths of the photos, sorted.
        skipped: Kind of the other files (an extension, or HEIC) -> number of files.
    """

    paths: list[Path]
    skipped: Counter[str]

    def describe_skipped(self) -> str:
        """Return how many files were skipped, by kind; empty if none were."""
        if not self.skipped:
            return ""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.skipped.items()))
        remedy = f"; {HEIC_REMEDY}" if HEIC in self.skipped else ""
        count = self.skipped.total()
        files = "1 file" if count == 1 else f"{count} files"
        return f"{files} skipped, not readable as photos: {kinds}{remedy}"


def find_photos(paths: Iterable[Path]) -> FoundPhotos:
    """Find the photos among paths by the content of the files.

    A file of another content with the extension of a photo is a broken photo. Hidden files and
    folders (.ipynb_checkpoints, ._photo.jpg) are of other programs and are ignored.

    Args:
        paths: Files and folders; folders are not searched.
    """
    found = FoundPhotos([], Counter())
    for path in sorted(paths):
        if path.name.startswith(".") or path.parent.name.startswith(".") or not path.is_file():
            continue
        suffix = path.suffix.lower()
        image_format = _format_of_file(path)
        if image_format == "HEIF" and find_spec("pillow_heif") is None:
            found.skipped[HEIC] += 1
        elif image_format or suffix in PHOTO_SUFFIXES:
            found.paths.append(path)
        else:
            found.skipped[suffix or "without extension"] += 1
    return found


def _format_of_file(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return detect_format(file.read(HEAD_BYTES))
    except OSError:
        return None


def apply_to_channels(
    image: Image.Image, change: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    """Change an image; of an RGBA image, its colours and its alpha channel separately.

    Pillow clears the colours of transparent pixels when it resizes or transforms an RGBA image.

    Args:
        image: An image in RGB, L or RGBA.
        change: A change of images in RGB or L.
    """
    if image.mode != "RGBA":
        return change(image)
    result = change(image.convert("RGB"))
    result.putalpha(change(image.getchannel("A")))
    return result


def letterbox(image: Image.Image, size: int) -> Image.Image:
    """Resize an image to fit a square and pad it with white.

    Args:
        image: The image; its aspect ratio is kept.
        size: Width and height of the result in pixels.
    """
    return ImageOps.pad(image, (size, size), Image.Resampling.LANCZOS, color="white")


def thumbnail(
    source: Path | bytes,
    side: int = THUMBNAIL_PIXELS,
    box: tuple[float, float, float, float] | None = None,
) -> bytes:
    """Encode a photo as a small JPEG.

    Args:
        source: A file or its content.
        side: Largest width and height of the thumbnail in pixels.
        box: Left, top, right and bottom of a rectangle to draw, in pixels of the photo.

    Raises:
        Unreadable: It is not an image, or is damaged.
        OSError: The file cannot be read.
    """
    image, out = open_photo(source, side), io.BytesIO()
    full_width = image.info["size"][0]
    image.thumbnail((side, side), Image.Resampling.BOX)
    if box is not None:
        edges = [round(edge * image.width / full_width) for edge in box]
        edges[2:] = max(edges[0], edges[2] - 1), max(edges[1], edges[3] - 1)
        ImageDraw.Draw(image).rectangle(edges, outline=BOX_COLOUR, width=2)
    image.save(out, "JPEG", quality=THUMBNAIL_QUALITY)
    return out.getvalue()


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 of bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def thumbnail_or_none(
    read: Callable[[], bytes],
    side: int = THUMBNAIL_PIXELS,
    box: tuple[float, float, float, float] | None = None,
) -> bytes | None:
    """Return the thumbnail of an image file, or None if the file cannot be read.

    Args:
        read: Returns the bytes of the file, or raises `OSError` or `ValueError`.
        side: Largest width and height of the thumbnail in pixels.
        box: Left, top, right and bottom of a rectangle to draw, in pixels of the photo.
    """
    try:
        return thumbnail(read(), side, box)
    except (OSError, ValueError):
        return None
