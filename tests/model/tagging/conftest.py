"""Fixtures of the tests of tagging."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import pytest

from model.inference import predictor
from model.inference.saved_run import SavedRun


@pytest.fixture(scope="module", autouse=True)
def models_are_loaded_once() -> Iterator[None]:
    """Keep the network of a run: each command would load and trace it."""
    load_model, networks = keras.saving.load_model, {}
    load_predictor, predictors = predictor.load_predictor, {}

    def load_model_once(path: Path, **options: Any) -> keras.Model:
        if path.resolve() not in networks:
            networks[path.resolve()] = load_model(path, **options)
        return networks[path.resolve()]

    def load_predictor_once(run: SavedRun, precision: str = "auto") -> Any:
        if id(run.network) not in predictors:
            predictors[id(run.network)] = load_predictor(run, precision)
        return predictors[id(run.network)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.saving, "load_model", load_model_once)
        patch.setattr(predictor, "load_predictor", load_predictor_once)
        yield
