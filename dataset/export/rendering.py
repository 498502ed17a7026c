"""Render images of a build: crop, fit into a square and encode, or copy from the last build."""

import hashlib
import io
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import PIL
import pyarrow.parquet as pq
from PIL import Image, ImageOps

from dataset.duplicates.search import PhotoSignature
from dataset.export.formats import read_format
from dataset.export.layout import MANIFEST, MASK_COLUMNS, RenderedImage
from dataset.images.io import (
    PIXELS_VERSION,
    Unreadable,
    apply_to_channels,
    letterbox,
    open_photo,
    sha256_of,
)
from dataset.images.store import ImageStore
from dataset.pose.crop import BOTH, CROP_POLICY, KEEP, Crop, add_opacity, replace_background
from dataset.selection.crops import PersonCrop
from dataset.selection.labeling import LabeledImage
from dataset.utils.engines import LOCAL_ENGINE, Engine, PhotoTask

JPEG_QUALITY = 92
# Folder of rendered images before they are written in the output format.
POOL_FOLDER = "rendered"


def center_crop(image: Image.Image, size: int) -> Image.Image:
    """Crop the largest square in the middle of an image and resize it."""
    return ImageOps.fit(image, (size, size), Image.Resampling.LANCZOS)


def stretch(image: Image.Image, size: int) -> Image.Image:
    """Resize an image to a square without keeping its aspect ratio."""
    return image.resize((size, size), Image.Resampling.LANCZOS)


RESIZES = {"letterbox": letterbox, "crop": center_crop, "stretch": stretch}


def written_signature(jpeg: bytes) -> PhotoSignature:
    """Return fingerprint and local features of a written image."""
    return PhotoSignature.read(jpeg)


def render_key(
    image: LabeledImage, crop: PersonCrop | None, size: int, resize: str, background: str = KEEP
) -> str:
    """Return a key of everything that the rendered image depends on, 24 hexadecimal digits."""
    box = crop.crop.box if crop else ()
    versions = (PIXELS_VERSION, PIL.__version__)
    # The mask depends on the image and the network only.
    is_masked = crop is not None and crop.crop.mask is not None and background != KEEP
    masked = (background, crop.key, CROP_POLICY) if crop and is_masked else ()
    parts = (image.photo.sha256, box, *masked, size, resize, JPEG_QUALITY, *versions)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:24]


def render_images(
    images: Sequence[LabeledImage],
    crops: Mapping[int, PersonCrop],
    store: ImageStore,
    pool: Path,
    size: int,
    resize: str,
    background: str = KEEP,
    engine: Engine = LOCAL_ENGINE,
) -> Iterator[tuple[RenderedImage, PhotoSignature] | str]:
    """Render images, and with the background `both` the masks of the people on them.

    Args:
        images: Images to render.
        crops: Image id -> crop.
        store: Image store.
        pool: Folder for the rendered files; files that are there already are used.
        size: Width and height of the result in pixels.
        resize: A key of `RESIZES`.
        background: What is behind the person: `keep`, `blur`, `white` or `both`.
        engine: Runs the rendering.

    Yields:
        For each image in order, the result with its signature, or the reason why it can't be
        read.
    """
    pool.mkdir(exist_ok=True)
    task = RenderTask(store, size, resize, background)
    files: deque[Path] = deque()

    def jobs() -> Iterator[RenderJob]:
        for image in images:
            crop = crops.get(image.photo.image_id)
            key = render_key(image, crop, size, resize, background)
            files.append(pool.absolute() / f"{key}.jpg")
            yield RenderJob(image.photo.store_key, crop.crop if crop else None, files[-1])

    for image, result in zip(images, engine.map(task, jobs()), strict=True):
        file = files.popleft()
        if isinstance(result, str):
            yield result
            continue
        if not file.exists():
            file.write_bytes(result.jpeg)
        mask_file = mask_sha256 = None
        if result.mask is not None:
            mask_file, mask_sha256 = mask_file_of(file), sha256_of(result.mask)
            mask_file.write_bytes(result.mask)
        crop = crops.get(image.photo.image_id)
        file_sha256 = sha256_of(result.jpeg)
        rendered = RenderedImage(image, file, file_sha256, file.stem, crop, mask_file, mask_sha256)
        yield rendered, result.signature


def mask_file_of(file: Path) -> Path:
    """Return the path of the mask of a rendered image."""
    return file.with_suffix(".png")


class RenderJob(NamedTuple):
    """An image to render: its key in the store, its crop, and the file of the result.

    The file is used if it is there already.
    """

    store_key: str
    crop: Crop | None
    file: Path


class RenderResult(NamedTuple):
    """A rendered image.

    Attributes:
        jpeg: The JPEG file.
        signature: Its signature.
        mask: With the background `both`, a PNG file of the person's opacity, 0 to 255, of the size
            of the image; None if nobody is found.
    """

    jpeg: bytes
    signature: PhotoSignature
    mask: bytes | None = None


@dataclass(frozen=True)
class RenderTask(PhotoTask[RenderJob, "RenderResult | str"]):
    """Renders images, or returns the reason why an image can't be read.

    Attributes:
        store: The image store.
        size: Width and height of the result in pixels.
        resize: A key of `RESIZES`.
        background: What is behind the person: `keep`, `blur`, `white` or `both`.
    """

    store: ImageStore
    size: int
    resize: str
    background: str

    def read(self, job: RenderJob) -> RenderResult | str:
        """Render an image. Pillow releases the interpreter lock meanwhile."""
        has_mask = self.background == BOTH and job.crop is not None and job.crop.mask is not None
        mask = None
        try:
            jpeg = job.file.read_bytes()
            if has_mask:
                mask = mask_file_of(job.file).read_bytes()
        except FileNotFoundError:
            try:
                photo = open_photo(self.store.read(job.store_key))
                image = crop_and_resize(photo, job.crop, self.size, self.resize, self.background)
            except FileNotFoundError:
                return "file missing"
            except (Unreadable, OSError) as error:
                return f"unreadable ({error})"
            jpeg = _encode(image.convert("RGB"), "JPEG", quality=JPEG_QUALITY)
            if has_mask:
                mask = _encode(image.getchannel("A"), "PNG")
        return RenderResult(jpeg, written_signature(jpeg), mask)


def crop_and_resize(
    photo: Image.Image, crop: Crop | None, size: int, resize: str, background: str
) -> Image.Image:
    """Crop an image and fit it into a square, as a build does.

    Args:
        photo: An RGB image.
        crop: The crop; None for all of the image.
        size: Width and height of the result in pixels.
        resize: A key of `RESIZES`.
        background: What is behind the person: `keep`, `blur`, `white` or `both`.

    Returns:
        An RGB image; with `both`, an RGBA image, see `replace_background`.
    """
    if crop is not None:
        photo = replace_background(photo, crop, background)
    elif background == BOTH:
        photo = add_opacity(photo)
    return apply_to_channels(photo, lambda image: RESIZES[resize](image, size))


def _encode(image: Image.Image, image_format: str, **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def reuse_images(build: Path, keys: set[str], pool: Path) -> int:
    """Copy images of an earlier build that would be rendered to equal bytes.

    Args:
        build: Folder of the earlier build; it need not exist.
        keys: Render keys of the new build.
        pool: Folder for the copies.

    Returns:
        Number of copied images.
    """
    build_format = read_format(build)
    if build_format is None:
        return 0
    names = ["path", "render_key", "file_sha256"]
    columns = set(pq.read_schema(build / MANIFEST).names)
    if not set(names) <= columns:
        return 0
    names += columns & set(MASK_COLUMNS)
    rows = pq.read_table(build / MANIFEST, columns=names).to_pylist()
    reusable = {row["path"]: row for row in rows if row["render_key"] in keys}
    count = 0
    for path, jpeg in build_format.read(build) if reusable else ():
        row = reusable.get(path)
        # An image or a mask that was changed since is rendered again.
        if row and sha256_of(jpeg) == row["file_sha256"]:
            pool.mkdir(exist_ok=True)
            file = pool / f"{row['render_key']}.jpg"
            if row.get("mask"):
                _reuse_mask(build / row["mask"], row["mask_sha256"], mask_file_of(file))
            file.write_bytes(jpeg)
            count += 1
    return count


def _reuse_mask(path: Path, sha256: str, target: Path) -> None:
    """Copy the mask of an earlier build, unless it was changed or removed."""
    try:
        mask = path.read_bytes()
    except OSError:
        return
    if sha256_of(mask) == sha256:
        target.write_bytes(mask)
