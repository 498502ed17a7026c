"""Load runs, and predict logits and backbone features of photos with their networks."""

import csv
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from dataset.errors import BadInput, Failure, first_line
from dataset.export.layout import BUILD_FILE
from dataset.pose.crop import KEEP
from dataset.pose.models import DEFAULT
from dataset.selection.crops import PoseOptions
from dataset.utils.downloads import file_digest
from dataset.utils.engines import LOCAL_ENGINE, Engine, PhotoTask
from model.inference.output_cache import PhotoOutputs, stack_outputs
from model.inference.preprocessing import (
    CHUNK_SIZE,
    OpenedPhoto,
    PhotoInput,
    PreparedPhoto,
    Preprocessor,
    RecentPhotos,
)
from model.network import inception

BATCH_SIZE = 32
# Probabilities of facets are at least this large before their logarithm is taken.
MIN_PROBABILITY = 1e-30
# Names in runs of older versions -> names of this version.
RENAMED_OPTIONS = {
    "taps": "feature_layers",
    "rate": "learning_rate",
    "head_rate": "head_learning_rate",
    "warm_up": "warmup_epochs",
    "average": "ema",
    "both_sides": "tta",
    "seconds": "time_budget",
}
RENAMED_FACTS = {"taps": "feature_layers", "built": "build_options"}
RENAMED_LAYERS = {"trunk": "backbone", "both_sides": "tta", "shares": "probabilities"}


@dataclass(frozen=True)
class SavedRun:
    """A run that was loaded from its directory.

    Attributes:
        folder: The run directory.
        network: Uint8 photos (batch, any, any, channels) -> calibrated probabilities (batch,
            classes). The fourth channel is the person's opacity, if the network reads one.
        labels: The labels in the order of the probabilities.
        data: The data folder of the training; None if it is not known.
        test_paths: Paths of the test photos below the data folder.
        kept_stage: The stage of training whose weights were kept.
        facts: Content of `run.json`.
        build_options: Options of the build that the photos are from; empty for plain folders.
        facets: Facet -> its labels, if photos can have several labels; otherwise empty.
        thresholds: Label -> the probability from which on a photo has it; empty without facets.
        metrics: Content of `metrics.json`.
    """

    folder: Path
    network: keras.Model
    labels: list[str]
    data: Path | None
    test_paths: list[str]
    kept_stage: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    build_options: dict[str, Any] = field(default_factory=dict)
    facets: dict[str, list[str]] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)

    @property
    def confidence_threshold(self) -> float | None:
        """The lowest confidence above which the validation photos reach the target accuracy.

        None if there is none, or if the run has no metrics.
        """
        chosen = self.metrics.get("coverage", {}).get("chosen_on_validation") or {}
        return chosen.get("threshold")

    @property
    def facet_thresholds(self) -> dict[str, float | None]:
        """Facet -> `confidence_threshold` of its labels."""
        thresholds = {}
        for name in self.facets:
            coverage = self.metrics.get("facets", {}).get(name, {}).get("coverage", {})
            thresholds[name] = (coverage.get("chosen_on_validation") or {}).get("threshold")
        return thresholds

    @property
    def crop(self) -> PoseOptions:
        """How photos are cropped before prediction: as the photos of the training.

        Raises:
            Failure: The crop depended on the label, as older versions allowed.
        """
        if not self.build_options:
            return PoseOptions("none", None, "none")
        if self.build_options.get("crop") == "zone":
            raise Failure(
                f"{self.folder} was trained on photos of `build-dataset --crop zone`, a crop that"
                " depends on the label; build with --crop person and train again"
            )
        weights = self.build_options.get("pose_weights")
        return PoseOptions(
            self.build_options.get("pose", DEFAULT),
            find_recorded_path(Path(weights), self.folder) if weights else None,
            self.build_options.get("crop", "person"),
            self.build_options.get("background", KEEP),
        )


def load_run(folder: Path) -> SavedRun:
    """Load a run directory.

    Raises:
        BadInput: The folder is not a run directory.
        Failure: The model can't be read, or is not a classifier of raw photos.
    """
    about = _read_json(folder / "labels.json")
    labels = about.get("labels")
    if not labels or not (folder / "model.keras").is_file():
        raise BadInput(
            f"{folder} is not a run of train-model: model.keras or labels.json is missing;"
            " name the --out of a finished training"
        )
    try:
        network = keras.saving.load_model(folder / "model.keras", compile=False)
    # Errors of Keras and h5py for files that are truncated or of another format.
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(f"{folder}/model.keras can't be read: {first_line(error)}") from error
    _require_classifier(network, labels, folder)
    for layer in _all_layers(network):
        layer.name = RENAMED_LAYERS.get(layer.name, layer.name)
        if layer.compute_dtype in ("bfloat16", "float16") and not isinstance(layer, keras.Model):
            # Compute in float32, the type of the weights, what was trained in half precision.
            layer.dtype_policy = "float32"
    facts = _rename_keys(_read_json(folder / "run.json"), RENAMED_FACTS)
    facts["options"] = _rename_keys(facts.get("options", {}), RENAMED_OPTIONS)
    recorded = facts["options"].get("data")
    data = find_recorded_path(Path(recorded), folder) if recorded else None
    metrics = _rename_keys(_read_json(folder / "metrics.json"), {"kept": "kept_stage"})
    return SavedRun(
        folder,
        network,
        labels,
        data,
        _test_paths(folder / "predictions.csv"),
        metrics.get("kept_stage", ""),
        facts,
        facts.get("build_options") or load_build_options(data),
        about.get("facets", {}),
        about.get("thresholds", {}),
        metrics,
    )


def find_recorded_path(path: Path, run: Path) -> Path:
    """Return a path that a run has recorded, from whatever folder the command is called.

    Older runs have paths relative to the folder of the training, which is one above the run.

    Args:
        path: The recorded path.
        run: The run directory.
    """
    if path.is_absolute() or path.exists():
        return path
    folders = run.absolute().resolve().parents
    return next((folder / path for folder in folders if (folder / path).exists()), path)


def load_build_options(data: Path | None) -> dict[str, Any]:
    """Return the options of the build in a data folder; empty if it is not a build."""
    return _read_json(data / BUILD_FILE).get("options", {}) if data else {}


def _rename_keys(values: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(name, name): value for name, value in values.items()}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        raise Failure(f"{path} is not JSON: {first_line(error)}") from error
    return value if isinstance(value, dict) else {}


def _test_paths(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [row["path"] for row in csv.DictReader(file) if row.get("path")]


def _require_classifier(network: keras.Model, labels: list[str], folder: Path) -> None:
    shapes = (network.input_shape, network.output_shape)
    inputs = [(None, None, None, channels) for channels in (3, 4)]
    has_shapes = shapes[0] in inputs and shapes[1] == (None, len(labels))
    if not has_shapes or network.input.dtype != "uint8":
        raise Failure(
            f"{folder}/model.keras maps {network.input.dtype} {shapes[0]} to {shapes[1]}: it is not"
            f" a classifier of raw photos with the {len(labels)} labels of labels.json; train it"
            " again with train-model"
        )


def _all_layers(network: keras.Model) -> Iterator[layers.Layer]:
    """Yield the layers of a network and of all networks in it."""
    for layer in network.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _all_layers(layer)


@dataclass(frozen=True)
class NetworkOutputs:
    """Network outputs for n photos.

    With test-time augmentation, the logits are means over both views; the features are those of the
    unmirrored view.

    Attributes:
        features: Backbone features that the head reads, float32 array of shape (n, width).
        logits: Calibrated logits, float32 array of shape (n, classes).
    """

    features: np.ndarray
    logits: np.ndarray


@dataclass(frozen=True)
class Predictor:
    """The network of a run, in the precision that suits this machine.

    Attributes:
        network: Pixels -> [features, logits].
        feature_network: Pixels -> features.
        labels: The labels.
        size: Width and height of the input in pixels.
        cache_key: Changes whenever the predictions would change.
        precision: Why this precision was chosen.
    """

    network: keras.Model
    feature_network: keras.Model
    labels: tuple[str, ...]
    size: int
    cache_key: str
    precision: str

    def predict(self, pixels: np.ndarray) -> NetworkOutputs:
        """Predict photos.

        Args:
            pixels: Letterboxed photos, uint8 array of shape (n, size, size, channels).

        Raises:
            Failure: The outputs are not finite.
        """
        features, logits = _predict_in_batches(self.network, pixels)
        return NetworkOutputs(features, logits)

    def predict_prepared(self, photos: Sequence[PreparedPhoto]) -> NetworkOutputs:
        """Predict prepared photos that have pixels, unless they have outputs already."""
        outputs = [photo.outputs for photo in photos if photo.outputs is not None]
        if len(outputs) == len(photos):
            return stack_outputs(outputs)
        return self.predict(np.stack([p.pixels for p in photos if p.pixels is not None]))

    def extract_features(self, pixels: np.ndarray) -> np.ndarray:
        """Return only the features of `predict`, a float32 array of shape (n, width).

        Raises:
            Failure: The features are not finite.
        """
        (features,) = _predict_in_batches(self.feature_network, pixels)
        return features


class PredictedPhoto(NamedTuple):
    """A photo with the outputs of the network.

    Attributes:
        photo: The photo, usually without its pixels.
        features: Its features, float32 array of shape (width,); None if it has a problem.
        logits: Its calibrated logits, float32 array of shape (classes,); None if it has a problem.
    """

    photo: PreparedPhoto
    features: np.ndarray | None = None
    logits: np.ndarray | None = None


@dataclass(frozen=True)
class PredictionTask(PhotoTask[PhotoInput, PredictedPhoto]):
    """Preprocesses and predicts photos.

    Attributes:
        network: That of a predictor.
        preprocessor: The preprocessing of its run.
        keeps_pixels: Whether the results have the pixels.
    """

    batch_size = BATCH_SIZE
    network: keras.Model
    preprocessor: Preprocessor
    keeps_pixels: bool = False

    def read(self, job: PhotoInput) -> OpenedPhoto:
        """Read and open a photo."""
        return self.preprocessor.open(job)

    def start(self) -> Callable[[Sequence[Any]], list[PredictedPhoto]]:
        """Return the function that predicts opened photos."""
        return self._predict

    def _predict(self, opened: Sequence[OpenedPhoto]) -> list[PredictedPhoto]:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            photos = self.preprocessor.prepare_opened(opened, pool)
        pixels = [photo.pixels for photo in photos if photo.pixels is not None]
        rows = iter(
            zip(*_predict_in_batches(self.network, np.stack(pixels)), strict=True) if pixels else ()
        )
        return [
            PredictedPhoto(photo)
            if photo.pixels is None
            else PredictedPhoto(
                photo if self.keeps_pixels else replace(photo, pixels=None), *next(rows)
            )
            for photo in photos
        ]


def prepare_photos(
    photos: Iterable[PhotoInput],
    preprocessor: Preprocessor,
    predictor: Predictor,
    engine: Engine,
    recent: RecentPhotos | None = None,
) -> Iterator[list[PreparedPhoto]]:
    """Preprocess photos in chunks; the workers of a cluster predict them as well.

    Args:
        photos: The photos.
        preprocessor: The preprocessing.
        predictor: The network.
        engine: Runs both.
        recent: Photos that are not prepared again.
    """
    if engine is LOCAL_ENGINE:
        yield from preprocessor.prepare(photos, recent)
        return
    inputs: deque[PhotoInput] = deque()

    def jobs() -> Iterator[PhotoInput]:
        for photo in photos:
            inputs.append(photo)
            yield photo

    results = engine.map(PredictionTask(predictor.network, preprocessor, keeps_pixels=True), jobs())
    while chunk := list(islice(results, CHUNK_SIZE)):
        prepared = []
        for photo, features, logits in chunk:
            original = inputs.popleft()
            if recent is not None and photo.sha256 and not recent.add(photo.sha256, original):
                prepared.append(PreparedPhoto(photo.sha256, is_repeated=True))
            elif features is None or logits is None:
                prepared.append(photo)
            else:
                prepared.append(replace(photo, outputs=PhotoOutputs(features, logits)))
        yield prepared


def _predict_in_batches(network: keras.Model, pixels: np.ndarray) -> list[np.ndarray]:
    """Return the outputs of a network, float32 arrays of n rows, for pixels of n photos."""
    batches = []
    for start in range(0, len(pixels), BATCH_SIZE):
        batch = pixels[start : start + BATCH_SIZE]
        # A graph is traced for each batch size: pad to a power of two.
        padded_size = 1 << (len(batch) - 1).bit_length()
        padding = np.zeros((padded_size - len(batch), *batch.shape[1:]), np.uint8)
        outputs = network.predict_on_batch(np.concatenate([batch, padding]))
        arrays = (np.asarray(output, np.float32) for output in keras.tree.flatten(outputs))
        batches.append([array[: len(batch)] for array in arrays])
    joined = [np.concatenate(arrays) for arrays in zip(*batches, strict=True)]
    if not all(np.isfinite(array).all() for array in joined):
        raise Failure("the outputs of the model are not finite; train it again")
    return joined


def load_predictor(run: SavedRun, precision: str = "auto") -> Predictor:
    """Build the predictor of a run.

    Args:
        run: The run.
        precision: A value of --precision.

    Raises:
        Failure: The model does not have the layers of `train-model`.
    """
    networks = {layer.name: layer for layer in nested_networks(run.network)}
    try:
        features, head = networks["features"], networks["head"]
        probabilities = networks.get(inception.FACET_PROBABILITIES)
        scale = 1.0 if probabilities else run.network.get_layer("temperature").scale
    except (KeyError, ValueError) as error:
        raise Failure(
            f"{run.folder}/model.keras has no layer {error}: it was made by another version; train"
            " it again with train-model"
        ) from error
    uses_tta = "tta" in networks
    digest = file_digest(run.folder / "model.keras", "sha256:" + 16 * "-").partition(":")[2]

    def build(policy: str) -> keras.Model:
        return features if policy == "float32" else _with_policy(features, policy)

    feature_network, choice = inception.choose_precision(features, build, precision)
    return Predictor(
        _build_network(feature_network, head, float(scale), uses_tta, probabilities),
        feature_network,
        tuple(run.labels),
        int(features.input.shape[1]),
        f"{digest}-{choice.policy}",
        choice.reason,
    )


def nested_networks(network: keras.Model) -> list[keras.Model]:
    """Return a network and all networks in it."""
    networks = [network]
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            networks += nested_networks(layer)
    return networks


def _with_policy(features: keras.Model, policy: str) -> keras.Model:
    """Return a copy of a feature network whose backbone computes in a dtype policy."""
    feature_layers = [
        layer.name.removeprefix("mean_")
        for layer in features.layers
        if layer.name.startswith("mean_")
    ]
    backbone = features.get_layer("backbone")

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config(layer.get_config() | {"dtype": policy})

    copy = keras.models.clone_model(backbone, clone_function=clone)
    copy.set_weights(backbone.get_weights())
    parts, channels = inception.parts_of(features), int(features.input.shape[-1])
    return inception.build_feature_network(copy, feature_layers, parts, channels)


def _build_network(
    features: keras.Model,
    head: keras.Model,
    scale: float,
    uses_tta: bool,
    probabilities: keras.Model | None,
) -> keras.Model:
    """Return pixels (batch, size, size, channels) -> [features, calibrated logits].

    Args:
        features: Pixels -> features.
        head: Features -> logits.
        scale: The logits are multiplied by it.
        uses_tta: Whether photos are mirrored as well.
        probabilities: For labels with facets, logits -> probabilities, whose logarithms are the
            calibrated logits.
    """
    pixels = keras.Input(features.input.shape[1:], name="pixels")
    views = [pixels, keras.ops.flip(pixels, axis=2)] if uses_tta else [pixels]
    outputs = [features(view) for view in views]
    # The mean of the logits was calibrated, not the logits of the mean features.
    logits = [head(output) for output in outputs]
    mean = sum(logits) * (1 / len(views) * scale)
    if probabilities is not None:
        mean = keras.ops.log(keras.ops.maximum(probabilities(mean), MIN_PROBABILITY))
    return keras.Model(pixels, [outputs[0], mean])
