"""How a network is fitted: optimizer, rates, and what keeps it from learning by heart."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import keras

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

    def said(self) -> dict[str, Any]:
        """What must be the same when a fitting goes on; its budget may be another."""
        return {name: value for name, value in asdict(self).items() if name != "seconds"}

    def build_optimizer(self, momentum_of_average: float | None) -> keras.optimizers.Optimizer:
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
                    self.rate, momentum=self.momentum, nesterov=self.momentum > 0, **shared
                )
            case "adam":
                return keras.optimizers.Adam(self.rate, **shared)
            case _:
                return keras.optimizers.AdamW(self.rate, **shared)

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
