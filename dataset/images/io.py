"""Read photos of any supported format as RGB, and encode them as JPEG thumbnails."""

import hashlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from dataset.errors import first_line

MAX_PIXELS = 50_000_000
# Pillow warns above MAX_IMAGE_PIXELS and raises DecompressionBombError above twice as many.
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Raise an error for truncated files instead of filling the missing rows with grey.
ImageFile.LOAD_TRUNCATED_IMAGES = False
# File extension by Pillow's name of the format.
EXTENSIONS = {
    "JPEG": "jpg",
    "MPO": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tif",
}
# File name extensions of photos in a folder.
PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
# Pillow opens MPO (two JPEGs in one file, from phones) as JPEG first.
READ_FORMATS = tuple(name for name in EXTENSIONS if name != "MPO")
# The EXIF orientation tag, and its values that swap width and height.
ORIENTATION_TAG, SWAPPING_ORIENTATIONS = 0x0112, (5, 6, 7, 8)
THUMBNAIL_PIXELS, THUMBNAIL_QUALITY = 112, 80


class Unreadable(ValueError):  # noqa: N818 - describes the file
    """The bytes are not an image of a supported format, or are damaged."""


class TooManyPixels(Unreadable):
    """The image has more than MAX_PIXELS pixels."""


def open_photo(source: Path | bytes, at_least: int | None = None) -> Image.Image:
    """Open a photo as RGB, with its EXIF orientation applied and transparency on white.

    Args:
        source: A file or its content.
        at_least: Allow a JPEG to be decoded at 1/2, 1/4 or 1/8 of its size, which is faster, as
            long as each side keeps at least this many pixels.

    Returns:
        The image. Its `info` has only `format`, a key of EXTENSIONS, and `size`, width and height
        of the photo at full size.

    Raises:
        TooManyPixels: It has more than MAX_PIXELS pixels.
        Unreadable: It is not an image, or is truncated.
        OSError: The file cannot be read.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=READ_FORMATS) as image:
            size = image.size
            if at_least:
                image.draft("RGB", (at_least, at_least))
            photo = _as_rgb(ImageOps.exif_transpose(image))
            is_swapped = image.getexif().get(ORIENTATION_TAG, 1) in SWAPPING_ORIENTATIONS
            photo.info = {"format": image.format, "size": size[::-1] if is_swapped else size}
            return photo
    except UnidentifiedImageError as error:
        raise Unreadable("not an image of a supported format") from error
    except Image.DecompressionBombError as error:
        raise TooManyPixels(first_line(error)) from error
    # Pillow raises these and more for malformed files.
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise Unreadable(first_line(error)) from error


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        # 16-bit greyscale: convert() would clip everything above 255 to white.
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def letterbox(image: Image.Image, size: int) -> Image.Image:
    """Resize an RGB image to fit a square and pad it with white.

    Args:
        image: The image; its aspect ratio is kept.
        size: Width and height of the result in pixels.
    """
    return ImageOps.pad(image, (size, size), Image.Resampling.LANCZOS, color="white")


def thumbnail(source: Path | bytes, side: int = THUMBNAIL_PIXELS) -> bytes:
    """Encode a photo as a small JPEG.

    Args:
        source: A file or its content.
        side: Largest width and height of the thumbnail in pixels.

    Raises:
        Unreadable: It is not an image, or is damaged.
        OSError: The file cannot be read.
    """
    image, out = open_photo(source, side), io.BytesIO()
    image.thumbnail((side, side), Image.Resampling.BOX)
    image.save(out, "JPEG", quality=THUMBNAIL_QUALITY)
    return out.getvalue()


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 of bytes as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def thumbnail_or_none(read: Callable[[], bytes], side: int = THUMBNAIL_PIXELS) -> bytes | None:
    """Return the thumbnail of an image file, or None if the file cannot be read.

    Args:
        read: Returns the bytes of the file, or raises `OSError` or `ValueError`.
        side: Largest width and height of the thumbnail in pixels.
    """
    try:
        return thumbnail(read(), side)
    except (OSError, ValueError):
        return None
