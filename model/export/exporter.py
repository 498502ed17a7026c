"""An export on one page: the run's model in portable operations, written, run, put in place."""

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
from model.export.formats import FORMATS, Format, Opened
from model.export.resizing import as_products
from model.export.samples import Sample, sample_of
from model.inference.saved_run import Run, read_run

# How far a share may be from the Keras model's.
LIMIT = 1e-3


@dataclass(frozen=True)
class ExportOptions:
    """What `export-model` was asked for. `out` None: in the run's folder."""

    run: Path
    format: str
    out: Path | None = None
    photos: Path | None = None


@dataclass(frozen=True)
class Exported:
    """What was written where, and how it was checked. `difference`: the largest of shares."""

    path: Path
    bytes: int
    seconds: float
    checked_in: str
    checked_on: str
    check_seconds: float
    difference: float


def export_model(options: ExportOptions) -> Exported:
    """Export as OPTIONS say, run the export on photos, and keep it if it says what Keras says.

    Raises:
        BadInput: no run there, no photos in --photos, or --out is taken.
        Failure: packages are missing, the model can't be exported or written, or it differs.
    """
    form = FORMATS[options.format]
    form.require(options.format)
    out = options.out or options.run / form.default_name
    refuse_taken(out, form)
    run = read_run(options.run)
    sample = sample_of(run.data, run.tested, options.photos)
    began = time.perf_counter()
    with _aside(out) as part:
        form.write(portable(run.network), run.labels, part)
        written = time.perf_counter()
        difference = largest_difference(run, sample, form.load(part))
        if not difference <= LIMIT:
            raise Failure(
                f"the {form.runtime} model's shares differ by {difference:.2g} from the Keras"
                f" model's, more than {LIMIT:g}, on {sample.said}; nothing was written"
            )
        size = _sync(part)
        part.rename(out)
    checked = time.perf_counter() - written
    said = (form.versioned, sample.said)
    return Exported(out, size, written - began, *said, checked, difference)


def refuse_taken(out: Path, form: Format) -> None:
    """Raise BadInput when OUT is there, or its name says another kind of file than FORM."""
    suffix = Path(form.default_name).suffix
    if out.suffix != suffix and suffix:
        raise BadInput(f"--out {out}: a file for {form.runtime} ends in {suffix}")
    if out.exists():
        raise BadInput(f"{out} is there already; remove it, or name another with --out")


def portable(network: keras.Model) -> keras.Model:
    """NETWORK, its weights shared, with resizing in operations that every runtime has."""

    def swap(operation: Any) -> Any:
        return as_products(operation) if isinstance(operation, layers.Resizing) else operation

    return keras.models.clone_model(network, clone_function=swap, recursive=True)


def largest_difference(run: Run, sample: Sample, opened: Opened) -> float:
    """How far a share of OPENED is from that of RUN's Keras model, at most, on SAMPLE.

    Raises:
        Failure: OPENED has other labels than RUN.
    """
    if opened.labels != run.labels:
        raise Failure(f"the export's labels are {opened.labels}, the run's {run.labels}")
    differences = [
        np.abs(opened.shares(batch) - np.asarray(run.network(batch, training=False))).max()
        for batch in sample.batches
    ]
    # Unlike Python's max, NumPy's doesn't lose what is not a number.
    return float(np.max(differences))


@contextmanager
def _aside(out: Path) -> Iterator[Path]:
    """Where OUT is written until it is right, in a folder beside it that goes in any case."""
    folder = create_temporary_folder(out)
    try:
        yield folder / out.name
    except OSError as error:
        raise Failure(
            f"{out} can't be written: {error.strerror}; make room, or name --out"
        ) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> int:
    """Bring PATH, a file or a folder, onto the disk; returns its bytes."""
    files = [file for file in (path, *path.rglob("*")) if file.is_file()]
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    return sum(file.stat().st_size for file in files)
