"""Export a run's model: replace its resizing layer, write it for another runtime, and verify it.

The export is verified on sample photos before it is moved to its destination.
"""

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np
import tensorflow as tf
from keras import layers

from dataset.errors import BadInput, Failure
from dataset.images.io import Unreadable, find_photos, open_photo
from dataset.utils.files import create_temporary_folder
from model.export.formats import FORMATS, ExportedModel, ExportFormat
from model.inference.predictor import SavedRun, load_run


def replace_resizing(layer: layers.Resizing) -> "MatrixResizing":
    """Return an equal layer that uses operations of every runtime.

    Raises:
        Failure: The layer does not resize bilinearly, or crops to its aspect ratio.
    """
    if (
        layer.interpolation != "bilinear"
        or layer.crop_to_aspect_ratio
        or layer.data_format != "channels_last"
    ):
        raise Failure(
            f"the model's layer {layer.name!r} can't be exported: only bilinear resizing, padded or"
            " stretched, with channels last, is supported"
        )
    return MatrixResizing(layer)


class MatrixResizing(layers.Layer):
    """Resize images of shape (batch, any, any, channels) as a Resizing layer does.

    Bilinear resizing is linear in the pixels: a matrix of weights for the rows times the image
    times a matrix for the columns. The graph computes the weights from the image's height and
    width. The padding is not part of the products.

    Args:
        like: The layer to replace.
    """

    def __init__(self, like: layers.Resizing) -> None:
        super().__init__(name=like.name, dtype="float32")
        self.size = like.height, like.width
        self.fill_value = like.fill_value if like.pad_to_aspect_ratio else None
        self.antialias = like.antialias

    def call(self, images: tf.Tensor) -> tf.Tensor:
        """Return the resized images, float32 of shape (batch, height, width, channels)."""
        (rows, columns), channels = self.size, images.shape[-1]
        shape = tf.shape(images)
        batch, height, width = shape[0], shape[1], shape[2]
        row_weights = self._weights(height, rows, width * rows // columns)
        column_weights = self._weights(width, columns, height * columns // rows)
        lines = tf.reshape(tf.cast(images, "float32"), [batch, height, width * channels])
        lines = tf.reshape(tf.matmul(row_weights, lines), [batch * rows, width, channels])
        resized = tf.matmul(column_weights, lines)
        resized = tf.reshape(resized, [batch, rows, columns, channels])
        if self.fill_value is None:
            return resized
        # The rest of each pixel's weight is for the padding.
        coverage = tf.reduce_sum(row_weights, 1)[:, None] * tf.reduce_sum(column_weights, 1)
        return resized + self.fill_value * (1.0 - coverage)[:, :, None]

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape of the output for the shape of an input."""
        return (shape[0], *self.size, shape[-1])

    def _weights(self, side: tf.Tensor, target: int, padded_side: tf.Tensor) -> tf.Tensor:
        """Return the weights of the input pixels for each output pixel along one axis.

        The kernel is the triangle of `tf.image.resize`, which is widened when the image shrinks.
        The weights of an output pixel sum to 1 over image and padding.

        Args:
            side: Input pixels.
            target: Output pixels.
            padded_side: Input pixels including padding, if the layer pads.

        Returns:
            Float32 tensor of shape (target, side).
        """
        before = 0 if self.fill_value is None else tf.maximum(padded_side - side, 0) // 2
        # Keras pads both ends equally: of an odd number of missing pixels, one is not added.
        padded = side + 2 * before
        step = 1.0 / (float(target) / tf.cast(padded, "float32"))
        radius = tf.maximum(step, 1.0) if self.antialias else 1.0
        centres = (tf.range(target, dtype="float32") + 0.5) * step
        positions = tf.cast(tf.range(padded), "float32") + 0.5
        distances = tf.abs(positions - centres[:, None])
        weights = tf.maximum(1.0 - distances * (1.0 / radius), 0.0)
        weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
        return weights[:, before : before + side]


# More photos take longer and do not find more errors.
MAX_PHOTOS = 12
# Height and width of crops and of drawn photos: odd, wide, high, small.
SHAPES = ((91, 133), (40, 1201), (1111, 37), (342, 342), (3, 2))


@dataclass(frozen=True)
class PhotoSample:
    """Batches of photos.

    Attributes:
        batches: Uint8 arrays of shape (n, height, width, channels).
        description: What the photos are.
    """

    batches: Sequence[np.ndarray]
    description: str


def load_sample(
    data: Path | None, test_paths: Sequence[str], folder: Path | None, channels: int = 3
) -> PhotoSample:
    """Load photos, crops of odd shapes of the first one, and a batch of two.

    A fourth channel, the opacity, is a gradient.

    Args:
        data: The data folder of the run.
        test_paths: Paths of its test photos. Without readable test photos, photos are drawn.
        folder: A folder of other photos to use.
        channels: Channels of the photos, 3 or 4.

    Raises:
        BadInput: The folder has no readable photo.
    """
    sample = _load_sample(data, test_paths, folder)
    if channels == 3:
        return sample
    return PhotoSample([_add_opacity(batch) for batch in sample.batches], sample.description)


def _add_opacity(photos: np.ndarray) -> np.ndarray:
    opacity = np.linspace(0, 255, photos.shape[2]).astype(np.uint8)[:, None]
    return np.concatenate([photos, np.broadcast_to(opacity, (*photos.shape[:3], 1))], axis=3)


def _load_sample(data: Path | None, test_paths: Sequence[str], folder: Path | None) -> PhotoSample:
    if folder:
        found = find_photos(folder.rglob("*"))
        if found.skipped:
            click.echo(f"--photos {folder}: {found.describe_skipped()}", err=True)
        photos = _read_photos(found.paths)
        if not photos:
            raise BadInput(f"--photos {folder} has no readable photos; choose another folder")
        return _sample(photos, f"photos of {folder}")
    photos = _read_photos([data / path for path in test_paths]) if data else []
    if photos:
        return _sample(photos, f"test photos of {data}")
    reason = f"are not in {data}" if data else "are unknown"
    return PhotoSample(
        [_draw_photo(height, width)[None] for height, width in SHAPES],
        f"{len(SHAPES)} drawn images, because the run's test photos {reason} (use --photos)",
    )


def _sample(photos: Sequence[np.ndarray], source: str) -> PhotoSample:
    first = photos[0]
    crops = [_crop(first, height, width)[None] for height, width in SHAPES]
    pair = np.stack([first, first[:, ::-1]])
    description = f"{len(photos)} {source}, {len(crops)} crops of odd shapes and a batch of two"
    return PhotoSample([*(photo[None] for photo in photos), *crops, pair], description)


def _read_photos(paths: Sequence[Path]) -> list[np.ndarray]:
    """Read MAX_PHOTOS photos at most, evenly spaced so that there are photos of all labels."""
    photos = []
    for path in paths[:: max(1, -(-len(paths) // MAX_PHOTOS))]:
        with contextlib.suppress(Unreadable, OSError):
            photos.append(np.asarray(open_photo(path)))
    return photos


def _crop(photo: np.ndarray, height: int, width: int) -> np.ndarray:
    """Crop a photo, which is repeated where it is too small."""
    repeats = (-(-height // photo.shape[0]), -(-width // photo.shape[1]), 1)
    return np.tile(photo, repeats)[:height, :width]


def _draw_photo(height: int, width: int) -> np.ndarray:
    """Draw a colour gradient with noise."""
    rng = np.random.default_rng(height * width)
    gradient = np.linspace(0, 255, height)[:, None, None] + np.linspace(0, 255, width)[:, None]
    noise = rng.integers(-40, 40, (height, width, 3))
    return np.clip(gradient * (0.3, 0.5, 0.7) + noise, 0, 255).astype(np.uint8)


# How much a probability may differ from the Keras model's.
MAX_DIFFERENCE = 1e-3


@dataclass(frozen=True)
class ExportOptions:
    """Options of `export-model`.

    Attributes:
        run: The run directory.
        format: A key of FORMATS.
        out: The file or folder to write; None: in the run directory.
        photos: Folder of photos to verify the export on; None: test photos of the run.
    """

    run: Path
    format: str
    out: Path | None = None
    photos: Path | None = None


@dataclass(frozen=True)
class ExportReport:
    """What was exported, and how it was verified.

    Attributes:
        path: The file or folder.
        bytes: Its size.
        seconds: Duration of the export.
        runtime: Name and version of the runtime that it was verified in.
        sample: Description of the photos.
        verification_seconds: Duration of the verification.
        difference: Largest difference of a probability from the Keras model's.
    """

    path: Path
    bytes: int
    seconds: float
    runtime: str
    sample: str
    verification_seconds: float
    difference: float


def export_model(options: ExportOptions) -> ExportReport:
    """Export a model, and keep the export if its probabilities equal the Keras model's.

    Raises:
        BadInput: There is no run, there are no photos in `--photos`, or `--out` exists.
        Failure: Packages are missing, the model can't be exported or written, or the probabilities
            differ.
    """
    export_format = FORMATS[options.format]
    export_format.require_packages(options.format)
    out = options.out or options.run / export_format.default_name
    check_output(out, export_format)
    run = load_run(options.run)
    channels = int(run.network.input.shape[-1])
    sample = load_sample(run.data, run.test_paths, options.photos, channels)
    start = time.perf_counter()
    with _temporary_output(out) as path:
        export_format.write(make_portable(run.network), run.labels, path)
        written = time.perf_counter()
        difference = largest_difference(run, sample, export_format.load(path))
        if not difference <= MAX_DIFFERENCE:
            raise Failure(
                f"the probabilities of the {export_format.runtime} model differ by {difference:.2g}"
                f" from the Keras model's, more than {MAX_DIFFERENCE:g}, on {sample.description};"
                " nothing was written"
            )
        size = _sync(path)
        path.rename(out)
    return ExportReport(
        out,
        size,
        written - start,
        export_format.runtime_version,
        sample.description,
        time.perf_counter() - written,
        difference,
    )


def check_output(out: Path, export_format: ExportFormat) -> None:
    """Raise BadInput if the output exists or has the suffix of another format."""
    suffix = Path(export_format.default_name).suffix
    if out.suffix != suffix and suffix:
        raise BadInput(f"--out {out}: a file for {export_format.runtime} ends in {suffix}")
    if out.exists():
        raise BadInput(f"{out} exists; remove it, or name another with --out")


def make_portable(network: keras.Model) -> keras.Model:
    """Return a network with shared weights whose resizing uses operations of every runtime."""

    def clone(operation: Any) -> Any:
        return replace_resizing(operation) if isinstance(operation, layers.Resizing) else operation

    return keras.models.clone_model(network, clone_function=clone, recursive=True)


def largest_difference(run: SavedRun, sample: PhotoSample, exported: ExportedModel) -> float:
    """Return the largest difference of a probability from the Keras model's.

    Args:
        run: The run with the Keras model.
        sample: The photos.
        exported: The exported model.

    Raises:
        Failure: The exported model has other labels.
    """
    if exported.labels != run.labels:
        raise Failure(f"the labels of the export are {exported.labels}, not {run.labels}")
    differences = [
        np.abs(exported.predict(batch) - np.asarray(run.network(batch, training=False))).max()
        for batch in sample.batches
    ]
    # Unlike Python's max, NumPy's propagates NaN.
    return float(np.max(differences))


@contextmanager
def _temporary_output(out: Path) -> Iterator[Path]:
    """Yield a path in a temporary folder beside the output, which is removed at the end."""
    folder = create_temporary_folder(out)
    try:
        yield folder / out.name
    except OSError as error:
        raise Failure(
            f"{out} can't be written: {error.strerror}; free disk space, or name another --out"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> int:
    """Sync a file or a folder to disk; return its size in bytes."""
    files = [file for file in (path, *path.rglob("*")) if file.is_file()]
    for file in files:
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    return sum(file.stat().st_size for file in files)
