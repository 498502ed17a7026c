"""The predictor of a run has the outputs of the saved model."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest

from dataset.errors import BadInput, Failure
from dataset.images.io import open_photo
from dataset.utils.files import write_json
from model.data.loading import letterbox
from model.inference.predictor import load_predictor
from model.inference.saved_run import SavedRun, load_run
from model.network import inception
from tests.support.exported_runs import FIRST, LABELS, SIZE, small_network, write_photos
from tests.support.saved_runs import write_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], SavedRun]:
    """Make a run with or without test-time augmentation, when it is first needed."""
    folder = tmp_path_factory.mktemp("runs")
    return cache(lambda tta: load_run(write_run(folder / str(tta), LABELS, tta=tta)))


@pytest.mark.parametrize("tta", [True, False])
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


def test_half_precision_stays_near(made: Callable[[bool], SavedRun], tmp_path: Path) -> None:
    run = made(True)
    photos = np.random.default_rng(2).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    exact = load_predictor(run, "float32")
    half = load_predictor(run, "bfloat16")
    assert exact.cache_key != half.cache_key
    assert half.predict(photos).features == pytest.approx(exact.predict(photos).features, abs=0.05)


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
