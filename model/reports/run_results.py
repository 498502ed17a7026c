"""A training that is over, with what it says of photos: all that its papers are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from model.data.loading import Example
from model.data.metadata import Origins, origins
from model.evaluation import calibration
from model.evaluation.metrics import Truth


@dataclass(frozen=True)
class Judged:
    """What a run knows when it has looked at the test split.

    `folder`: the data folder. `test_logits`, `validation_logits`: (n, classes) float, a row an
    example, not divided by the temperature yet. `history`: values by epoch, `loss`, `accuracy`,
    `val_loss`, `val_accuracy`, two stages one after the other; `border` is the last epoch of the
    first of two, `best` the one that was kept, from 1. `options` as asked for, ready for JSON.
    `figures` go into metrics.json as they are (counts, unreadable), `facts` into run.json
    (seconds, backend, precision). `samples`: a PNG of augmented photos.
    """

    folder: Path
    labels: Sequence[str]
    test: Sequence[Example]
    test_logits: np.ndarray
    validation: Sequence[Example]
    validation_logits: np.ndarray
    history: Mapping[str, Sequence[float]]
    best: int
    options: Mapping[str, Any]
    seed: int = 0
    border: int | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    samples: bytes | None = None

    @cached_property
    def targets(self) -> np.ndarray:
        """The class of each test photo, (n,) int."""
        return self._places(self.test)

    @cached_property
    def validated(self) -> Truth:
        """The validation split."""
        return Truth(self.validation_logits, self._places(self.validation))

    @cached_property
    def temperature(self) -> float:
        """What the logits are to be divided by, fitted on validation; belongs into the model."""
        return calibration.temperature(self.validated.logits, self.validated.targets)

    @cached_property
    def shares(self) -> np.ndarray:
        """Calibrated shares of the test photos, (n, classes) float64."""
        return calibration.softmax(self.test_logits, self.temperature)

    @cached_property
    def origins(self) -> Origins:
        """Groups, sites and crops of the test photos."""
        return origins(self.folder, self.test)

    def _places(self, examples: Sequence[Example]) -> np.ndarray:
        places = {label: place for place, label in enumerate(self.labels)}
        return np.array([places[example.label] for example in examples], np.int64)
