"""Export a run's model: write it for another runtime, verify it on photos, and put it in place."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers

from dataset.errors import BadInput, Failure
from dataset.utils.files import create_temporary_folder
from model.export.formats import FORMATS, ExportedModel, ExportFormat
from model.export.resizing import replace_resizing
from model.export.samples import PhotoSample, load_sample
from model.inference.saved_run import SavedRun, load_run

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
    sample = load_sample(run.data, run.test_paths, options.photos)
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
