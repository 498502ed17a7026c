"""The formats that a trained model is exported to: how each is written, and run by its runtime."""

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

# Photos as they are read, of one size a batch.
PHOTOS = tf.TensorSpec((None, None, None, 3), tf.uint8, name="photos")
LABELS_FILE = "labels.json"
# The newest set of ONNX operators that tf2onnx writes.
OPSET = 18

Shares = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Opened:
    """An exported model as its runtime sees it: (n, height, width, 3) uint8 -> (n, labels)."""

    shares: Shares
    labels: list[str]


@dataclass(frozen=True)
class Format:
    """A format: its runtime's name, how a file of it is called, and the packages that it needs.

    `write(network, labels, path)`; `load(path)` reads it as anybody would.
    """

    runtime: str
    default_name: str
    packages: tuple[str, ...]
    write: Callable[[keras.Model, Sequence[str], Path], None]
    load: Callable[[Path], Opened]

    def require(self, name: str) -> None:
        """Raise Failure, saying what to install, when a package of the format NAME is missing."""
        missing = [package for package in self.packages if not _installed(package)]
        if missing:
            raise Failure(f"--format {name} needs: pip install {' '.join(missing)}")

    @property
    def versioned(self) -> str:
        """The runtime with its version."""
        return f"{self.runtime} {version(self.packages[0] if self.packages else 'tensorflow')}"


def _installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def write_saved_model(network: keras.Model, labels: Sequence[str], path: Path) -> None:
    """NETWORK as a SavedModel: `serve` gives shares of photos, `labels` their names."""
    module = tf.Module()
    # Keras' own ExportArchive writes the same, and takes three times as long.
    module.weights = [variable.value for variable in network.variables]
    module.serve = _serving(network)
    module.labels = tf.function(lambda: {"labels": tf.constant(list(labels))}, input_signature=[])
    signatures = {"serving_default": module.serve, "labels": module.labels}
    tf.saved_model.save(module, str(path), signatures=signatures)


def _serving(network: keras.Model) -> Any:
    """NETWORK as a function of TensorFlow's, with a name for what comes and what goes."""
    return tf.function(
        lambda photos: {"shares": network(photos, training=False)}, input_signature=[PHOTOS]
    )


def _load_saved_model(path: Path) -> Opened:
    loaded = tf.saved_model.load(str(path))
    names = [name.decode() for name in loaded.labels()["labels"].numpy()]
    return Opened(lambda photos: loaded.serve(tf.constant(photos))["shares"].numpy(), names)


def write_litert(network: keras.Model, labels: Sequence[str], path: Path) -> None:
    """NETWORK as a LiteRT file, LABELS in it as the associated file labels.json."""
    with tempfile.TemporaryDirectory() as folder:
        write_saved_model(network, labels, Path(folder))
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        path.write_bytes(converter.convert())
        # TFLite Metadata: associated files are a ZIP archive behind the model.
        write_json({"labels": list(labels)}, Path(folder) / LABELS_FILE)
        with zipfile.ZipFile(path, "a") as archive:
            archive.write(Path(folder) / LABELS_FILE, LABELS_FILE)


def _load_litert(path: Path) -> Opened:
    litert = importlib.import_module("ai_edge_litert.interpreter")
    interpreter = litert.Interpreter(str(path))
    # It says on its own which delegate it chose.
    with silence_stderr():
        interpreter.allocate_tensors()
    run = interpreter.get_signature_runner()
    names = json.loads(zipfile.ZipFile(path).read(LABELS_FILE))["labels"]
    return Opened(lambda photos: run(photos=photos)["shares"], names)


def write_onnx(network: keras.Model, labels: Sequence[str], path: Path) -> None:
    """NETWORK as an ONNX file, LABELS in its metadata as a JSON list."""
    onnx = importlib.import_module("onnx")
    with _brisk_tf2onnx() as convert:
        model, _ = convert.from_function(_serving(network), [PHOTOS], opset=OPSET)
    for value in (model.graph.input[0], model.graph.output[0]):
        sizes = value.type.tensor_type.shape.dim[:-1]
        for size, name in zip(sizes, ("batch", "height", "width"), strict=False):
            size.dim_param = name
    onnx.helper.set_model_props(model, {"labels": json.dumps(list(labels), ensure_ascii=False)})
    onnx.checker.check_model(model)
    onnx.save(model, path)


@contextlib.contextmanager
def _brisk_tf2onnx() -> Iterator[Any]:
    """The converter of tf2onnx; it copies no weights before each step, and says only errors."""
    key = "TF2ONNX_CATCH_ERRORS"
    before = os.environ.get(key)
    os.environ[key] = "FALSE"
    convert = importlib.import_module("tf2onnx.convert")
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    try:
        yield convert
    finally:
        os.environ.pop(key) if before is None else os.environ.update({key: before})


def _load_onnx(path: Path) -> Opened:
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = json.loads(session.get_modelmeta().custom_metadata_map["labels"])
    return Opened(lambda photos: session.run(["shares"], {"photos": photos})[0], names)


FORMATS = {
    "saved_model": Format("TensorFlow", "saved_model", (), write_saved_model, _load_saved_model),
    "onnx": Format(
        "ONNX Runtime",
        "model.onnx",
        ("onnxruntime", "onnx", "tf2onnx"),
        write_onnx,
        _load_onnx,
    ),
    "litert": Format("LiteRT", "model.tflite", ("ai-edge-litert",), write_litert, _load_litert),
}
