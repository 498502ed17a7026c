"""How a network is fitted: optimizer, rates, and what keeps it from learning by heart."""

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from model.data.augmentation import Augmentation, parse

# A schedule's lowest rate, as a share of the highest.
FLOOR = 0.01
DROPS = 3
# Share of a budget that teaching may take (the rest is measuring), and the fewest epochs of it.
TEACHING, LEAST_EPOCHS = 0.85, 3


@dataclass(frozen=True)
class Recipe:
    """A fitting. `rate`: the highest; `warm_up`: epochs until it is reached, by equal steps.

    `schedule`: after it, `cosine`, `step` (a tenth at each third) or `constant`. `patience`: epochs
    without a better one, then it ends; 0: never. `average`: of the weights, over about an epoch.
    `mixup`: alpha of its Beta, 0: none. `seconds`: a budget that `epochs` are fitted to; 0: none.
    `rate_option`: what sets its rate. `fused_steps`: run an epoch in one call (Keras'
    `steps_per_execution`), which is faster where a step takes milliseconds; without a budget only.
    """

    optimizer: str
    rate: float
    epochs: int
    batch_size: int = 32
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "cosine"
    warm_up: float = 0.5
    patience: int = 0
    label_smoothing: float = 0.0
    mixup: float = 0.0
    average: bool = False
    seconds: float = 0.0
    seed: int = 0
    rate_option: str = "--learning-rate"
    fused_steps: bool = False

    def said(self) -> dict[str, Any]:
        """What must be the same when a fitting goes on; its budget may be another."""
        return {name: value for name, value in asdict(self).items() if name != "seconds"}

    def build_optimizer(
        self, rates: "PlannedRates", momentum_of_average: float | None
    ) -> keras.optimizers.Optimizer:
        """The optimizer, its weights averaged with MOMENTUM_OF_AVERAGE where there is one."""
        averages = momentum_of_average is not None
        shared = {
            "use_ema": averages,
            "ema_momentum": momentum_of_average if averages else 0.99,
            "weight_decay": self.weight_decay or None,
        }
        match self.optimizer:
            case "sgd":
                return keras.optimizers.SGD(
                    rates, momentum=self.momentum, nesterov=self.momentum > 0, **shared
                )
            case "adam":
                return keras.optimizers.Adam(rates, **shared)
            case _:
                return keras.optimizers.AdamW(rates, **shared)

    def rate_at(self, step: int, steps: int, epochs: int) -> float:
        """The rate of STEP, from 0, where an epoch has STEPS and there are EPOCHS in all."""
        warm = self.warm_up * steps
        if step < warm:
            return self.rate * (step + 1) / (warm + 1)
        part = min(1.0, (step - warm) / max(1.0, steps * epochs - warm))
        match self.schedule:
            case "cosine":
                return self.rate * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * part)))
            case "step":
                return self.rate * 0.1 ** min(DROPS - 1, math.floor(part * DROPS))
            case _:
                return self.rate

    def plan(self, seconds: float, steps: int) -> tuple[int, int]:
        """Epochs and steps of each that fit the budget, where a step takes SECONDS.

        Where not even a few epochs fit, they become shorter ones, of a part of the examples.
        """
        if not self.seconds:
            return self.epochs, steps
        total = int(self.seconds * TEACHING / seconds)
        least = min(self.epochs, LEAST_EPOCHS)
        if total < least * steps:
            return least, max(1, total // least)
        return min(self.epochs, total // steps), steps

    def epochs_left(self, done: int, planned: int, seconds: float) -> int:
        """How many epochs in all still fit the budget, when DONE of PLANNED took SECONDS."""
        if not self.seconds:
            return planned
        return min(planned, done + max(0, int((self.seconds - seconds) / (seconds / done))))


class PlannedRates(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of each step of a recipe, looked up in a table.

    The schedules of Keras are compiled into the training step with their number of steps. The time
    budget changes that number in the first epoch, and a table can be replaced without compiling.

    Args:
        recipe: The rates as a function of the step.
        steps: Steps of an epoch.
    """

    def __init__(self, recipe: Recipe, steps: int) -> None:
        super().__init__()
        self.recipe, self.planned = recipe, (steps, recipe.epochs)
        self.table = keras.Variable(
            np.zeros(steps * recipe.epochs), dtype="float32", trainable=False, name="rates"
        )
        self._fill()

    def plan(self, steps: int, epochs: int) -> bool:
        """Fill the table for EPOCHS of STEPS each; return whether that changes it."""
        changed = self.planned != (steps, epochs)
        self.planned = steps, epochs
        if changed:
            self._fill()
        return changed

    def _fill(self) -> None:
        rates = [self.recipe.rate_at(step, *self.planned) for step in range(self.table.shape[0])]
        self.table.assign(np.array(rates, np.float32))

    def __call__(self, step: Any) -> Any:
        """Return the rate of STEP, from 0."""
        last = self.table.shape[0] - 1
        return keras.ops.take(self.table, keras.ops.minimum(keras.ops.cast(step, "int32"), last))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments."""
        return {"recipe": asdict(self.recipe), "steps": self.planned[0]}


HEAD_EPOCHS, TUNING_EPOCHS, WHOLE_EPOCHS = 60, 12, 30
# The highest rates, by optimizer: of a head on levelled outputs, of a trunk that knows much, and of
# one that knows nothing (SGD's usual 0.05 breaks that one in its first steps).
HEAD_RATES = {"sgd": 5e-3, "adam": 1e-3, "adamw": 1e-3}
TUNING_RATES = {"sgd": 5e-3, "adam": 1e-4, "adamw": 1e-4}
WHOLE_RATES = {"sgd": 5e-3, "adam": 1e-3, "adamw": 1e-3}
SMOOTHING = 0.1
# Of examples whose labels are wrong in part, where nobody says another.
NOISY_MIXUP = 0.2


@dataclass(frozen=True)
class TrainOptions:
    """As asked for. `None` means what the stage at hand finds best.

    `fine_tune`: inception blocks that learn after the head, from the top; None: all, 0: none.
    `taps`: the blocks that the head reads; empty: chosen by validation. `seconds`: of the whole
    training, 0: as long as it takes.
    """

    data: Path
    out: Path
    weights: str = "imagenet"
    fine_tune: int | None = None
    taps: tuple[str, ...] = ()
    optimizer: str = "adamw"
    rate: float | None = None
    head_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float = 0.02
    schedule: str = "cosine"
    warm_up: float = 0.5
    epochs: int | None = None
    head_epochs: int = HEAD_EPOCHS
    patience: int = 4
    batch_size: int = 32
    image_size: int = 299
    augment: str = "mirror,rotate=15,scale=0.2,colour=0.2"
    views: int = 2
    label_smoothing: float = SMOOTHING
    mixup: float = 0.0
    average: bool = True
    class_weights: bool = True
    both_sides: bool = True
    noise_robust: bool = False
    precision: str = "auto"
    seconds: float = 3600.0
    cache: Path | None = None
    seed: int = 0
    folds: int = 0
    resume: bool = False

    @property
    def augmentation(self) -> Augmentation:
        """What `augment` says, read."""
        return parse(self.augment.split(","))

    @property
    def from_nothing(self) -> bool:
        """Whether trunk and head are trained together, from random weights."""
        return self.weights == "none"

    def head_recipe(self) -> Recipe:
        """How a head on a frozen trunk is fitted."""
        rate = self.head_rate or HEAD_RATES[self.optimizer]
        recipe = self._recipe(rate, self.head_epochs, patience=max(8, self.head_epochs // 3))
        return replace(recipe, rate_option="--head-rate", fused_steps=True)

    def tuning_recipe(self, seconds: float) -> Recipe:
        """How trunk and head go on together, within SECONDS (0: no budget)."""
        rate = self.rate or TUNING_RATES[self.optimizer]
        return self._recipe(rate, self.epochs or TUNING_EPOCHS, self.patience, seconds)

    def whole_recipe(self, seconds: float) -> Recipe:
        """How everything is trained from nothing; its last epochs, at small rates, are the best."""
        rate = self.rate or WHOLE_RATES[self.optimizer]
        return self._recipe(rate, self.epochs or WHOLE_EPOCHS, patience=0, seconds=seconds)

    def _recipe(self, rate: float, epochs: int, patience: int, seconds: float = 0.0) -> Recipe:
        return Recipe(
            optimizer=self.optimizer,
            rate=rate,
            epochs=epochs,
            batch_size=self.batch_size,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            warm_up=self.warm_up,
            patience=patience,
            label_smoothing=self.label_smoothing,
            mixup=self.mixup or (NOISY_MIXUP if self.noise_robust else 0.0),
            average=self.average,
            seconds=seconds,
            seed=self.seed,
        )
