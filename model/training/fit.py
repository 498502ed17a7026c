"""Train a network with `keras.Model.fit`; its callbacks keep a state that a killed run resumes."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from dataset.errors import Failure
from dataset.utils.keras_backend import jit_compile
from dataset.utils.training_state import assign, load_state, save_state, training_variables
from model.evaluation.calibration import likelihood_loss, temperature
from model.training.config import PlannedRates, Recipe

# Steps of the first epoch that are timed to plan the epochs into the time budget.
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
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Progress:
    """Train a network and leave it with the weights of its best epoch.

    The best epoch has the lowest calibrated validation loss; without validation photos it is the
    last one.

    Args:
        network: Pixels or backbone outputs -> logits.
        feed: The training examples.
        check: The validation examples.
        recipe: Optimizer, schedule and regularization.
        state: The file to resume from, written after each epoch; `best-` beside it has the weights
            of the best epoch.
        show: Called after each epoch.
        callbacks: More callbacks of Keras.

    Raises:
        Failure: The loss became NaN, a photo of the feed can't be read any more, or STATE is broken
            or belongs to another training.
    """
    steps = steps_of(feed, recipe)
    rates = compile_network(network, recipe, steps)
    # Usually one round: `fit` also ends where a small budget makes epochs shorter, and the next one
    # resumes from STATE, because Keras leaves the averaged weights in the network.
    while not _is_finished(progress := _resume(network, recipe, state, steps), recipe):
        rates.plan(progress.steps, progress.epochs)
        own = [
            FiniteLoss(recipe),
            BestEpoch(check, recipe, progress, _best(state)),
            TimeBudget(recipe, progress, rates),
            SavedState(recipe, progress, state),
        ]
        batches = Batches(feed, recipe, progress.steps, progress.done)
        _fit_epochs(network, batches, progress, show, [*own, *callbacks])
    _, values = load_state(_best(state), "begin anew without --resume")
    assign(network.variables, values)
    # Saved with the model, it would be thrice as large and need this project's classes to load.
    network.optimizer, network.compiled = None, False
    return progress


def _fit_epochs(
    network: keras.Model,
    batches: "Batches",
    progress: Progress,
    show: Callable[[Progress], None],
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Train NETWORK from the last finished epoch on, until it is finished or epochs get shorter."""
    report = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: show(progress))
    try:
        network.fit(
            batches,
            initial_epoch=progress.done,
            epochs=progress.epochs,
            steps_per_epoch=progress.steps,
            callbacks=[*callbacks, report],
            shuffle=False,
            verbose=0,
        )
    finally:
        if batches.failure:
            raise batches.failure


def predict(network: keras.Model, inputs: np.ndarray, batch: int = 64) -> np.ndarray:
    """NETWORK's outputs for INPUTS, (n, …): (n, …) float32, BATCH at a time."""
    starts = range(0, len(inputs), batch)
    parts = [np.asarray(network.predict_on_batch(inputs[i : i + batch])) for i in starts]
    width = network.output.shape[-1]
    return np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, width), np.float32)


def steps_of(feed: Feed, recipe: Recipe) -> int:
    """Steps of an epoch: whole batches only, but at least one."""
    return max(1, len(feed.weights) // recipe.batch_size)


def compile_network(network: keras.Model, recipe: Recipe, steps: int) -> PlannedRates:
    """Compile NETWORK, with weights averaged over about an epoch of STEPS; return its rates."""
    momentum = min(MOST_AVERAGED, 1 - 1 / max(10, steps)) if recipe.average else None
    rates = PlannedRates(recipe, steps)
    optimizer = recipe.build_optimizer(rates, momentum)
    if network.get_layer(index=-1).dtype_policy.name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    loss = keras.losses.CategoricalCrossentropy(
        from_logits=True, label_smoothing=recipe.label_smoothing
    )
    # A metric by its name makes its variables in the first step, which is then traced twice.
    accuracy = keras.metrics.CategoricalAccuracy(name="accuracy")
    network.compile(
        optimizer,
        loss,
        metrics=[accuracy],
        steps_per_execution=steps if recipe.fused_steps else 1,
        jit_compile=jit_compile(),
    )
    optimizer.build(network.trainable_variables)
    return rates


class Batches(keras.utils.PyDataset):
    """The batches of one epoch after the other: inputs, targets and weights; only whole batches.

    Order and mixup depend on the recipe's seed and the epoch. The data set never ends, because
    starting an iterator for each epoch takes longer than a head's epoch.

    Args:
        feed: The examples.
        recipe: Batch size, mixup and seed.
        steps: Batches of an epoch.
        first: The epoch to start with, from 0.
    """

    def __init__(self, feed: Feed, recipe: Recipe, steps: int, first: int) -> None:
        super().__init__()
        self.feed, self.recipe, self.steps, self.first = feed, recipe, steps, first
        self.failure: Failure | None = None
        self._begin(first)

    @property
    def num_batches(self) -> None:
        """None, for Keras: `steps_per_epoch` says where epochs end."""

    def _begin(self, epoch: int) -> None:
        """Draw the order of the examples, and what mixup blends, for EPOCH."""
        rng = np.random.default_rng((self.recipe.seed, epoch))
        count, mixup = len(self.feed.weights), self.recipe.mixup
        size = min(self.recipe.batch_size, count)
        self.epoch = epoch
        self.places = rng.permutation(count)[: self.steps * size].reshape(self.steps, size)
        self.blends = [
            (np.float32(rng.beta(mixup, mixup)), rng.permutation(size))
            for _ in range(self.steps if mixup else 0)
        ]

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        """Return batch INDEX, counted from the start of the first epoch."""
        epochs, step = divmod(index, self.steps)
        if self.epoch != self.first + epochs:
            self._begin(self.first + epochs)
        places = self.places[step]
        try:
            inputs = self.feed.inputs(places, self.epoch)
        except Failure as failure:
            # TensorFlow raises an error of its own instead.
            self.failure = failure
            raise
        batch = inputs, self.feed.targets[places], self.feed.weights[places]
        return _mixed(batch, *self.blends[step]) if self.blends else batch


def _mixed(
    batch: tuple[np.ndarray, ...], share: np.float32, other: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Blend each example with another one (Zhang et al., "mixup", 2018).

    Args:
        batch: Inputs, targets and weights, each of n rows.
        share: The weight of an example itself, from Beta(alpha, alpha).
        other: (n,) int, the row that each row is blended with.
    """
    return tuple(share * part.astype(np.float32) + (1 - share) * part[other] for part in batch)


class FiniteLoss(keras.callbacks.Callback):
    """Stop a training whose loss is NaN or infinite; Keras' own callback names no remedy."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe, self.epoch = recipe, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Remember EPOCH, from 0, for the message."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Raise Failure, with a remedy, where the loss is not finite."""
        if not math.isfinite(logs["loss"]):
            raise Failure(
                f"the loss became NaN in epoch {self.epoch + 1}; train with a smaller"
                f" {self.recipe.rate_option} than {self.recipe.rate:g}, or with"
                " --precision float32"
            )


class BestEpoch(keras.callbacks.Callback):
    """Measure each epoch on validation, and save the weights of the best one to PATH."""

    def __init__(self, check: Check, recipe: Recipe, progress: Progress, path: Path) -> None:
        super().__init__()
        self.check, self.recipe, self.progress, self.path = check, recipe, progress, path

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Add the figures of EPOCH to the progress; the best has the lowest calibrated loss."""
        network = self.model
        with averaged(network, self.recipe):
            _measure(network, self.check, self.progress, dict(logs))
            if self.progress.best == self.progress.done:
                save_state(self.path, self.recipe.said(), _values(network.variables))


class TimeBudget(keras.callbacks.Callback):
    """Plan the epochs into the time budget, and end the training in time or out of patience."""

    def __init__(self, recipe: Recipe, progress: Progress, rates: PlannedRates) -> None:
        super().__init__()
        self.recipe, self.progress, self.rates = recipe, progress, rates
        self.began = self.timed_from = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the clock of EPOCH."""
        self.began = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Time some steps of the first epoch and plan; end an epoch that became shorter."""
        progress = self.progress
        if progress.done == 0 and batch == TIMED.start:
            self.timed_from = time.monotonic()
        if progress.done == 0 and batch == TIMED.stop:
            seconds = (time.monotonic() - self.timed_from) / len(TIMED)
            self._plan(*self.recipe.plan(seconds, progress.steps))
        if batch + 1 >= progress.steps:
            # At the end of an epoch of full length, `fit` goes on to the next one.
            self.model.stop_training = progress.steps < self.params["steps"]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Add the time that EPOCH took, and stop where the training is finished."""
        progress = self.progress
        progress.seconds += time.monotonic() - self.began
        progress.epochs = self.recipe.epochs_left(progress.done, progress.epochs, progress.seconds)
        self.model.stop_training |= _is_finished(progress, self.recipe)

    def _plan(self, epochs: int, steps: int) -> None:
        self.progress.epochs, self.progress.steps = epochs, steps
        if self.rates.plan(steps, epochs) and keras.backend.backend() == "jax":
            # JAX compiles the table of rates into the training step.
            self.model.make_train_function(force=True)


class SavedState(keras.callbacks.Callback):
    """Save all that a killed training resumes from; `BackupAndRestore` leaves random states out."""

    def __init__(self, recipe: Recipe, progress: Progress, path: Path) -> None:
        super().__init__()
        self.recipe, self.progress, self.path = recipe, progress, path

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write the state after EPOCH to the path."""
        said = {"recipe": self.recipe.said(), **vars(self.progress)}
        save_state(self.path, said, _values(training_variables(self.model)))


def _best(state: Path) -> Path:
    return state.with_name(f"best-{state.name}")


def _values(variables: Iterable[keras.Variable]) -> Iterator[np.ndarray]:
    return (keras.ops.convert_to_numpy(variable) for variable in variables)


def _resume(network: keras.Model, recipe: Recipe, state: Path, steps: int) -> Progress:
    """Restore NETWORK and its optimizer from STATE, if it is there; return the progress so far."""
    if not state.is_file():
        return Progress(recipe.epochs, steps)
    said, values = load_state(state, "begin anew without --resume")
    variables = training_variables(network)
    if said.pop("recipe") != recipe.said() or len(values) != len(variables):
        raise Failure(f"--resume: {state} is of another training; begin anew in another --out")
    assign(variables, values)
    return Progress(**said)


def _is_finished(progress: Progress, recipe: Recipe) -> bool:
    """Whether all planned epochs are done, or the last ones brought nothing better."""
    out_of_patience = progress.done - progress.best >= recipe.patience > 0
    return progress.done >= progress.epochs or out_of_patience


@contextmanager
def averaged(network: keras.Model, recipe: Recipe) -> Iterator[None]:
    """Give NETWORK its averaged weights, where RECIPE asks for them, and restore it afterwards.

    `keras.callbacks.SwapEMAWeights` swaps by sums on TensorFlow, which rounds the weights.
    """
    own = list(_values(network.trainable_variables)) if recipe.average else []
    if own:
        network.optimizer.finalize_variable_values(network.trainable_variables)
        # In JAX they are now the average's own arrays, which the next step would give away.
        assign(network.trainable_variables, list(_values(network.trainable_variables)))
    yield
    if own:
        assign(network.trainable_variables, own)


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
