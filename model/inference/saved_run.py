"""Load a run directory: the model, its labels and options, also of runs of older versions."""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
from keras import layers

from dataset.errors import BadInput, Failure, first_line
from dataset.export.layout import BUILD_FILE
from dataset.pose.crop import KEEP
from dataset.pose.models import DEFAULT
from dataset.selection.crops import PoseOptions

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
