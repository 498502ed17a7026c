"""A run's folder, read back: its network, its labels, and what its photos were."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
from keras import layers

from dataset.errors import BadInput, Failure, first_line
from dataset.export.layout import BUILD_FILE
from dataset.pose.models import DEFAULT
from dataset.selection.crops import PoseOptions


@dataclass(frozen=True)
class Run:
    """A run's model with its labels, the data folder it saw, and the test photos below that.

    `network`: (batch, any, any, 3) uint8 -> (batch, classes) calibrated shares. `facts`: run.json.
    `kept`: the stage whose network it is. `built`: options of the build whose photos it saw; empty
    for photos of another origin.
    """

    folder: Path
    network: keras.Model
    labels: list[str]
    data: Path | None
    tested: list[str]
    kept: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    built: dict[str, Any] = field(default_factory=dict)

    @property
    def crop(self) -> PoseOptions:
        """How photos are cropped before the model sees them: as those were that it learned from."""
        if not self.built:
            return PoseOptions("none", None, "none")
        weights = self.built.get("pose_weights")
        return PoseOptions(
            self.built.get("pose", DEFAULT),
            Path(weights) if weights else None,
            self.built.get("crop", "person"),
        )


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
    facts = _json(folder / "run.json")
    data = facts.get("options", {}).get("data")
    return Run(
        folder,
        network,
        labels,
        Path(data) if data else None,
        _tested(folder / "predictions.csv"),
        _json(folder / "metrics.json").get("kept", ""),
        facts,
        facts.get("built") or built_with(Path(data) if data else None),
    )


def built_with(data: Path | None) -> dict[str, Any]:
    """The options of the build in the folder DATA; empty where it is none."""
    return _json(data / BUILD_FILE).get("options", {}) if data else {}


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
    """NETWORK's layers, those of networks within it too."""
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            yield from _leaves(layer)
        else:
            yield layer
