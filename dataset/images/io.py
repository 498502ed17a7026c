"""Photos: reading any of them as RGB, and writing files so that no half one ever stands there."""

import hashlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from dataset.errors import first_line

MOST_PIXELS = 50_000_000
# Pillow's own guard, set here so that every reader of ours has it: it warns, twice that it refuses.
Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Pillow's name of a format -> the file extension that it is kept under.
EXTENSIONS = {
    "JPEG": "jpg",
    "MPO": "jpg",
    "PNG": "png",
    "WEBP": "webp",
    "GIF": "gif",
    "BMP": "bmp",
    "TIFF": "tif",
}
# The tag of EXIF that says how a photo is turned, and its values that swap width and height.
ORIENTATION, ON_THEIR_SIDE = 0x0112, (5, 6, 7, 8)
# How names of photos end, where a folder is looked through.
PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
# Pillow opens MPO (two JPEGs in one file, from phones) as JPEG first.
OPENED = tuple(kind for kind in EXTENSIONS if kind != "MPO")


class Unreadable(ValueError):  # noqa: N818 - reads as what happened
    """The bytes are no photo, or a broken one; the message says which."""


class TooManyPixels(Unreadable):
    """More than MOST_PIXELS."""


def open_photo(source: Path | bytes, at_least: int | None = None) -> Image.Image:
    """The photo SOURCE as RGB, turned as its EXIF says, transparency on white.

    With AT_LEAST a JPEG may come smaller, by 1/2, 1/4 or 1/8, each side still that many pixels
    long: faster. Its `info` holds only `format`, a key of EXTENSIONS, and the whole photo's `size`.

    Raises:
        TooManyPixels: it would be larger than any photo of use.
        Unreadable: not an image, or cut off.
        OSError: SOURCE is a file that can't be read.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=OPENED) as image:
            size = image.size
            if at_least:
                image.draft("RGB", (at_least, at_least))
            photo = _as_rgb(ImageOps.exif_transpose(image))
            turned = image.getexif().get(ORIENTATION, 1) in ON_THEIR_SIDE
            photo.info = {"format": image.format, "size": size[::-1] if turned else size}
            return photo
    except UnidentifiedImageError as error:
        raise Unreadable("not an image of a kind that we read") from error
    except Image.DecompressionBombError as error:
        raise TooManyPixels(first_line(error)) from error
    # Pillow raises these and more for hostile files; each means that the photo can't be used.
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise Unreadable(first_line(error)) from error


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        # 16-bit grey: convert() would clip everything above 255 to white.
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def letterbox(image: Image.Image, size: int) -> Image.Image:
    """IMAGE, RGB, fitted into SIZE x SIZE pixels on white, its shape kept."""
    return ImageOps.pad(image, (size, size), Image.Resampling.LANCZOS, color="white")


def sha256_of(data: bytes) -> str:
    """SHA-256 of DATA, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


# A photo cut off in its last rows is refused, not filled with grey.
ImageFile.LOAD_TRUNCATED_IMAGES = False


def thumbnail(image: Image.Image, side: int) -> bytes:
    """Return an image as a small JPEG file for a page.

    Args:
        image: An RGB image.
        side: Largest width and height of the result in pixels.
    """
    small, file = image.copy(), io.BytesIO()
    small.thumbnail((side, side), Image.Resampling.BOX)
    small.save(file, "JPEG", quality=80)
    return file.getvalue()


def thumbnail_or_none(read: Callable[[], bytes], side: int) -> bytes | None:
    """Return the thumbnail of an image file, or None if the file can't be read.

    Args:
        read: Returns the bytes of the file, or raises `OSError` or `ValueError`.
        side: Largest width and height of the result in pixels.
    """
    try:
        return thumbnail(open_photo(read(), side), side)
    except (OSError, ValueError):
        return None
