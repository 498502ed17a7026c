"""Fitting resumes after an interruption, stops in time, and keeps its best epoch."""

import zipfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from dataset.errors import Failure
from dataset.utils.keras_backend import load_state, save_state
from model.data.features import HeadTrainingSet
from model.training.config import FitConfig, TrainOptions
from model.training.fit import FitProgress, ValidationSet, fit, predict_in_batches

CONFIG = FitConfig(
    "adamw", 0.02, 6, batch_size=8, weight_decay=0.01, label_smoothing=0.1, mixup=0.2, ema=True
)


class Killed(Exception):  # noqa: N818 - what happens, no error of ours
    """Stands for a kill after an epoch."""


def data(count: int = 64) -> tuple[HeadTrainingSet, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    targets = np.arange(count) % 3
    values = rng.normal(size=(count, 2, 5)).astype(np.float16)
    values[np.arange(count), :, targets] += 2
    weights = np.ones(count, np.float32)
    training_set = HeadTrainingSet(values, np.eye(3, dtype=np.float32)[targets], weights)
    return training_set, values[:, 0].astype(np.float32), targets


def network() -> keras.Model:
    keras.utils.set_random_seed(4)
    inputs = keras.Input((5,))
    hidden = keras.layers.Dropout(0.3)(keras.layers.Dense(16, "relu")(inputs))
    return keras.Model(inputs, keras.layers.Dense(3)(hidden))


def run(
    folder: Path, config: FitConfig = CONFIG, kill_after: int = 0
) -> tuple[keras.Model, FitProgress]:
    training_set, inputs, targets = data()
    model = network()

    def on_epoch_end(progress: FitProgress) -> None:
        if progress.done == kill_after:
            raise Killed

    folder.mkdir(exist_ok=True)
    validation_set = ValidationSet(lambda trained: predict_in_batches(trained, inputs), targets)
    return model, fit(
        model, training_set, validation_set, config, folder / "state.npz", on_epoch_end
    )


def test_a_killed_fitting_resumes_with_the_same_result(tmp_path: Path) -> None:
    whole, progress = run(tmp_path / "whole")
    for after in (1, 4):
        with pytest.raises(Killed):
            run(tmp_path / "cut", kill_after=after)
    resumed, resumed_progress = run(tmp_path / "cut")
    assert resumed_progress.best_epoch == progress.best_epoch
    for name, values in progress.history.items():
        assert resumed_progress.history[name] == pytest.approx(values, abs=1e-6)
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        assert other == pytest.approx(one, abs=1e-6)


def test_the_network_has_the_weights_of_the_best_epoch(tmp_path: Path) -> None:
    model, progress = run(tmp_path / "run", replace(CONFIG, epochs=12))
    _, inputs, targets = data()
    accuracy = (predict_in_batches(model, inputs).argmax(axis=1) == targets).mean()
    assert accuracy > 0.7
    assert accuracy == pytest.approx(progress.history["val_accuracy"][progress.best_epoch - 1])


def test_a_trained_network_is_saved_without_its_optimizer(tmp_path: Path) -> None:
    model, _ = run(tmp_path / "run")
    whole = keras.Model(model.input, model(model.input))
    whole.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as file:
        assert b"TableSchedule" not in file.read("config.json")
    _, inputs, _ = data()
    loaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    assert predict_in_batches(loaded, inputs) == pytest.approx(
        predict_in_batches(model, inputs), abs=1e-6
    )


def test_fitting_stops_after_the_patience(tmp_path: Path) -> None:
    slow = replace(CONFIG, learning_rate=1e-12, patience=2, epochs=50, ema=False)
    _, progress = run(tmp_path / "run", slow)
    assert progress.done <= progress.best_epoch + 2 < 50


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_a_nan_loss_names_the_remedy(tmp_path: Path, optimizer: str) -> None:
    wild = replace(CONFIG, optimizer=optimizer, learning_rate=1e30, warmup_epochs=0, ema=False)
    with pytest.raises(Failure, match=r"NaN in epoch .*--learning-rate"):
        run(tmp_path / "run", wild)


def test_a_nan_loss_of_a_head_names_its_own_option(tmp_path: Path) -> None:
    config = TrainOptions(
        data=tmp_path, out=tmp_path, head_learning_rate=1e30, warmup_epochs=0
    ).head_config()
    with pytest.raises(Failure, match=r"NaN in epoch .*--head-learning-rate below 1e\+30"):
        run(tmp_path / "run", replace(config, batch_size=8))


def test_a_missing_photo_ends_with_its_own_error(tmp_path: Path) -> None:
    class Broken(HeadTrainingSet):
        def inputs(self, indices: np.ndarray, epoch: int) -> np.ndarray:
            if epoch:
                raise Failure("a.jpg can't be read any more")
            return super().inputs(indices, epoch)

    training_set, inputs, targets = data()
    validation_set = ValidationSet(lambda trained: predict_in_batches(trained, inputs), targets)
    broken = Broken(training_set.values, training_set.targets, training_set.weights)
    with pytest.raises(Failure, match="can't be read any more"):
        fit(network(), broken, validation_set, CONFIG, tmp_path / "state.npz", lambda _: None)


def test_a_small_budget_makes_epochs_shorter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FitConfig, "plan", lambda *_: (3, 12))
    monkeypatch.setattr(
        FitConfig, "epochs_in_budget", lambda _self, _done, planned, _seconds: planned
    )
    began: list[int] = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs=None: began.append(batch)
    )
    training_set, inputs, targets = data()
    validation_set = ValidationSet(lambda trained: predict_in_batches(trained, inputs), targets)
    config = replace(CONFIG, batch_size=4, time_budget=1)
    state = tmp_path / "state.npz"
    progress = fit(network(), training_set, validation_set, config, state, lambda _: None, [count])
    assert (progress.done, progress.epochs, progress.steps) == (3, 3, 12)
    assert began == [*range(12)] * 3


@pytest.mark.slow
def test_fused_steps_have_the_same_metrics(tmp_path: Path) -> None:
    _, progress = run(tmp_path / "steps")
    _, fused = run(tmp_path / "fused", replace(CONFIG, fused_steps=True))
    for name, values in progress.history.items():
        assert fused.history[name] == pytest.approx(values, abs=1e-5)


def test_a_state_of_another_config_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path / "run", kill_after=2)
    with pytest.raises(Failure, match="another training"):
        run(tmp_path / "run", replace(CONFIG, learning_rate=0.5))


def test_a_state_of_an_earlier_version_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path / "run", kill_after=2)
    path = tmp_path / "run" / "state.npz"
    state, values = load_state(path, "")
    save_state(path, {"best": state.pop("best_epoch"), **state}, values)
    with pytest.raises(Failure, match="another training"):
        run(tmp_path / "run")


def test_a_truncated_state_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tmp_path / "run", kill_after=2)
    state = tmp_path / "run" / "state.npz"
    state.write_bytes(state.read_bytes()[:100])
    with pytest.raises(Failure, match=r"state\.npz is broken"):
        run(tmp_path / "run")
