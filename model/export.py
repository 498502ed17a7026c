"""An export on one page: the run's model in portable operations, written, run, put in place."""

import csv
import json
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

from dataset.errors import BadInput, Failure, first_line
from dataset.export import aside_of, prepare
from model.export_formats import FORMATS, Format, Opened
from model.export_photos import Sample, sample_of
from model.resizing import as_products

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
class Run:
    """A run's model with its labels, the data folder it saw, and the test photos below that."""

    network: keras.Model
    labels: list[str]
    data: Path | None
    tested: list[str]


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


def read_run(folder: Path) -> Run:
    """The run in FOLDER.

    Raises:
        BadInput: it is no run folder.
        Failure: its model can't be read, or is no classifier of raw photos.
    """
    labels = _json(folder / "labels.json").get("labels")
    if not labels or not (folder / "model.keras").is_file():
        raise BadInput(f"{folder} is no run of train-model: model.keras or labels.json is missing")
    try:
        network = keras.saving.load_model(folder / "model.keras", compile=False)
    # Keras and h5py raise these for a file of another kind, or cut off.
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(f"{folder}/model.keras can't be read: {first_line(error)}") from error
    _refuse_other(network, labels, folder)
    _work_in_float32(network)
    data = _json(folder / "run.json").get("options", {}).get("data")
    return Run(network, labels, Path(data) if data else None, _tested(folder / "predictions.csv"))


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise Failure(f"{path} is no JSON: {first_line(error)}") from error
    return found if isinstance(found, dict) else {}


def _tested(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row["path"] for row in csv.DictReader(file) if row.get("path")]


def _refuse_other(network: keras.Model, labels: list[str], folder: Path) -> None:
    shapes = (network.input_shape, network.output_shape)
    if shapes != ((None, None, None, 3), (None, len(labels))) or network.input.dtype != "uint8":
        raise Failure(
            f"{folder}/model.keras takes {network.input.dtype} {shapes[0]} and gives {shapes[1]}:"
            f" no classifier of raw photos into the {len(labels)} labels of labels.json; train it"
            " again with train-model"
        )


def _work_in_float32(network: keras.Model) -> None:
    """Let layers that were trained in half precision work in float32, as their weights are."""
    for layer in _leaves(network):
        if layer.compute_dtype in ("bfloat16", "float16"):
            layer.dtype_policy = "float32"


def _leaves(network: keras.Model) -> Iterator[layers.Layer]:
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer


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
    folder = prepare(out)
    try:
        yield folder / out.name
    except OSError as error:
        raise Failure(
            f"{out} can't be written: {error.strerror}; make room, or name --out"
        ) from error
    finally:
        shutil.rmtree(aside_of(out)[0], ignore_errors=True)


def _sync(path: Path) -> int:
    """Bring PATH, a file or a folder, onto the disk; returns its bytes."""
    files = [file for file in (path, *path.rglob("*")) if file.is_file()]
    for file in files:
        with file.open("rb") as opened:
            os.fsync(opened.fileno())
    return sum(file.stat().st_size for file in files)
