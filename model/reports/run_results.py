"""The predictions of a finished training: everything that its reports are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from model.data.facets import FacetGroups
from model.data.loading import Example, SplitData
from model.data.metadata import PhotoMetadata, load_metadata
from model.evaluation import calibration
from model.evaluation.metrics import LabeledLogits
from model.evaluation.multi_label import choose_thresholds


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
        heat_maps: Index of a test photo -> JPEG of what its prediction rests on.
        folds: With cross-validation, the fold of each photo in `test`, which has the held-out
            photos of all folds with calibrated logits.
        facets: The facets of the labels, if photos can have several labels.
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
    heat_maps: Mapping[int, bytes] = field(default_factory=dict)
    folds: np.ndarray | None = None
    facets: FacetGroups | None = None

    @property
    def channels(self) -> int:
        """Channels of the photos; see `SplitData`."""
        return SplitData(self.folder, tuple(self.labels), tuple(self.test)).channels

    def _targets(self, examples: Sequence[Example]) -> np.ndarray:
        return SplitData(self.folder, tuple(self.labels), (), facets=self.facets).targets(examples)

    @cached_property
    def targets(self) -> np.ndarray:
        """Class indices of the test photos, shape (n,), or targets of facets, (n, facets)."""
        return self._targets(self.test)

    @cached_property
    def test_set(self) -> LabeledLogits:
        """Logits and targets of the test photos."""
        return LabeledLogits(self.test_logits, self.targets)

    @cached_property
    def validation_set(self) -> LabeledLogits:
        """Logits and class indices of the validation photos."""
        return LabeledLogits(self.validation_logits, self._targets(self.validation))

    @cached_property
    def temperature(self) -> float:
        """The temperature, fitted on the validation photos."""
        return calibration.fit_temperature(self.validation_set.logits, self.validation_set.targets)

    @cached_property
    def temperatures(self) -> list[float]:
        """The temperature of each facet, fitted on the validation photos that are labelled there.

        Raises:
            ValueError: The labels have no facets.
        """
        if self.facets is None:
            raise ValueError("the labels have no facets")
        parts = self.facets.parts(self.validation_set.logits, self.validation_set.targets)
        return [calibration.fit_temperature(*part) for part in parts]

    @cached_property
    def thresholds(self) -> dict[str, float]:
        """Label -> probability with the highest F1 on the validation photos; empty without facets.

        From it on, a photo is predicted to have the label.
        """
        if self.facets is None:
            return {}
        validation = self.validation_set
        probabilities = calibration.facet_probabilities(
            validation.logits, self.facets, self.temperatures
        )
        chosen = choose_thresholds(probabilities, validation.targets, self.facets)
        return dict(zip(self.labels, chosen, strict=True))

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Calibrated probabilities of the test photos, float64 array of shape (n, classes)."""
        if self.facets is not None:
            return calibration.facet_probabilities(self.test_logits, self.facets, self.temperatures)
        return calibration.softmax(self.test_logits, self.temperature)

    @cached_property
    def metadata(self) -> PhotoMetadata:
        """Groups, sites and crops of the test photos."""
        return load_metadata(self.folder, self.test)
