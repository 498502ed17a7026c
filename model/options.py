"""What `train-model` was asked for, and the recipes that follow from it."""

from dataclasses import dataclass
from pathlib import Path

from model.recipes import Recipe

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
    def from_nothing(self) -> bool:
        """Whether trunk and head are trained together, from random weights."""
        return self.weights == "none"

    def head_recipe(self) -> Recipe:
        """How a head on a frozen trunk is fitted."""
        rate = self.head_rate or HEAD_RATES[self.optimizer]
        return self._recipe(rate, self.head_epochs, patience=max(8, self.head_epochs // 3))

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
