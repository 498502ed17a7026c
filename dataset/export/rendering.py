"""Photos cropped, fitted into a square and encoded, or taken from an earlier build."""

import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import PIL
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from dataset.duplicates.hashing import WORKING_PIXELS, Fingerprint, fingerprint
from dataset.export.formats import read_format
from dataset.export.layout import MANIFEST, RenderedImage
from dataset.images.io import Unreadable, letterbox, open_photo, sha256_of
from dataset.images.store import ImageStore
from dataset.pose.crop import Box
from dataset.selection.crops import PersonCrop
from dataset.selection.labeling import LabeledImage
from dataset.utils.threads import map_in_threads

JPEG_QUALITY = 92
POOL_FOLDER = "photos"


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """The largest square in the middle of IMAGE, SIZE x SIZE pixels."""
    return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)


def stretch(image: Image.Image, size: int) -> Image.Image:
    """All of IMAGE, SIZE x SIZE pixels, its shape not kept."""
    return image.resize((size, size), Image.Resampling.LANCZOS)


RESIZES = {"letterbox": letterbox, "crop": centre_crop, "stretch": stretch}


def written_fingerprint(jpeg: bytes) -> Fingerprint:
    """The fingerprint of a photo as a build holds it."""
    return fingerprint(open_photo(jpeg, WORKING_PIXELS))


def render_key(labelled: LabeledImage, posed: PersonCrop | None, size: int, resize: str) -> str:
    """What the written photo depends on, 24 hex digits."""
    box = posed.crop.box if posed else ()
    parts = (labelled.photo.sha256, box, size, resize, JPEG_QUALITY, PIL.__version__)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def render_images(
    photos: Sequence[LabeledImage],
    posed: Mapping[int, PersonCrop],
    store: ImageStore,
    pool: Path,
    size: int,
    resize: str,
) -> Iterator[tuple[RenderedImage, Fingerprint] | str]:
    """Each of PHOTOS, SIZE x SIZE, as a file in POOL; or why it can't be."""

    def make(one: LabeledImage) -> tuple[RenderedImage, Fingerprint] | str:
        crop = posed.get(one.photo.image_id)
        recipe = render_key(one, crop, size, resize)
        file = pool / f"{recipe}.jpg"
        if file.exists():
            jpeg = file.read_bytes()
        else:
            try:
                jpeg = _encode(store.read(one.photo.store_key), crop, size, resize)
            except FileNotFoundError:
                return "file missing"
            except (Unreadable, OSError) as error:
                return f"unreadable ({error})"
            file.write_bytes(jpeg)
        return RenderedImage(one, file, sha256_of(jpeg), recipe, crop), written_fingerprint(jpeg)

    pool.mkdir(exist_ok=True)
    # Pillow frees the interpreter while it decodes, scales and encodes: threads use every core.
    yield from map_in_threads(make, list(photos))


def crop_and_resize(photo: Image.Image, box: Box | None, size: int, resize: str) -> Image.Image:
    """BOX of PHOTO, in its pixels, or all of it, as a build has it: SIZE x SIZE pixels."""
    if box is not None:
        left, top, right, bottom = box
        photo = photo.crop((round(left), round(top), round(right), round(bottom)))
    return RESIZES[resize](photo, size)


def _encode(photo: bytes, posed: PersonCrop | None, size: int, resize: str) -> bytes:
    out = io.BytesIO()
    image = crop_and_resize(open_photo(photo), posed.crop.box if posed else None, size, resize)
    image.save(out, "JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def reuse_images(before: Path, wanted: set[str], pool: Path) -> int:
    """Put into POOL the photos of the build BEFORE whose recipes are WANTED; returns how many."""
    layout = read_format(before)
    if layout is None:
        return 0
    names = ["path", "recipe", "file_sha256"]
    if not set(names) <= set(pq.read_schema(before / MANIFEST).names):
        return 0
    rows = pq.read_table(before / MANIFEST, columns=names).to_pylist()
    known = {row["path"]: row for row in rows if row["recipe"] in wanted}
    taken = 0
    for path, jpeg in layout.read(before) if known else ():
        row = known.get(path)
        # A photo that somebody changed is made again.
        if row and sha256_of(jpeg) == row["file_sha256"]:
            pool.mkdir(exist_ok=True)
            (pool / f"{row['recipe']}.jpg").write_bytes(jpeg)
            taken += 1
    return taken
