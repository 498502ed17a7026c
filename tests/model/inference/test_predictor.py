"""Runs are loaded, also of older versions, and predict what the saved model predicts."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from dataset.errors import BadInput, Failure
from dataset.images.io import open_photo
from dataset.utils.files import write_json
from model.data.loading import letterbox
from model.inference.predictor import (
    RENAMED_LAYERS,
    SavedRun,
    _all_layers,
    find_recorded_path,
    load_predictor,
    load_run,
)
from model.network import inception
from tests.support.exported_runs import FIRST, LABELS, SIZE, small_network, write_photos
from tests.support.saved_runs import write_run

RUN_LABELS = ("dress", "polo")
OLD_OPTIONS: dict[str, Any] = {
    "data": "splits",
    "taps": [],
    "rate": None,
    "head_rate": 0.1,
    "warm_up": 0.5,
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], SavedRun]:
    """Make a run with or without test-time augmentation, when it is first needed."""
    folder = tmp_path_factory.mktemp("runs")
    return cache(lambda tta: load_run(write_run(folder / str(tta), LABELS, tta=tta)))


@pytest.mark.parametrize("tta", [pytest.param(True, marks=pytest.mark.slow), False])
def test_outputs_equal_the_models(
    made: Callable[[bool], SavedRun], tmp_path: Path, tta: bool
) -> None:
    run = made(tta)
    predictor = load_predictor(run, "float32")
    assert (predictor.size, predictor.labels) == (SIZE, tuple(LABELS))
    # More than a batch, the last one not full.
    photos = np.random.default_rng(2).integers(0, 256, (35, SIZE, SIZE, 3), dtype=np.uint8)
    outputs = predictor.predict(photos)
    probabilities = np.asarray(keras.ops.softmax(outputs.logits))
    assert probabilities == pytest.approx(np.asarray(run.network(photos, training=False)), abs=1e-5)
    assert predictor.extract_features(photos) == pytest.approx(outputs.features, abs=1e-5)
    pixels = photos.astype(np.float32)
    features = next(one for one in _all(run.network) if one.name == "features")
    assert outputs.features == pytest.approx(np.asarray(features(pixels)), abs=1e-5)


def _all(network: keras.Model) -> list[keras.Model]:
    inner = [layer for layer in network.layers if isinstance(layer, keras.Model)]
    return [network, *(one for layer in inner for one in _all(layer))]


def test_all_kinds_of_photos_are_letterboxed_as_in_the_model(
    made: Callable[[bool], SavedRun], tmp_path: Path
) -> None:
    run = made(False)
    predictor = load_predictor(run, "float32")
    for path in write_photos(tmp_path / "photos"):
        photo = open_photo(path)
        own = np.asarray(run.network(np.asarray(photo)[None], training=False))
        probabilities = keras.ops.softmax(predictor.predict(letterbox(photo, SIZE)[None]).logits)
        assert np.asarray(probabilities) == pytest.approx(own, abs=0.02)


@pytest.mark.slow
def test_half_precision_stays_near(made: Callable[[bool], SavedRun], tmp_path: Path) -> None:
    run = made(True)
    photos = np.random.default_rng(2).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    exact = load_predictor(run, "float32")
    half = load_predictor(run, "bfloat16")
    assert exact.cache_key != half.cache_key
    assert half.predict(photos).features == pytest.approx(exact.predict(photos).features, abs=0.05)


@pytest.mark.slow
def test_parts_of_photos_are_those_of_the_model(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path / "run", LABELS, parts=inception.HALVES))
    exact, half = load_predictor(run, "float32"), load_predictor(run, "bfloat16")
    side = 2 * SIZE
    assert exact.size == half.size == side
    photos = np.random.default_rng(2).integers(0, 256, (4, side, side, 3), dtype=np.uint8)
    outputs = exact.predict(photos)
    probabilities = np.asarray(keras.ops.softmax(outputs.logits))
    assert probabilities == pytest.approx(np.asarray(run.network(photos, training=False)), abs=1e-5)
    assert half.predict(photos).features == pytest.approx(outputs.features, abs=0.05)


def test_a_model_with_other_layers_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    small_network(1.0, layer=FIRST).save(tmp_path / "run" / "model.keras")
    write_json({"labels": LABELS}, tmp_path / "run" / "labels.json")
    with pytest.raises(Failure, match="train it again"):
        load_predictor(load_run(tmp_path / "run"), "float32")


def test_another_folder_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is not a run of train-model"):
        load_run(tmp_path)


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> SavedRun:
    return load_run(write_run(tmp_path_factory.mktemp("new") / "run", RUN_LABELS, tta=True))


@pytest.fixture(scope="module")
def old(new: SavedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with the names of an older version."""
    folder = tmp_path_factory.mktemp("old")
    network = keras.saving.load_model(new.folder / "model.keras")
    old_names = {name: old_name for old_name, name in RENAMED_LAYERS.items()}
    for layer in _all_layers(network):
        layer.name = old_names.get(layer.name, layer.name)
    network.save(folder / "model.keras")
    write_json({"labels": list(RUN_LABELS)}, folder / "labels.json")
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
    write_json({"labels": list(RUN_LABELS)}, tmp_path / "labels.json")
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
