"""Photos: reading any of them as RGB, and keeping the bytes that came under their SHA-256."""

import contextlib
import fcntl
import hashlib
import io
import os
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from dataset.errors import Failure, first_line

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
# How names of photos end, where a folder is looked through.
PHOTO_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
# Pillow opens MPO (two JPEGs in one file, from phones) as JPEG first.
OPENED = tuple(kind for kind in EXTENSIONS if kind != "MPO")


# How the name of a half-written file begins.
PART = ".part-"


class Unreadable(ValueError):  # noqa: N818 - reads as what happened
    """The bytes are no photo, or a broken one; the message says which."""


class TooManyPixels(Unreadable):
    """More than MOST_PIXELS."""


def open_photo(source: Path | bytes, at_least: int | None = None) -> Image.Image:
    """The photo SOURCE as RGB, turned as its EXIF says, transparency on white.

    With AT_LEAST a JPEG may come smaller, by 1/2, 1/4 or 1/8, each side still that many pixels
    long: faster. Its `info` holds only `format`, a key of EXTENSIONS.

    Raises:
        TooManyPixels: it would be larger than any photo of use.
        Unreadable: not an image, or cut off.
        OSError: SOURCE is a file that can't be read.
    """
    data = source if isinstance(source, bytes) else source.read_bytes()
    try:
        with Image.open(io.BytesIO(data), formats=OPENED) as image:
            if at_least:
                image.draft("RGB", (at_least, at_least))
            photo = _as_rgb(ImageOps.exif_transpose(image))
            photo.info = {"format": image.format}
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


def write_atomically(path: Path, data: bytes, aside_in: Path | None = None) -> None:
    """Write DATA to PATH: aside, synced, then renamed, so that a half file never stands there.

    ASIDE_IN: the folder, on the same disk, of the half file; PATH's own where it is None.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(dir=aside_in or path.parent, prefix=PART)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def _sync_folder(path: Path) -> None:
    """See that the names in the folder PATH outlast a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class ImageStore:
    """A folder of photos, each under a key made of its SHA-256: `ab/cd/abcd….jpg`.

    While photos are put into it, `in_use` clears away what killed processes left half written.
    """

    root: Path
    _synced: set[Path] = field(default_factory=set, repr=False, compare=False)

    @staticmethod
    def key(sha256: str, extension: str) -> str:
        """Where bytes of SHA256 belong, below the root."""
        return f"{sha256[:2]}/{sha256[2:4]}/{sha256}.{extension}"

    def put(self, data: bytes, key: str) -> None:
        """Keep DATA under KEY, power cut or not; bytes that are there are not written again.

        Raises:
            Failure: the folder can't be written.
        """
        path = self.root / key
        with self._explained():
            if not path.exists() or path.stat().st_size != len(data):
                write_atomically(path, data, self.root)
            # Also of a file that was there: who put it there may have died before this.
            _sync_folder(path.parent)
            if path.parent not in self._synced:
                for folder in (path.parent.parent, self.root, self.root.absolute().parent):
                    _sync_folder(folder)
                self._synced.add(path.parent)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """The store while photos are put into it.

        Raises:
            Failure: the folder can't be made.
        """
        with self._explained():
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root, os.O_RDONLY)
        try:
            self._clear(handle)
            yield
            self._clear(handle)
        finally:
            os.close(handle)

    def _clear(self, handle: int) -> None:
        """Remove half files unless another process has the folder HANDLE in use."""
        # Some network disks have no locks: then half files are left.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for part in self.root.glob(f"{PART}*"):
                part.unlink()
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_SH)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise Failure(
                f"photos can't be kept in {self.root}: {error.strerror}; make room or name"
                " another folder with --images"
            ) from error

    def path(self, key: str) -> Path:
        """Where the photo of KEY stands."""
        return self.root / key


def sha256_of(data: bytes) -> str:
    """SHA-256 of DATA, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


# A photo cut off in its last rows is refused, not filled with grey.
ImageFile.LOAD_TRUNCATED_IMAGES = False
