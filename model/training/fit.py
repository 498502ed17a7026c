"""Train a network with `keras.Model.fit`; callbacks save a state from which training resumes."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from dataset.errors import Failure
from dataset.utils.keras_backend import (
    assign,
    from_first_process,
    jit_compile,
    load_state,
    process_number,
    save_state,
    training_variables,
    undistributed,
)
from model.data.loading import FacetGroups
from model.evaluation.calibration import fit_temperature, negative_log_likelihood
from model.training.config import FitConfig, TableSchedule

# Steps of the first epoch that are timed to plan the epochs into the time budget.
TIMED_STEPS = range(3, 9)
# The weights are averaged over about an epoch, so that the last photos do not weigh more.
MAX_EMA_MOMENTUM = 0.999
# Remedy in messages about a state file that can't be used.
RESTART = "start again without --resume"


class TrainingSet(Protocol):
    """Training examples.

    Attributes:
        targets: Target probabilities, float array of shape (n, classes), or those of facets as
            `FacetGroups.encode` returns them.
        weights: Example weights, float array of shape (n,).
    """

    @property
    def targets(self) -> np.ndarray: ...

    @property
    def weights(self) -> np.ndarray: ...

    def inputs(self, indices: np.ndarray, epoch: int) -> np.ndarray:
        """Return the inputs of some examples, of shape (batch, ...), as augmented in an epoch."""


@dataclass(frozen=True)
class ValidationSet:
    """Validation examples.

    Attributes:
        logits: Returns the logits of all examples, of shape (n, classes), by a network.
        targets: Class indices of shape (n,), or targets of facets of shape (n, facets); may be
            empty.
        facets: The facets of the labels, if photos can have several labels.
    """

    logits: Callable[[keras.Model], np.ndarray]
    targets: np.ndarray
    facets: FacetGroups | None = None

    def by_facet(self, logits: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return logits and class indices of each facet's labelled examples, or of all examples."""
        if self.facets is None:
            return [(logits, self.targets)]
        return [part for part in self.facets.by_facet(logits, self.targets) if len(part[1])]


@dataclass
class FitProgress:
    """The state of a fitting.

    Attributes:
        epochs: Planned number of epochs.
        steps: Steps per epoch.
        history: Metric -> its value after each finished epoch.
        best_epoch: The epoch whose weights are kept, from 1.
        best_loss: Calibrated validation loss of that epoch.
        seconds: Duration of the finished epochs.
    """

    epochs: int
    steps: int
    history: dict[str, list[float]] = field(default_factory=dict)
    best_epoch: int = 0
    best_loss: float = math.inf
    seconds: float = 0.0

    @property
    def done(self) -> int:
        """Number of finished epochs."""
        return len(self.history.get("loss", ()))


def fit(
    network: keras.Model,
    training_set: TrainingSet,
    validation_set: ValidationSet,
    config: FitConfig,
    state: Path,
    on_epoch_end: Callable[[FitProgress], None],
    callbacks: Sequence[keras.callbacks.Callback] = (),
    distribution: keras.distribution.DataParallel | None = None,
) -> FitProgress:
    """Train a network and leave it with the weights of its best epoch.

    The best epoch has the lowest calibrated validation loss; without validation photos it is the
    last one.

    With a distribution, each device computes its part of each batch, and all have equal weights.
    Several processes call this function with equal arguments, start from the weights of the first
    process, and all get the same validation result.

    Args:
        network: Pixels or features -> logits.
        training_set: The training examples.
        validation_set: The validation examples.
        config: Optimizer, schedule and regularization.
        state: The file to resume from, written after each epoch; `best-` beside it has the weights
            of the best epoch.
        on_epoch_end: Called after each epoch.
        callbacks: More callbacks of Keras.
        distribution: Distributes the batches over several devices.

    Raises:
        Failure: The loss became NaN, a photo can no longer be read, or the state is broken or
            belongs to another training.
    """
    if distribution is not None:
        with distribution.scope():
            # Variables are placed on all devices when they are created.
            replica = keras.models.clone_model(network)
            assign(replica.variables, from_first_process(_arrays(network.variables)))
            progress = fit(
                replica, training_set, validation_set, config, state, on_epoch_end, callbacks
            )
            trained = list(_arrays(replica.variables))
        assign(network.variables, trained)
        return progress
    steps = steps_per_epoch(training_set, config)
    schedule = compile_network(network, config, steps, validation_set.facets)
    # Usually one round: `fit` also ends if a small budget makes epochs shorter, and the next round
    # resumes from the state file, because Keras leaves the averaged weights in the network.
    while not _is_finished(progress := _resume(network, config, state, steps), config):
        schedule.plan(progress.steps, progress.epochs)
        own_callbacks = [
            FailOnNaN(config),
            BestEpoch(validation_set, config, progress, _best_path(state)),
            TimeBudget(config, progress, schedule),
            SaveState(config, progress, state),
        ]
        batches = BatchSequence(training_set, config, progress.steps, progress.done)
        _fit_epochs(network, batches, progress, on_epoch_end, [*own_callbacks, *callbacks])
    _, values = load_state(_best_path(state), RESTART)
    assign(network.variables, values)
    # Saved with the optimizer, a model is three times as large and needs this project's classes.
    network.optimizer, network.compiled = None, False
    return progress


def _fit_epochs(
    network: keras.Model,
    batches: "BatchSequence",
    progress: FitProgress,
    on_epoch_end: Callable[[FitProgress], None],
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Train from the last finished epoch until training is finished or epochs get shorter."""
    report = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: on_epoch_end(progress))
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


def predict_in_batches(network: keras.Model, inputs: np.ndarray, batch: int = 64) -> np.ndarray:
    """Return a network's float32 outputs for inputs of shape (n, ...)."""
    starts = range(0, len(inputs), batch)
    outputs = [np.asarray(network.predict_on_batch(inputs[i : i + batch])) for i in starts]
    if not outputs:
        return np.zeros((0, network.output.shape[-1]), np.float32)
    return np.concatenate(outputs).astype(np.float32)


def steps_per_epoch(training_set: TrainingSet, config: FitConfig) -> int:
    """Return the number of full batches in an epoch, at least 1."""
    return max(1, len(training_set.weights) // config.batch_size)


def compile_network(
    network: keras.Model, config: FitConfig, steps: int, facets: FacetGroups | None = None
) -> TableSchedule:
    """Compile a network and return its learning rate schedule.

    Args:
        network: The network, with logits as outputs.
        config: Optimizer, schedule and regularization.
        steps: Steps per epoch.
        facets: The facets of the labels, if photos can have several labels.
    """
    momentum = min(MAX_EMA_MOMENTUM, 1 - 1 / max(10, steps)) if config.ema else None
    schedule = TableSchedule(config, steps)
    optimizer = config.build_optimizer(schedule, momentum)
    if network.get_layer(index=-1).dtype_policy.name == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    # A metric given by name creates its variables in the first step, which is then traced twice.
    if facets is None:
        loss = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=config.label_smoothing
        )
        accuracy = keras.metrics.CategoricalAccuracy(name="accuracy")
    else:
        loss = FacetCrossEntropy(facets, config.label_smoothing)
        accuracy = keras.metrics.MeanMetricWrapper(
            partial(facet_accuracy, facets=facets), name="accuracy"
        )
    network.compile(
        optimizer,
        loss,
        metrics=[accuracy],
        steps_per_execution=steps if config.fused_steps else 1,
        jit_compile=jit_compile(),
    )
    optimizer.build(network.trainable_variables)
    return schedule


def _facet_parts(targets: Any, logits: Any, facets: FacetGroups) -> Iterator[tuple[Any, Any]]:
    """Yield the encoded targets and the logits of each facet, tensors of shape (batch, size)."""
    start = 0
    for members in facets.members:
        end = start + len(members)
        yield targets[:, start:end], keras.ops.take(logits, list(members), axis=1)
        start = end


class FacetCrossEntropy(keras.losses.Loss):
    """Cross entropy of labels with facets: the sum over the labelled facets of a photo.

    Targets are those of `FacetGroups.encode`: zeros for an unlabelled facet, which adds nothing.

    Args:
        facets: The facets.
        label_smoothing: Fraction of each target that is spread over the labels of its facet.
    """

    def __init__(self, facets: FacetGroups, label_smoothing: float) -> None:
        super().__init__(name="facet_cross_entropy")
        self.facets, self.label_smoothing = facets, label_smoothing

    def call(self, targets: Any, logits: Any) -> Any:
        """Return the loss of each example, shape (batch,)."""
        ops, smoothing, total = keras.ops, self.label_smoothing, 0.0
        logits = ops.cast(logits, "float32")
        for own, outputs in _facet_parts(ops.cast(targets, "float32"), logits, self.facets):
            spread = ops.mean(own, axis=1, keepdims=True)
            smoothed = (1 - smoothing) * own + smoothing * spread
            total -= ops.sum(smoothed * ops.log_softmax(outputs, axis=1), axis=1)
        return total


def facet_accuracy(targets: Any, logits: Any, facets: FacetGroups) -> Any:
    """Return the fraction of each photo's labelled facets that is predicted correctly.

    Args:
        targets: Targets of `FacetGroups.encode`, shape (batch, sum of sizes).
        logits: Tensor of shape (batch, labels).
        facets: The facets.

    Returns:
        Tensor of shape (batch,).
    """
    ops, correct, known = keras.ops, 0.0, 0.0
    for own, outputs in _facet_parts(targets, logits, facets):
        is_known = ops.cast(ops.max(own, axis=1) > 0, "float32")
        is_correct = ops.equal(ops.argmax(own, axis=1), ops.argmax(outputs, axis=1))
        correct += ops.cast(is_correct, "float32") * is_known
        known += is_known
    return correct / ops.maximum(known, 1.0)


class BatchSequence(keras.utils.PyDataset):
    """The full batches of one epoch after another: inputs, targets and weights.

    Order and mixup depend on the seed and the epoch. The data set never ends, because starting an
    iterator for each epoch takes longer than an epoch of a head.

    Args:
        training_set: The examples.
        config: Batch size, mixup and seed.
        steps: Batches per epoch.
        first_epoch: The epoch to start with, from 0.
    """

    def __init__(
        self, training_set: TrainingSet, config: FitConfig, steps: int, first_epoch: int
    ) -> None:
        super().__init__()
        self.training_set, self.config = training_set, config
        self.steps, self.first_epoch = steps, first_epoch
        self.failure: Failure | None = None
        # The processes of a distribution load a part of each batch each.
        is_distributed = keras.distribution.distribution() is not None
        self.process, self.processes = process_number() if is_distributed else (0, 1)
        self._shuffle(first_epoch)

    @property
    def num_batches(self) -> None:
        """None: for Keras, `steps_per_epoch` defines where epochs end."""

    def _shuffle(self, epoch: int) -> None:
        """Draw the order of the examples, and mixup's weights and pairs, for an epoch."""
        rng = np.random.default_rng((self.config.seed, epoch))
        count, mixup = len(self.training_set.weights), self.config.mixup
        size = min(self.config.batch_size, count)
        self.epoch = epoch
        self.order = rng.permutation(count)[: self.steps * size].reshape(self.steps, size)
        self.mixups = [
            (np.float32(rng.beta(mixup, mixup)), rng.permutation(size))
            for _ in range(self.steps if mixup else 0)
        ]

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        """Return a batch by its index since the start of the first epoch."""
        epochs, step = divmod(index, self.steps)
        if self.epoch != self.first_epoch + epochs:
            self._shuffle(self.first_epoch + epochs)
        indices = self.order[step]
        own = np.array_split(np.arange(len(indices)), self.processes)[self.process]
        batch = self._examples(indices[own])
        if not self.mixups:
            return batch
        weight, partners = self.mixups[step]
        return _mix_up(batch, self._examples(indices[partners[own]]), weight)

    def _examples(self, indices: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return inputs, targets and weights of examples."""
        try:
            inputs = self.training_set.inputs(indices, self.epoch)
        except Failure as failure:
            # TensorFlow raises an error of its own instead.
            self.failure = failure
            raise
        return inputs, self.training_set.targets[indices], self.training_set.weights[indices]


def _mix_up(
    batch: tuple[np.ndarray, ...], partners: tuple[np.ndarray, ...], weight: np.float32
) -> tuple[np.ndarray, ...]:
    """Mix each example with another one.

    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018,
    https://arxiv.org/abs/1710.09412.

    Args:
        batch: Inputs, targets and weights of n examples.
        partners: Those of the examples that they are mixed with.
        weight: Weight of the example itself, from Beta(alpha, alpha).
    """
    return tuple(
        weight * own.astype(np.float32) + (1 - weight) * other
        for own, other in zip(batch, partners, strict=True)
    )


class FailOnNaN(keras.callbacks.Callback):
    """Stop a training whose loss is NaN or infinite with a message that names a remedy."""

    def __init__(self, config: FitConfig) -> None:
        super().__init__()
        self.config, self.epoch = config, 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not math.isfinite(logs["loss"]):
            raise Failure(
                f"the loss became NaN in epoch {self.epoch + 1}; train with a"
                f" {self.config.rate_option} below {self.config.learning_rate:g}, or with"
                " --precision float32"
            )


class BestEpoch(keras.callbacks.Callback):
    """Validate after each epoch, and save the weights of the best epoch.

    Args:
        validation_set: The validation examples.
        config: How the network is fitted.
        progress: Updated with the metrics of each epoch.
        path: Where the weights are saved.
    """

    def __init__(
        self, validation_set: ValidationSet, config: FitConfig, progress: FitProgress, path: Path
    ) -> None:
        super().__init__()
        self.validation_set, self.config = validation_set, config
        self.progress, self.path = progress, path

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        network = self.model
        with use_ema_weights(network, self.config):
            validate_epoch(network, self.validation_set, self.progress, dict(logs))
            if self.progress.best_epoch == self.progress.done:
                save_state(self.path, self.config.fixed_values(), _arrays(network.variables))


class TimeBudget(keras.callbacks.Callback):
    """Limit the epochs to the time budget, and stop early without improvement (patience).

    Args:
        config: Time budget and patience.
        progress: Updated with the plan and the duration of each epoch.
        schedule: Updated with the plan.
    """

    def __init__(self, config: FitConfig, progress: FitProgress, schedule: TableSchedule) -> None:
        super().__init__()
        self.config, self.progress, self.schedule = config, progress, schedule
        self.epoch_start = self.timing_start = 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.epoch_start = time.monotonic()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        progress = self.progress
        if progress.done == 0 and batch == TIMED_STEPS.start:
            self.timing_start = time.monotonic()
        if progress.done == 0 and batch == TIMED_STEPS.stop:
            seconds = (time.monotonic() - self.timing_start) / len(TIMED_STEPS)
            self._plan(*self.config.plan(seconds, progress.steps))
        if batch + 1 >= progress.steps:
            # After an epoch of full length, `fit` continues with the next one.
            self.model.stop_training = progress.steps < self.params["steps"]

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        progress = self.progress
        progress.seconds += time.monotonic() - self.epoch_start
        progress.epochs = self.config.epochs_in_budget(
            progress.done, progress.epochs, progress.seconds
        )
        self.model.stop_training |= _is_finished(progress, self.config)

    def _plan(self, epochs: int, steps: int) -> None:
        self.progress.epochs, self.progress.steps = epochs, steps
        if self.schedule.plan(steps, epochs) and keras.backend.backend() == "jax":
            # JAX compiles the table of learning rates into the training step.
            self.model.make_train_function(force=True)


class SaveState(keras.callbacks.Callback):
    """Save everything a resumed training needs; `BackupAndRestore` omits random states.

    Args:
        config: Saved to detect that a state belongs to another training.
        progress: Saved with the variables.
        path: The state file.
    """

    def __init__(self, config: FitConfig, progress: FitProgress, path: Path) -> None:
        super().__init__()
        self.config, self.progress, self.path = config, progress, path

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        state = {"config": self.config.fixed_values(), **vars(self.progress)}
        save_state(self.path, state, _arrays(training_variables(self.model)))


def _best_path(state: Path) -> Path:
    return state.with_name(f"best-{state.name}")


def _arrays(variables: Iterable[keras.Variable]) -> Iterator[np.ndarray]:
    return (keras.ops.convert_to_numpy(variable) for variable in variables)


def _resume(network: keras.Model, config: FitConfig, path: Path, steps: int) -> FitProgress:
    """Restore a network and its optimizer from a state file, if there is one."""
    if not path.is_file():
        return FitProgress(config.epochs, steps)
    state, values = load_state(path, RESTART)
    variables = training_variables(network)
    is_other = state.pop("config", None) != config.fixed_values() or len(values) != len(variables)
    # An earlier version had other names.
    if is_other or state.keys() != {one.name for one in fields(FitProgress)}:
        raise Failure(f"--resume: {path} belongs to another training; start again in another --out")
    assign(variables, values)
    return FitProgress(**state)


def _is_finished(progress: FitProgress, config: FitConfig) -> bool:
    """Return whether all planned epochs are done, or the patience is exhausted."""
    is_out_of_patience = progress.done - progress.best_epoch >= config.patience > 0
    return progress.done >= progress.epochs or is_out_of_patience


@contextmanager
def use_ema_weights(network: keras.Model, config: FitConfig) -> Iterator[None]:
    """Give a network its averaged weights within the block, if `config` uses them.

    `keras.callbacks.SwapEMAWeights` swaps by addition on TensorFlow, which rounds the weights.
    """
    own = list(_arrays(network.trainable_variables)) if config.ema else []
    if own:
        network.optimizer.finalize_variable_values(network.trainable_variables)
        # In JAX these are the arrays of the average itself, which the next step would donate.
        assign(network.trainable_variables, list(_arrays(network.trainable_variables)))
    yield
    if own:
        assign(network.trainable_variables, own)


def weighted_mean(values: Sequence[float], weights: Sequence[float]) -> float:
    """Return the weighted mean of values; that of one value is the value itself."""
    return values[0] if len(values) == 1 else float(np.average(values, weights=weights))


def validate_epoch(
    network: keras.Model,
    validation_set: ValidationSet,
    progress: FitProgress,
    metrics: dict[str, float],
) -> None:
    """Add the metrics of an epoch, with those on the validation split, to the progress."""
    if len(validation_set.targets):
        with undistributed():
            logits = validation_set.logits(network)
        parts = validation_set.by_facet(logits)
        counts = [len(targets) for _, targets in parts]
        temperatures = [fit_temperature(*part) for part in parts]
        calibrated = [
            negative_log_likelihood(*part, temperature)
            for part, temperature in zip(parts, temperatures, strict=True)
        ]
        accuracies = [float((logits.argmax(axis=1) == own).mean()) for logits, own in parts]
        calibrated_loss = weighted_mean(calibrated, counts)
        metrics["val_loss"] = weighted_mean(
            [negative_log_likelihood(*part) for part in parts], counts
        )
        metrics["val_accuracy"] = weighted_mean(accuracies, counts)
    else:
        calibrated_loss = -progress.done - 1.0
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        if name in metrics:
            progress.history.setdefault(name, []).append(metrics[name])
    if calibrated_loss < progress.best_loss:
        progress.best_epoch, progress.best_loss = progress.done, calibrated_loss


class TensorBoardWriter:
    """Write TensorBoard event files below a folder; does nothing without TensorFlow."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writers: dict[str, Any] = {}

    def write(self, stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
        """Write the metrics of an epoch (from 1) of a stage."""
        try:
            import tensorflow as tf
        except ImportError:
            return
        # The format of TensorBoard's `scalar`, which needs TensorBoard installed.
        metadata = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars")
        )
        if stage not in self.writers:
            path = str(self.folder / stage.replace(" ", "-"))
            self.writers[stage] = tf.summary.create_file_writer(path)
        writer = self.writers[stage]
        with writer.as_default(step=epoch):
            for name, value in metrics.items():
                tf.summary.write(name, tf.constant(value, tf.float32), metadata=metadata)
        writer.flush()
