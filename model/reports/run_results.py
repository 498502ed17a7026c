"""The predictions of a finished training: everything that its reports are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from model.data.loading import Example, class_indices
from model.data.metadata import PhotoMetadata, load_metadata
from model.evaluation import calibration
from model.evaluation.metrics import LabeledLogits


@dataclass(frozen=True)
class RunResults:
    """Predictions for the validation and test photos, and how the network was trained.

    Attributes:
        folder: The data folder.
        labels: The labels.
        test: The readable test photos.
        test_logits: Uncalibrated logits of shape (n, classes).
        validation: The readable validation photos.
        validation_logits: Uncalibrated logits of shape (m, classes).
        history: Metric (loss, accuracy, val_loss, val_accuracy) -> values by epoch, for all stages.
        best_epoch: The epoch whose weights were kept, from 1.
        options: Options of the training, ready for JSON.
        seed: Random seed.
        first_stage_epochs: Number of epochs of the first of two stages.
        extra_metrics: Added to `metrics.json` (counts, unreadable photos, folds).
        facts: Added to `run.json` (duration, backend, precision).
        augmentation_samples: PNG of augmented training photos.
        folds: With cross-validation, the fold of each photo in `test`, which has the held-out
            photos of all folds with calibrated logits.
    """

    folder: Path
    labels: Sequence[str]
    test: Sequence[Example]
    test_logits: np.ndarray
    validation: Sequence[Example]
    validation_logits: np.ndarray
    history: Mapping[str, Sequence[float]]
    best_epoch: int
    options: Mapping[str, Any]
    seed: int = 0
    first_stage_epochs: int | None = None
    extra_metrics: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    augmentation_samples: bytes | None = None
    folds: np.ndarray | None = None

    @cached_property
    def targets(self) -> np.ndarray:
        """Class indices of the test photos, shape (n,)."""
        return class_indices(self.test, self.labels)

    @cached_property
    def validation_set(self) -> LabeledLogits:
        """Logits and class indices of the validation photos."""
        targets = class_indices(self.validation, self.labels)
        return LabeledLogits(self.validation_logits, targets)

    @cached_property
    def temperature(self) -> float:
        """The temperature, fitted on the validation photos."""
        return calibration.fit_temperature(self.validation_set.logits, self.validation_set.targets)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Calibrated probabilities of the test photos, float64 array of shape (n, classes)."""
        return calibration.softmax(self.test_logits, self.temperature)

    @cached_property
    def metadata(self) -> PhotoMetadata:
        """Groups, sites and crops of the test photos."""
        return load_metadata(self.folder, self.test)
