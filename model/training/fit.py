"""Fitting a network: epoch after epoch, each kept on disk so that a killed training goes on."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from dataset.errors import Failure
from dataset.utils.keras_backend import jit_compile
from dataset.utils.training_state import load_state, save_state
from model.evaluation.calibration import likelihood_loss, temperature
from model.training.config import Recipe

# Steps that are timed before the epochs are fitted to the time that there is.
TIMED = range(3, 9)
# Weights are averaged over about an epoch, so that the last photos seen count no more than others.
MOST_AVERAGED = 0.999


class Feed(Protocol):
    """What a network learns from. `targets`: (n, classes) float shares; `weights`: (n,) float."""

    @property
    def targets(self) -> np.ndarray: ...

    @property
    def weights(self) -> np.ndarray: ...

    def inputs(self, places: np.ndarray, epoch: int) -> np.ndarray:
        """(batch, …) of the examples at PLACES, as EPOCH shows them."""


@dataclass(frozen=True)
class Check:
    """What a network is measured on after each epoch. `targets`: (n,) int, may be empty."""

    logits: Callable[[keras.Model], np.ndarray]
    targets: np.ndarray


@dataclass
class Progress:
    """How far a fitting is. `history`: a value for each finished epoch; `epochs`: how many in all.

    `steps`: of an epoch; `best`: the kept epoch, from 1; `loss`: its loss on validation,
    calibrated; `seconds`: spent.
    """

    epochs: int
    steps: int
    history: dict[str, list[float]] = field(default_factory=dict)
    best: int = 0
    loss: float = math.inf
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """Finished epochs."""
        return len(self.history.get("loss", ()))


def fit(
    network: keras.Model,
    feed: Feed,
    check: Check,
    recipe: Recipe,
    state: Path,
    show: Callable[[Progress], None],
) -> Progress:
    """Fit NETWORK, pixels or outputs -> logits, as RECIPE says; leave it as in its best epoch.

    The best epoch has the lowest validation loss once calibrated; without validation photos it is
    the last one. STATE is a file to go on from, written after each epoch, and `best-` beside it;
    SHOW is told of each epoch.

    Raises:
        Failure: the loss became NaN, or STATE is broken or another fitting's.
    """
    steps = steps_of(feed, recipe)
    compile_network(network, recipe, steps)
    progress = _resumed(network, recipe, state) or Progress(recipe.epochs, steps)
    while progress.done < progress.epochs and not _given_up(progress, recipe):
        began = time.monotonic()
        figures = _teach(network, feed, recipe, progress)
        with averaged(network, recipe):
            _measure(network, check, progress, figures)
            if progress.best == progress.done:
                save_state(_best(state), recipe.said(), _values(network.variables))
        progress.seconds += time.monotonic() - began
        progress.epochs = recipe.epochs_left(progress.done, progress.epochs, progress.seconds)
        said = {"recipe": recipe.said(), **vars(progress)}
        save_state(state, said, _values(_all_variables(network)))
        show(progress)
    _, values = load_state(_best(state), "begin anew without --resume")
    _assign(network.variables, values)
    return progress


def predict(network: keras.Model, inputs: np.ndarray, batch: int = 64) -> np.ndarray:
    """NETWORK's outputs for INPUTS, (n, …): (n, …) float32, BATCH at a time."""
    starts = range(0, len(inputs), batch)
    parts = [np.asarray(network.predict_on_batch(inputs[i : i + batch])) for i in starts]
    width = network.output.shape[-1]
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, width), np.float32)


def steps_of(feed: Feed, recipe: Recipe) -> int:
    """Steps of an epoch: whole batches only, but at least one."""
    return max(1, len(feed.weights) // recipe.batch_size)


def compile_network(network: keras.Model, recipe: Recipe, steps: int) -> None:
    """Give NETWORK its optimizer, with weights averaged over about an epoch of STEPS."""
    momentum = min(MOST_AVERAGED, 1 - 1 / max(10, steps)) if recipe.average else None
    optimizer = recipe.build_optimizer(momentum)
    if network.get_layer(index=-1).dtype_policy.name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=recipe.label_smoothing
    )
    # A metric by its name makes its variables in the first step, which is then traced twice.
    accuracy = keras.metrics.CategoricalAccuracy(name="accuracy")
    network.compile(optimizer, loss, metrics=[accuracy], jit_compile=jit_compile())
    optimizer.build(network.trainable_variables)


def _best(state: Path) -> Path:
    return state.with_name(f"best-{state.name}")


def _all_variables(network: keras.Model) -> list[keras.Variable]:
    return [*network.variables, *network.optimizer.variables]


def _values(variables: Sequence[keras.Variable]) -> Iterator[np.ndarray]:
    return (keras.ops.convert_to_numpy(variable) for variable in variables)


def _assign(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _resumed(network: keras.Model, recipe: Recipe, state: Path) -> Progress | None:
    """Where the fitting that left STATE stands, NETWORK brought there; None: nothing was left."""
    if not state.is_file():
        return None
    said, values = load_state(state, "begin anew without --resume")
    if said.pop("recipe") != recipe.said() or len(values) != len(_all_variables(network)):
        raise Failure(f"--resume: {state} is of another training; begin anew in another --out")
    _assign(_all_variables(network), values)
    return Progress(**said)


def _given_up(progress: Progress, recipe: Recipe) -> bool:
    return progress.done - progress.best >= recipe.patience > 0


def _teach(
    network: keras.Model, feed: Feed, recipe: Recipe, progress: Progress
) -> dict[str, float]:
    """One epoch of NETWORK: its loss and accuracy on what it learned from."""
    epoch, clock = progress.done, list[float]()
    figures: list[dict[str, float]] = []
    for step, batch in enumerate(_batches(feed, recipe, epoch)):
        if step >= progress.steps:
            break
        rate = recipe.rate_at(epoch * progress.steps + step, progress.steps, progress.epochs)
        network.optimizer.learning_rate = rate
        found = network.train_on_batch(*batch, return_dict=True)
        figures.append({name: float(value) for name, value in found.items()})
        if not math.isfinite(figures[-1]["loss"]):
            raise Failure(
                f"the loss became NaN in epoch {epoch + 1}; train with a smaller"
                f" {recipe.rate_option} than {recipe.rate:g}, or with --precision float32"
            )
        if epoch == 0 and step in (TIMED.start, TIMED.stop):
            clock.append(time.monotonic())
            if step == TIMED.stop:
                a_step = (clock[1] - clock[0]) / len(TIMED)
                progress.epochs, progress.steps = recipe.plan(a_step, progress.steps)
    return {name: float(np.mean([one[name] for one in figures])) for name in figures[0]}


def _batches(
    feed: Feed, recipe: Recipe, epoch: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """An epoch's inputs, targets and weights, made a batch ahead of the network."""
    rng = np.random.default_rng((recipe.seed, epoch))
    order = rng.permutation(len(feed.weights))
    size = min(recipe.batch_size, len(order))
    places = [order[step * size : (step + 1) * size] for step in range(steps_of(feed, recipe))]
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(feed.inputs, places[0], epoch)
        for step, some in enumerate(places):
            inputs = coming.result()
            if step + 1 < len(places):
                coming = ahead.submit(feed.inputs, places[step + 1], epoch)
            yield _mixed(inputs, feed.targets[some], feed.weights[some], recipe.mixup, rng)


def _mixed(
    inputs: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    mixup: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs blended (Zhang et al., "mixup", 2018), by a share from Beta(MIXUP, MIXUP)."""
    if not mixup:
        return inputs, targets, weights
    share = np.float32(rng.beta(mixup, mixup))
    other = rng.permutation(len(inputs))

    def blend(values: np.ndarray) -> np.ndarray:
        return share * values.astype(np.float32) + (1 - share) * values[other]

    return blend(inputs), blend(targets), blend(weights)


@contextmanager
def averaged(network: keras.Model, recipe: Recipe) -> Iterator[None]:
    """NETWORK with the average of its weights, where RECIPE keeps one, and afterwards as it was."""
    own = list(_values(network.trainable_variables)) if recipe.average else []
    if own:
        network.optimizer.finalize_variable_values(network.trainable_variables)
        # In JAX they are now the average's own arrays, which the next step would give away.
        _assign(network.trainable_variables, list(_values(network.trainable_variables)))
    yield
    if own:
        _assign(network.trainable_variables, own)


def _measure(
    network: keras.Model, check: Check, progress: Progress, figures: dict[str, float]
) -> None:
    """Add an epoch's FIGURES to PROGRESS, with those on validation."""
    if len(check.targets):
        logits = check.logits(network)
        heat = temperature(logits, check.targets)
        calibrated = likelihood_loss(logits, check.targets, heat)
        figures["val_loss"] = likelihood_loss(logits, check.targets)
        figures["val_accuracy"] = float((logits.argmax(axis=1) == check.targets).mean())
    else:
        calibrated = -progress.done - 1.0
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        if name in figures:
            progress.history.setdefault(name, []).append(figures[name])
    if calibrated < progress.loss:
        progress.best, progress.loss = progress.done, calibrated


class Scalars:
    """Writes event files below FOLDER; nothing where there is no TensorFlow (but JAX)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writers: dict[str, Any] = {}

    def write(self, stage: str, epoch: int, figures: Mapping[str, float]) -> None:
        """FIGURES of EPOCH, from 1, of STAGE."""
        try:
            import tensorflow as tf
        except ImportError:
            return
        # What TensorBoard's own `scalar` writes; that one needs TensorBoard installed.
        metadata = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
        )
        if stage not in self.writers:
            place = str(self.folder / stage.replace(" ", "-"))
            self.writers[stage] = tf.summary.create_file_writer(place)
        writer = self.writers[stage]
        with writer.as_default(step=epoch):
            for name, value in figures.items():
                tf.summary.write(name, tf.constant(value, tf.float32), metadata=metadata)
        writer.flush()
