"""Preprocess photos for a run's model: crop and resize them as the photos of its training."""

import os
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dataset.errors import DownloadFailed, first_line
from dataset.export.rendering import crop_and_resize
from dataset.images.io import Unreadable, UnsupportedHeic, open_photo, sha256_of
from dataset.images.quality import measure
from dataset.images.store import ImageStore
from dataset.pose.crop import Crop, choose_crop
from dataset.pose.models import PoseModel
from dataset.selection.candidates import Candidate, QualityGates, load_quality_gates
from dataset.selection.crops import PoseOptions
from model.data.loading import letterbox
from model.inference.output_cache import PhotoOutputs

CHUNK_SIZE = 64
# What decoders raise for malformed files. One photo of a feed must not end a check.
DECODER_ERRORS = (
    *(Unreadable, OSError, ValueError, ArithmeticError, LookupError, TypeError, AttributeError),
    *(RuntimeError, MemoryError, SyntaxError, EOFError, struct.error),
)


@dataclass(frozen=True)
class PhotoInput:
    """A photo to preprocess.

    Photos of an image store are sent to other processes as references, others with their bytes.

    Attributes:
        read: Returns the bytes of the file.
        crop: The crop, if it is known already.
    """

    read: Callable[[], bytes]
    crop: Crop | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the reference to the photo, or its bytes."""
        read = self.read
        owner = getattr(getattr(read, "func", None), "__self__", None)
        if not isinstance(owner, ImageStore):
            try:
                read = partial(bytes, self.read())
            except (OSError, ValueError) as error:
                read = partial(_raise, error)
        return PhotoInput, (read, self.crop)


def _raise(error: OSError | ValueError) -> bytes:
    raise error


@dataclass(frozen=True)
class PreparedPhoto:
    """A preprocessed photo.

    Attributes:
        sha256: SHA-256 of the file.
        pixels: Uint8 array of shape (size, size, channels); None if there is a problem. The fourth
            channel is the person's opacity, if the network reads one.
        no_garment_reason: Why the photo can't show a garment (it is blank, for example), or empty.
        problem: Why the photo can't be read, or empty.
        is_repeated: The same photo and crop came before: it is not prepared again.
        outputs: The outputs of the network, if it has predicted the photo already.
    """

    sha256: str = ""
    pixels: np.ndarray | None = None
    no_garment_reason: str = ""
    problem: str = ""
    is_repeated: bool = False
    outputs: PhotoOutputs | None = None


class OpenedPhoto(NamedTuple):
    """A photo that was read.

    Attributes:
        photo: The photo.
        prepared: The result, which may lack its pixels.
        image: The image to crop and to resize, if there is one.
    """

    photo: PhotoInput
    prepared: PreparedPhoto
    image: Image.Image | None = None


class RecentPhotos:
    """The last MAX_PHOTOS distinct photos, with their crops."""

    MAX_PHOTOS = 100_000

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, Crop | None], None] = OrderedDict()

    def add(self, sha256: str, photo: PhotoInput) -> bool:
        """Add a photo.

        Args:
            sha256: SHA-256 of its file.
            photo: Its crop.

        Returns:
            Whether it is a new one.
        """
        key = (sha256, photo.crop)
        if key in self._known:
            self._known.move_to_end(key)
            return False
        self._known[key] = None
        if len(self._known) > self.MAX_PHOTOS:
            self._known.popitem(last=False)
        return True


def describe_read_error(error: OSError | ValueError) -> str:
    """Return why the bytes of a photo can't be read, for users."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, DownloadFailed):
        return f"not downloaded: {error}"
    return f"can't be read: {getattr(error, 'strerror', None) or error}"


@dataclass
class Preprocessor:
    """Crops and resizes photos as the photos of a training.

    Attributes:
        crop: How photos are cropped.
        build_options: Options of the build of the training photos; empty for plain folders.
        size: Width and height of the result in pixels.
        gates: Thresholds below which a photo can't show a garment.
    """

    crop: PoseOptions
    build_options: dict[str, Any]
    size: int
    gates: QualityGates = field(default_factory=load_quality_gates)

    def prepare(
        self, photos: Iterable[PhotoInput], recent: RecentPhotos | None = None
    ) -> Iterator[list[PreparedPhoto]]:
        """Preprocess photos, CHUNK_SIZE at a time; the next chunk is read meanwhile.

        Args:
            photos: The photos.
            recent: Photos that are not prepared again.
        """
        remaining = iter(photos)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            chunk = list(islice(remaining, CHUNK_SIZE))
            pending = [pool.submit(_read, photo) for photo in chunk]
            while chunk:
                files = [future.result() for future in pending]
                next_chunk = list(islice(remaining, CHUNK_SIZE))
                pending = [pool.submit(_read, photo) for photo in next_chunk]
                if recent is not None:
                    files = [
                        _mark_repeated(photo, *file, recent)
                        for photo, file in zip(chunk, files, strict=True)
                    ]
                yield self._prepare_chunk(chunk, files, pool)
                chunk = next_chunk

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the attributes, without the network that finds people."""
        return {attribute.name: getattr(self, attribute.name) for attribute in fields(self)}

    def open(self, photo: PhotoInput) -> "OpenedPhoto":
        """Read and open a photo; without crops of people, it is prepared already."""
        file = _read(photo)
        if self.crop.is_enabled:
            return OpenedPhoto(photo, *self._open(file))
        return OpenedPhoto(photo, self._open_and_resize(file, photo.crop))

    def prepare_opened(
        self, opened: Sequence["OpenedPhoto"], pool: ThreadPoolExecutor
    ) -> list[PreparedPhoto]:
        """Preprocess opened photos.

        Args:
            opened: The photos.
            pool: Threads that crop and resize.
        """
        if not self.crop.is_enabled:
            return [photo.prepared for photo in opened]
        crops = self._crops([one.photo for one in opened], [one.image for one in opened])
        return list(pool.map(self._resize, [(one.prepared, one.image) for one in opened], crops))

    def _open(
        self, file: tuple[PreparedPhoto, bytes | None]
    ) -> tuple[PreparedPhoto, Image.Image | None]:
        prepared, data = file
        if data is None:
            return prepared, None
        try:
            image = open_photo(data)
            reason = self._no_garment_reason(image, len(data))
        except UnsupportedHeic as error:
            return PreparedPhoto(prepared.sha256, problem=str(error)), None
        except DECODER_ERRORS as error:
            problem = f"broken: {first_line(error)}"
            return PreparedPhoto(prepared.sha256, problem=problem), None
        return PreparedPhoto(prepared.sha256, no_garment_reason=reason), image

    def _no_garment_reason(self, image: Image.Image, size: int) -> str:
        """Return the quality gate that rejects an image, as in a build, or an empty text."""
        quality = measure(image)
        candidate = Candidate(0, "", "", 0, image.width, image.height, size, quality=quality)
        reason = self.gates.exclusion_reason(candidate)
        # A blurred photo may still show a garment; the model can be unsure of it.
        return ": ".join(reason) if reason and reason[0] != "blurred" else ""

    def _prepare_chunk(
        self,
        chunk: Sequence[PhotoInput],
        files: Sequence[tuple[PreparedPhoto, bytes | None]],
        pool: ThreadPoolExecutor,
    ) -> list[PreparedPhoto]:
        if not self.crop.is_enabled:
            # One decoded photo per thread is in memory.
            return list(pool.map(self._open_and_resize, files, [photo.crop for photo in chunk]))
        opened = list(pool.map(self._open, files))
        crops = self._crops(chunk, [image for _, image in opened])
        return list(pool.map(self._resize, opened, crops))

    def _open_and_resize(
        self, file: tuple[PreparedPhoto, bytes | None], crop: Crop | None
    ) -> PreparedPhoto:
        return self._resize(self._open(file), crop)

    def _resize(
        self, opened: tuple[PreparedPhoto, Image.Image | None], crop: Crop | None
    ) -> PreparedPhoto:
        """Crop, resize as the build did, and letterbox."""
        prepared, image = opened
        if image is None:
            return prepared
        if self.build_options:
            resize = self.build_options.get("resize", "letterbox")
            size = int(self.build_options.get("size", self.size))
            image = crop_and_resize(image, crop, size, resize, self.crop.background)
        return replace(prepared, pixels=letterbox(image, self.size))

    def _crops(
        self, chunk: Sequence[PhotoInput], images: Sequence[Image.Image | None]
    ) -> list[Crop | None]:
        crops = [photo.crop for photo in chunk]
        indices = [i for i, image in enumerate(images) if image is not None and crops[i] is None]
        if not indices:
            return crops
        estimates, model = self._estimator.find([images[index] for index in indices]), self._model
        for index, estimate in zip(indices, estimates, strict=True):
            image = images[index]
            assert image is not None
            names, gate, min_score = model.joints.names, model.gate, model.min_score
            crops[index] = choose_crop(
                estimate.points, names, image.size, gate, min_score, estimate.mask
            )
        return crops

    @cached_property
    def _model(self) -> PoseModel:
        return self.crop.find_model()

    @cached_property
    def _estimator(self) -> Any:
        from dataset.pose.checkpoints import load_estimator

        return load_estimator(self._model)


def _read(photo: PhotoInput) -> tuple[PreparedPhoto, bytes | None]:
    try:
        data = photo.read()
    except (OSError, ValueError) as error:
        return PreparedPhoto(problem=describe_read_error(error)), None
    return PreparedPhoto(sha256_of(data)), data


def _mark_repeated(
    photo: PhotoInput, prepared: PreparedPhoto, data: bytes | None, recent: RecentPhotos
) -> tuple[PreparedPhoto, bytes | None]:
    if data is None or recent.add(prepared.sha256, photo):
        return prepared, data
    return replace(prepared, is_repeated=True), None
