"""Runs are loaded, also those of older versions."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dataset.errors import Failure
from dataset.utils.files import write_json
from model.inference.predictor import load_predictor
from model.inference.saved_run import (
    RENAMED_LAYERS,
    SavedRun,
    _all_layers,
    find_recorded_path,
    load_run,
)
from tests.support.exported_runs import SIZE
from tests.support.saved_runs import write_run

LABELS = ("dress", "polo")
OLD_OPTIONS: dict[str, Any] = {
    "data": "splits",
    "taps": [],
    "rate": None,
    "head_rate": 0.1,
    "warm_up": 0.5,
}


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> SavedRun:
    return load_run(write_run(tmp_path_factory.mktemp("new") / "run", LABELS, tta=True))


@pytest.fixture(scope="module")
def old(new: SavedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with the names of an older version."""
    folder = tmp_path_factory.mktemp("old")
    network = keras.saving.load_model(new.folder / "model.keras")
    old_names = {name: old_name for old_name, name in RENAMED_LAYERS.items()}
    for layer in _all_layers(network):
        layer.name = old_names.get(layer.name, layer.name)
    network.save(folder / "model.keras")
    write_json({"labels": list(LABELS)}, folder / "labels.json")
    write_json({"kept": "head"}, folder / "metrics.json")
    options = {**OLD_OPTIONS, "average": True, "both_sides": True, "seconds": 60.0}
    built = {"pose": "none", "size": 96}
    write_json({"options": options, "taps": "mixed0+mixed1", "built": built}, folder / "run.json")
    (folder / "predictions.csv").write_text("path,label,probability\ntest/a.jpg,dress,0.5\n")
    return folder


def test_an_old_run_has_the_new_names(old: Path) -> None:
    run = load_run(old)
    assert run.facts["options"] == {
        **{"data": "splits", "feature_layers": [], "learning_rate": None},
        **{"head_learning_rate": 0.1, "warmup_epochs": 0.5, "ema": True, "tta": True},
        "time_budget": 60.0,
    }
    assert run.facts["feature_layers"] == "mixed0+mixed1"
    assert (run.kept_stage, run.test_paths) == ("head", ["test/a.jpg"])
    assert run.build_options == {"pose": "none", "size": 96}
    assert not {layer.name for layer in _all_layers(run.network)} & RENAMED_LAYERS.keys()


def test_an_old_run_has_the_same_predictions(new: SavedRun, old: Path) -> None:
    photos = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), dtype=np.uint8)
    before = load_predictor(load_run(old), "float32").predict(photos)
    now = load_predictor(new, "float32").predict(photos)
    assert (before.logits == now.logits).all()
    assert (before.features == now.features).all()


def test_a_run_of_an_unknown_version_names_the_remedy(new: SavedRun, tmp_path: Path) -> None:
    network = keras.saving.load_model(new.folder / "model.keras")
    for layer in _all_layers(network):
        if layer.name == "features":
            layer.name = "something else"
    network.save(tmp_path / "model.keras")
    write_json({"labels": list(LABELS)}, tmp_path / "labels.json")
    with pytest.raises(Failure, match="made by another version; train it again with train-model"):
        load_predictor(load_run(tmp_path), "float32")


def test_recorded_paths_hold_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "work" / "runs" / "first"
    (tmp_path / "work" / "splits").mkdir(parents=True)
    run.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_recorded_path(Path("splits"), run) == tmp_path / "work" / "splits"
    assert find_recorded_path(Path("/nowhere"), run) == Path("/nowhere")
    assert find_recorded_path(Path("other"), run) == Path("other")
    monkeypatch.chdir(run)
    relative = Path("../first")
    assert find_recorded_path(Path("splits"), relative) == tmp_path / "work" / "splits"
