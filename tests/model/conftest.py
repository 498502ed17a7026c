"""Fixtures of the tests of the model package."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from dataset.utils.keras_backend import import_backend

if TYPE_CHECKING:
    from model.inference.predictor import SavedRun

# As the commands do; the tests' own imports of Keras take longer.
import_backend()


@pytest.fixture(scope="module")
def short_backbone() -> Iterator[None]:
    """Replace Inception-v3 by a short network in commands that run in this process.

    The drawn photos of a label are nearly equal, so the commands allow leaks; the search for them,
    which has tests of its own, is left out.
    """
    import keras

    from model.training import train
    from tests.support.short_inception import short_inception

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.applications, "InceptionV3", short_inception)
        patch.setattr(train, "_find_leaks", lambda *_: [])
        yield


@pytest.fixture(scope="module")
def models_are_loaded_once() -> Iterator[None]:
    """Keep the networks of runs, which each command in this process would load and trace."""
    import keras

    from model.inference import predictor
    from model.tag_check import pipeline

    load_model, networks = keras.saving.load_model, {}
    load_predictor, predictors = predictor.load_predictor, {}

    def load_model_once(path: Path, **options: Any) -> Any:
        status = path.stat()
        key = path.resolve(), status.st_mtime_ns, status.st_size
        if key not in networks:
            networks[key] = load_model(path, **options)
        return networks[key]

    def load_predictor_once(run: "SavedRun", precision: str = "auto") -> Any:
        key = id(run.network), precision
        if key not in predictors:
            predictors[key] = load_predictor(run, precision)
        return predictors[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.saving, "load_model", load_model_once)
        for module in (predictor, pipeline):
            patch.setattr(module, "load_predictor", load_predictor_once)
        yield
