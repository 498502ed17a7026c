"""The formats of exported models: how each is written, and loaded in its runtime."""

import contextlib
import importlib
import json
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from dataset.errors import Failure
from dataset.utils.files import write_json
from dataset.utils.keras_backend import silence_stderr

LABELS_FILE = "labels.json"
# The newest ONNX operator set that tf2onnx supports.
OPSET = 18

PredictFunction = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class ExportedModel:
    """An exported model in its runtime.

    Attributes:
        predict: Uint8 photos (n, height, width, channels) -> probabilities (n, classes).
        labels: The labels that are stored in the model.
    """

    predict: PredictFunction
    labels: list[str]


@dataclass(frozen=True)
class ExportFormat:
    """A format of exported models.

    Attributes:
        runtime: Name of the runtime.
        default_name: Default name of the file or folder.
        packages: Packages that are needed, the runtime first.
        write: Writes a network with its labels to a path.
        load: Loads an exported model as a user would.
    """

    runtime: str
    default_name: str
    packages: tuple[str, ...]
    write: Callable[[keras.Model, Sequence[str], Path], None]
    load: Callable[[Path], ExportedModel]

    def require_packages(self, name: str) -> None:
        """Raise Failure if a package is missing.

        Args:
            name: The format's key in FORMATS, for the message.
        """
        missing = [package for package in self.packages if not _is_installed(package)]
        if missing:
            raise Failure(f"--format {name} needs: pip install {' '.join(missing)}")

    @property
    def runtime_version(self) -> str:
        """Name and version of the runtime."""
        return f"{self.runtime} {version(self.packages[0] if self.packages else 'tensorflow')}"


def _is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def write_saved_model(network: keras.Model, labels: Sequence[str], path: Path) -> None:
    """Write a SavedModel: `serve` returns probabilities of photos, `labels` the labels."""
    module = tf.Module()
    # Keras' ExportArchive writes an equal model, in three times the time.
    module.weights = [variable.value for variable in network.variables]
    module.serve = _serving_function(network)
    module.labels = tf.function(lambda: {"labels": tf.constant(list(labels))}, input_signature=[])
    signatures = {"serving_default": module.serve, "labels": module.labels}
    tf.saved_model.save(module, str(path), signatures=signatures)


def _serving_function(network: keras.Model) -> Any:
    """Return a network as a TensorFlow function with named input and output."""
    return tf.function(
        lambda photos: {"probabilities": network(photos, training=False)},
        input_signature=[_input_spec(network)],
    )


def _input_spec(network: keras.Model) -> tf.TensorSpec:
    """Return what a network takes: photos of one size per batch."""
    return tf.TensorSpec(network.input.shape, tf.uint8, name="photos")


def _load_saved_model(path: Path) -> ExportedModel:
    loaded = tf.saved_model.load(str(path))
    names = [name.decode() for name in loaded.labels()["labels"].numpy()]
    return ExportedModel(
        lambda photos: loaded.serve(tf.constant(photos))["probabilities"].numpy(), names
    )


def write_litert(network: keras.Model, labels: Sequence[str], path: Path) -> None:
    """Write a LiteRT file, with the labels in the associated file labels.json."""
    with tempfile.TemporaryDirectory() as folder:
        write_saved_model(network, labels, Path(folder))
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        path.write_bytes(converter.convert())
        # TFLite Metadata: associated files are a ZIP archive after the model.
        write_json({"labels": list(labels)}, Path(folder) / LABELS_FILE)
        with zipfile.ZipFile(path, "a") as archive:
            archive.write(Path(folder) / LABELS_FILE, LABELS_FILE)


def _load_litert(path: Path) -> ExportedModel:
    litert = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(str(path))
    # It logs which delegate it uses.
    with silence_stderr():
        interpreter.allocate_tensors()
    run = interpreter.get_signature_runner()
    names = json.loads(zipfile.ZipFile(path).read(LABELS_FILE))["labels"]
    return ExportedModel(lambda photos: run(photos=photos)["probabilities"], names)


def write_onnx(network: keras.Model, labels: Sequence[str], path: Path) -> None:
    """Write an ONNX file, with the labels in its metadata as a JSON list."""
    onnx = importlib.import_module("onnx")
    with _import_tf2onnx() as convert:
        model, _ = convert.from_function(
            _serving_function(network), [_input_spec(network)], opset=OPSET
        )
    for value in (model.graph.input[0], model.graph.output[0]):
        sizes = value.type.tensor_type.shape.dim[:-1]
        for size, name in zip(sizes, ("batch", "height", "width"), strict=False):
            size.dim_param = name
    onnx.helper.set_model_props(model, {"labels": json.dumps(list(labels), ensure_ascii=False)})
    onnx.checker.check_model(model)
    onnx.save(model, path)


@contextlib.contextmanager
def _import_tf2onnx() -> Iterator[Any]:
    """Yield tf2onnx.convert, without copies of all weights per pass and without warnings."""
    key = "TF2ONNX_CATCH_ERRORS"
    before = os.environ.get(key)
    os.environ[key] = "FALSE"
    convert = importlib.import_module("tf2onnx.convert")
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    try:
        yield convert
    finally:
        os.environ.pop(key) if before is None else os.environ.update({key: before})


def _load_onnx(path: Path) -> ExportedModel:
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
    return ExportedModel(
        lambda photos: session.run(["probabilities"], {"photos": photos})[0], names
    )


FORMATS = {
    "saved_model": ExportFormat(
        "TensorFlow", "saved_model", (), write_saved_model, _load_saved_model
    ),
    "onnx": ExportFormat(
        "ONNX Runtime",
        "model.onnx",
        ("onnxruntime", "onnx", "tf2onnx"),
        write_onnx,
        _load_onnx,
    ),
    "litert": ExportFormat(
        "LiteRT", "model.tflite", ("ai-edge-litert",), write_litert, _load_litert
    ),
}
