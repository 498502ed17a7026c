"""Options of a training, and how a network is fitted: optimizer, learning rate, regularization."""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from dataset.errors import BadInput
from model.data.augmentation import ImageAugmentation, parse_augmentation

# The lowest learning rate of a schedule, as a fraction of the highest.
MIN_RATE_FRACTION = 0.01
SCHEDULE_STEPS = 3
# Fraction of a time budget for training steps (the rest is validation), and the fewest epochs.
TRAINING_FRACTION, MIN_EPOCHS = 0.85, 3


@dataclass(frozen=True)
class FitConfig:
    """How a network is fitted.

    Attributes:
        optimizer: `sgd`, `adam` or `adamw`.
        learning_rate: The highest learning rate.
        epochs: Epochs at most.
        batch_size: Examples per step.
        momentum: Momentum of SGD.
        weight_decay: Decoupled weight decay.
        schedule: Learning rate after the warm-up: `cosine`, `step` (a tenth at each third) or
            `constant`.
        warmup_epochs: Epochs of linear warm-up.
        patience: Epochs without a lower validation loss before training stops; 0: no limit.
        label_smoothing: Fraction of each target that is spread over all classes.
        mixup: Alpha of mixup's Beta distribution; 0: no mixup.
        ema: Use an exponential moving average of the weights, over about one epoch.
        time_budget: Time budget for all epochs in seconds; 0: no limit.
        seed: Random seed.
        rate_option: The command's option that sets the learning rate, for messages.
        fused_steps: Run an epoch in one call (Keras' `steps_per_execution`), which is faster if a
            step takes milliseconds. Only without a time budget.
    """

    optimizer: str
    learning_rate: float
    epochs: int
    batch_size: int = 32
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "cosine"
    warmup_epochs: float = 0.5
    patience: int = 0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    ema: bool = False
    time_budget: float = 0.0
    seed: int = 0
    rate_option: str = "--learning-rate"
    fused_steps: bool = False

    def fixed_values(self) -> dict[str, Any]:
        """Return the values that must not change when training resumes: all but the budget."""
        return {name: value for name, value in asdict(self).items() if name != "time_budget"}

    def build_optimizer(
        self, schedule: "TableSchedule", ema_momentum: float | None
    ) -> keras.optimizers.Optimizer:
        """Return the optimizer.

        Args:
            schedule: Learning rate of each step.
            ema_momentum: Momentum of the moving average of the weights; None: no average.
        """
        shared = {
            "use_ema": ema_momentum is not None,
            "ema_momentum": 0.99 if ema_momentum is None else ema_momentum,
            "weight_decay": self.weight_decay or None,
        }
        if self.optimizer == "sgd":
            return keras.optimizers.SGD(
                schedule, momentum=self.momentum, nesterov=self.momentum > 0, **shared
            )
        # Keras' AdamW is its Adam, whose weight decay is decoupled, but refuses to have none.
        return keras.optimizers.Adam(schedule, **shared)

    def learning_rate_at(self, step: int, steps: int, epochs: int) -> float:
        """Return the learning rate of a step.

        Args:
            step: Index of the step, from 0.
            steps: Steps per epoch.
            epochs: Number of epochs.
        """
        warmup_steps = self.warmup_epochs * steps
        if step < warmup_steps:
            return self.learning_rate * (step + 1) / (warmup_steps + 1)
        fraction = min(1.0, (step - warmup_steps) / max(1.0, steps * epochs - warmup_steps))
        match self.schedule:
            case "cosine":
                cosine = 0.5 * (1 + math.cos(math.pi * fraction))
                return self.learning_rate * (MIN_RATE_FRACTION + (1 - MIN_RATE_FRACTION) * cosine)
            case "step":
                drops = min(SCHEDULE_STEPS - 1, math.floor(fraction * SCHEDULE_STEPS))
                return self.learning_rate * 0.1**drops
            case _:
                return self.learning_rate

    def plan(self, step_seconds: float, steps: int) -> tuple[int, int]:
        """Return the number of epochs, and of steps per epoch, that fit the time budget.

        If not even MIN_EPOCHS fit, the epochs get shorter and use a part of the examples each.

        Args:
            step_seconds: Duration of a step.
            steps: Steps per full epoch.
        """
        if not self.time_budget:
            return self.epochs, steps
        total = int(self.time_budget * TRAINING_FRACTION / step_seconds)
        epochs = min(self.epochs, MIN_EPOCHS)
        if total < epochs * steps:
            return epochs, max(1, total // epochs)
        return min(self.epochs, total // steps), steps

    def epochs_in_budget(self, done: int, planned: int, seconds: float) -> int:
        """Return how many epochs in total fit the time budget.

        Args:
            done: Finished epochs.
            planned: Planned epochs in total.
            seconds: Duration of the finished epochs.
        """
        if not self.time_budget:
            return planned
        return min(planned, done + max(0, int((self.time_budget - seconds) / (seconds / done))))


class TableSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of each step, looked up in a table.

    Keras compiles its own schedules, with their number of steps, into the training step. The time
    budget changes that number during the first epoch; a table can be replaced without compiling.

    Args:
        config: Defines the learning rate as a function of the step.
        steps: Steps per epoch.
    """

    def __init__(self, config: FitConfig, steps: int) -> None:
        super().__init__()
        self.config, self.planned = config, (steps, config.epochs)
        self.table = keras.Variable(
            np.zeros(steps * config.epochs), dtype="float32", trainable=False, name="rates"
        )
        self._fill()

    def plan(self, steps: int, epochs: int) -> bool:
        """Fill the table for a number of steps per epoch and of epochs.

        Returns:
            Whether the table has changed.
        """
        has_changed = self.planned != (steps, epochs)
        self.planned = steps, epochs
        if has_changed:
            self._fill()
        return has_changed

    def _fill(self) -> None:
        count = self.table.shape[0]
        rates = [self.config.learning_rate_at(step, *self.planned) for step in range(count)]
        self.table.assign(np.array(rates, np.float32))

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step, counted from 0."""
        last = self.table.shape[0] - 1
        return keras.ops.take(self.table, keras.ops.minimum(keras.ops.cast(step, "int32"), last))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {"config": asdict(self.config), "steps": self.planned[0]}


HEAD_EPOCHS, FINE_TUNING_EPOCHS, SCRATCH_EPOCHS = 60, 12, 30
# Highest learning rates by optimizer: of a head on standardized features, of a pre-trained network,
# and of a randomly initialized one, which diverges at SGD's usual 0.05.
HEAD_LEARNING_RATES = {"sgd": 5e-3, "adam": 1e-3, "adamw": 1e-3}
FINE_TUNING_LEARNING_RATES = {"sgd": 5e-3, "adam": 1e-4, "adamw": 1e-4}
SCRATCH_LEARNING_RATES = {"sgd": 5e-3, "adam": 1e-3, "adamw": 1e-3}
DEFAULT_OPTIMIZER = "adamw"
LABEL_SMOOTHING = 0.1
# Mixup's alpha with --noise-robust, unless --mixup is given.
NOISE_ROBUST_MIXUP = 0.2


@dataclass(frozen=True)
class TrainOptions:
    """Options of `train-model`; `train-model --help` describes each.

    Attributes:
        fine_tune: Number of inception blocks to fine-tune, from the top; None: all, 0: none.
        parts: Parts of a photo whose features the head reads: `whole` or `halves`.
        feature_layers: Blocks whose outputs the head reads; empty: chosen on the validation split.
        learning_rate: Highest learning rate of fine-tuning; None: the stage's default.
        head_learning_rate: Highest learning rate of the linear probe; None: its default.
        head_epochs: Epochs of the linear probe at most; None: its default, or a closed form.
        epochs: Epochs of fine-tuning at most; None: the stage's default.
        time_budget: Seconds for the whole training; 0: no limit.
        distribute: Fine-tune, or train from scratch, on all devices (JAX).
        allow_leaks: Train although test photos are among the train and validation photos.
    """

    data: Path
    out: Path
    weights: str = "imagenet"
    fine_tune: int | None = None
    feature_layers: tuple[str, ...] = ()
    optimizer: str = DEFAULT_OPTIMIZER
    learning_rate: float | None = None
    head_learning_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float = 0.02
    schedule: str = "cosine"
    warmup_epochs: float = 0.5
    epochs: int | None = None
    head_epochs: int | None = None
    patience: int = 4
    batch_size: int = 32
    image_size: int = 299
    parts: str = "whole"
    augment: str = "mirror,rotate=15,scale=0.2,colour=0.2"
    views: int = 2
    label_smoothing: float = LABEL_SMOOTHING
    mixup: float = 0.0
    ema: bool = True
    class_weights: bool = True
    tta: bool = True
    noise_robust: bool = False
    precision: str = "auto"
    time_budget: float = 3600.0
    cache: Path | None = None
    seed: int = 0
    folds: int = 0
    allow_leaks: bool = False
    distribute: bool = False
    resume: bool = False

    @property
    def augmentation(self) -> ImageAugmentation:
        """The parsed value of `augment`."""
        return parse_augmentation(self.augment.split(","))

    def distribution(self) -> keras.distribution.DataParallel | None:
        """Return how batches are distributed over the devices; None if they are not.

        Raises:
            BadInput: A batch can't be divided among the devices.
        """
        if not self.distribute:
            return None
        devices = len(keras.distribution.list_devices())
        if self.batch_size % devices:
            raise BadInput(
                f"--batch-size {self.batch_size}: {devices} devices can't share a batch equally;"
                f" choose a multiple of {devices}"
            )
        return keras.distribution.DataParallel(auto_shard_dataset=False)

    @property
    def from_scratch(self) -> bool:
        """Whether backbone and head are trained together from random weights."""
        return self.weights == "none"

    def can_solve_head(self) -> bool:
        """Return whether no option asks for a head that is fitted by gradient descent."""
        is_default = self.head_epochs is None and self.head_learning_rate is None
        return (
            is_default
            and self.optimizer == DEFAULT_OPTIMIZER
            and self.fine_tune == 0
            and not self.head_config().mixup
        )

    def head_config(self) -> FitConfig:
        """Return how the head of a frozen backbone is fitted."""
        learning_rate = self.head_learning_rate or HEAD_LEARNING_RATES[self.optimizer]
        epochs = self.head_epochs or HEAD_EPOCHS
        config = self._config(learning_rate, epochs, patience=max(8, epochs // 3))
        return replace(config, rate_option="--head-learning-rate", fused_steps=True)

    def fine_tuning_config(self, seconds: float) -> FitConfig:
        """Return how backbone and head are fine-tuned within a number of seconds (0: no limit)."""
        learning_rate = self.learning_rate or FINE_TUNING_LEARNING_RATES[self.optimizer]
        epochs = self.epochs or FINE_TUNING_EPOCHS
        return self._config(learning_rate, epochs, self.patience, seconds)

    def scratch_config(self, seconds: float) -> FitConfig:
        """Return how a network is trained from scratch within a number of seconds (0: no limit).

        There is no early stopping: the last epochs, at low learning rates, are the best ones.
        """
        learning_rate = self.learning_rate or SCRATCH_LEARNING_RATES[self.optimizer]
        epochs = self.epochs or SCRATCH_EPOCHS
        return self._config(learning_rate, epochs, patience=0, time_budget=seconds)

    def _config(
        self, learning_rate: float, epochs: int, patience: int, time_budget: float = 0.0
    ) -> FitConfig:
        return FitConfig(
            optimizer=self.optimizer,
            learning_rate=learning_rate,
            epochs=epochs,
            batch_size=self.batch_size,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            warmup_epochs=self.warmup_epochs,
            patience=patience,
            label_smoothing=self.label_smoothing,
            mixup=self.mixup or (NOISE_ROBUST_MIXUP if self.noise_robust else 0.0),
            ema=self.ema,
            time_budget=time_budget,
            seed=self.seed,
        )
