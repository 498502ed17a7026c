"""A judge says what the saved model says."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import keras
import numpy as np
import pytest

from dataset.errors import BadInput, Failure
from dataset.images.io import open_photo
from dataset.utils.files import write_json
from model.data.loading import boxed
from model.inference.predictor import open_judge
from model.inference.saved_run import Run, read_run
from tests.support.exported_runs import FIRST, LABELS, SIZE, small_network, write_photos
from tests.support.saved_runs import write_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Run]:
    """A run that asks BOTH sides of a photo, or one; made at the first asking."""
    folder = tmp_path_factory.mktemp("runs")
    return cache(lambda both: read_run(write_run(folder / str(both), LABELS, both=both)))


@pytest.mark.parametrize("both", [True, False])
def test_shares_and_outputs_are_the_models(
    made: Callable[[bool], Run], tmp_path: Path, both: bool
) -> None:
    run = made(both)
    judge = open_judge(run, "float32")
    assert (judge.size, judge.labels) == (SIZE, tuple(LABELS))
    # More than a batch, the last one not full.
    photos = np.random.default_rng(2).integers(0, 256, (35, SIZE, SIZE, 3), dtype=np.uint8)
    looked = judge.look(photos)
    shares = np.asarray(keras.ops.softmax(looked.logits))
    assert shares == pytest.approx(np.asarray(run.network(photos, training=False)), abs=1e-5)
    assert judge.outputs(photos) == pytest.approx(looked.outputs, abs=1e-5)
    pixels = photos.astype(np.float32)
    features = next(one for one in _all(run.network) if one.name == "features")
    assert looked.outputs == pytest.approx(np.asarray(features(pixels)), abs=1e-5)


def _all(network: keras.Model) -> list[keras.Model]:
    inner = [layer for layer in network.layers if isinstance(layer, keras.Model)]
    return [network, *(one for layer in inner for one in _all(layer))]


def test_photos_of_all_kinds_are_fitted_in_as_the_model_does(
    made: Callable[[bool], Run], tmp_path: Path
) -> None:
    run = made(False)
    judge = open_judge(run, "float32")
    for path in write_photos(tmp_path / "photos"):
        photo = open_photo(path)
        own = np.asarray(run.network(np.asarray(photo)[None], training=False))
        shares = keras.ops.softmax(judge.look(boxed(photo, SIZE)[None]).logits)
        assert np.asarray(shares) == pytest.approx(own, abs=0.02)


def test_half_precision_stays_near(made: Callable[[bool], Run], tmp_path: Path) -> None:
    run = made(True)
    photos = np.random.default_rng(2).integers(0, 256, (4, SIZE, SIZE, 3), dtype=np.uint8)
    exact = open_judge(run, "float32")
    half = open_judge(run, "bfloat16")
    assert exact.key != half.key
    assert half.look(photos).outputs == pytest.approx(exact.look(photos).outputs, abs=0.05)


def test_a_model_of_another_make_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    small_network(1.0, layer=FIRST).save(tmp_path / "run" / "model.keras")
    write_json({"labels": LABELS}, tmp_path / "run" / "labels.json")
    with pytest.raises(Failure, match="train it again"):
        open_judge(read_run(tmp_path / "run"), "float32")


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="is no run of train-model"):
        read_run(tmp_path)
