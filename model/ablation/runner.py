"""Train and evaluate the steps of a comparison; results are saved for --resume."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import click
import keras
import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from dataset.errors import Failure
from dataset.pose.crop import KEEP
from dataset.selection.crops import PoseOptions
from dataset.utils.keras_backend import load_state, save_state
from model.ablation.config import BEST_STEP, USEFUL_AUGMENTATION, Step
from model.data.augmentation import ImageAugmentation, parse_augmentation
from model.data.crops import crop_data, is_cropped
from model.data.facets import UNLABELLED
from model.data.feature_cache import default_cache_folder
from model.data.features import Views, predict_logits
from model.data.loading import SplitData
from model.data.metadata import load_metadata
from model.training.config import TrainOptions
from model.training.linear_probe import head_logits
from model.training.stages import (
    HEAD,
    PreparedBackbone,
    TrainedNetwork,
    prepare_backbone,
    report_unreadable,
    train_network,
)
from model.training.train import ConsoleReporter

MIRROR_VIEWS = Views(ImageAugmentation((("mirror", 1.0),)), 2)


@dataclass(frozen=True)
class CompareOptions:
    """Options of `compare`; `fashion-tagger compare --help` describes each."""

    data: Path
    out: Path
    steps: Path
    weights: str = "imagenet"
    seeds: int = 3
    image_size: int = 299
    precision: str = "auto"
    cache: Path | None = None
    pose: str = "hrnet-small"
    pose_weights: Path | None = None
    seed: int = 0
    allow_leaks: bool = False
    resume: bool = False


@dataclass(frozen=True)
class StepResult:
    """The result of a step.

    Attributes:
        step: The step.
        base: Name of the step that it is compared with.
        options: Options of its trainings.
        crop: One of CROPS, or BUILD_CROP.
        background: One of BACKGROUNDS.
        correct: Fraction of trainings that predict each test photo correctly, shape (n,).
        accuracies: Test accuracy of each training, shape (seeds,).
        macro_f1: Macro F1 of each training, shape (seeds,).
        validation_accuracy: Mean validation accuracy.
        seconds: Duration of all trainings.
        note: Why the step was skipped, or empty.
    """

    step: Step
    base: str
    options: TrainOptions
    crop: str
    background: str
    correct: np.ndarray
    accuracies: np.ndarray
    macro_f1: np.ndarray
    validation_accuracy: float
    seconds: float
    note: str = ""

    @property
    def accuracy(self) -> float:
        """Mean test accuracy."""
        return float(self.accuracies.mean())


class TrainingResult(NamedTuple):
    """The result of one training of a step; see StepResult."""

    correct: np.ndarray
    macro_f1: float
    validation_accuracy: float
    seconds: float


# Name of the crop of photos that a build has cropped.
BUILD_CROP = "as built"


class StepRunner:
    """Trains the steps of a comparison with the same weights of the backbone.

    Args:
        data: The photos.
        options: Options of the comparison.
        folder: Where results are saved for --resume.
    """

    def __init__(self, data: SplitData, options: CompareOptions, folder: Path) -> None:
        self.options, self.folder, self.data = options, folder, data
        # What reports call the photos as they are in the data.
        self.data_crop = BUILD_CROP if is_cropped(data) else "whole"
        self.data_by_crop: dict[tuple[str, str], SplitData] = {(self.data_crop, KEEP): data}
        self.base_options = TrainOptions(
            data=options.data,
            out=options.out,
            weights=options.weights,
            image_size=options.image_size,
            precision=options.precision,
            cache=options.cache,
            time_budget=0.0,
        )
        # Parts of a photo and channels -> the network that reads them.
        self.prepared: dict[tuple[str, int], PreparedBackbone] = {}
        prepared = self._prepare(self.base_options, data)
        test = prepared.extractor.extract(data, "test", Views())
        self.examples = test.examples
        self.groups = load_metadata(data.folder, test.examples).groups
        report_unreadable(data, test.unreadable, ConsoleReporter(folder))

    def run(self, number: int, step: Step, before: Sequence[StepResult]) -> StepResult:
        """Train a step with each seed, or load the saved results.

        Args:
            number: Index of the step.
            step: The step.
            before: Results of the steps before it.
        """
        base = _find_base(step, before)
        options = replace(base.options if base else self.base_options, **step.settings)
        if options.augment == USEFUL_AUGMENTATION:
            options = replace(options, augment=_useful_augmentation(step, before))
        crop = step.crop or (base.crop if base else self.data_crop)
        background = step.background or (base.background if base else KEEP)
        if crop == "whole":
            crop = self.data_crop
        if crop != "person":
            background = KEEP
        name = step.against or (base.step.name if base else "")
        if crop != self.data_crop == BUILD_CROP:
            note = "the photos are cropped already; build with --crop none to compare crops"
            empty = np.zeros(0)
            return StepResult(
                step, name, options, crop, background, empty, empty, empty, 0.0, 0.0, note
            )
        data = self._crop(crop, background)
        count = min(self.options.seeds, step.seeds or self.options.seeds)
        trainings = [
            self._train(data, replace(options, seed=self.options.seed + seed), number, seed)
            for seed in range(count)
        ]
        correct = np.stack([training.correct for training in trainings])
        return StepResult(
            step,
            name,
            options,
            crop,
            background,
            correct.mean(axis=0),
            correct.mean(axis=1),
            np.array([training.macro_f1 for training in trainings]),
            float(np.mean([training.validation_accuracy for training in trainings])),
            float(sum(training.seconds for training in trainings)),
        )

    def _prepare(self, options: TrainOptions, data: SplitData) -> PreparedBackbone:
        """Return the backbone for the parts and the channels of the photos that a step reads."""
        key = options.parts, data.channels
        if key not in self.prepared:
            self.prepared[key] = prepare_backbone(options, channels=data.channels)
        return self.prepared[key]

    def _crop(self, crop: str, background: str) -> SplitData:
        if (crop, background) not in self.data_by_crop:
            pose = PoseOptions(self.options.pose, self.options.pose_weights, background=background)
            cache = self.options.cache or default_cache_folder()
            result = crop_data(self.data, crop, pose.find_model(), cache, background)
            counts = ", ".join(f"{n} {name}" for name, n in sorted(result.outcomes.items()))
            click.echo(f"crops for {crop}, background {background}: {counts}")
            self.data_by_crop[crop, background] = result.data
        return self.data_by_crop[crop, background]

    def _train(
        self, data: SplitData, options: TrainOptions, number: int, seed: int
    ) -> TrainingResult:
        """Train once and save the predictions, or load them."""
        folder = self.folder / f"step-{number + 1}-seed-{seed + 1}"
        folder.mkdir(exist_ok=True)
        path = folder / "measured.npz"
        if not path.exists():
            start = time.monotonic()
            reporter = ConsoleReporter(folder, quiet=True)
            prepared = self._prepare(options, data)
            trained = train_network(data, options, folder, reporter, prepared)
            reporter.close()
            predictions = [
                *self._predict(data, trained, options, "test"),
                *self._predict(data, trained, options, "validation"),
            ]
            save_state(path, {"seconds": time.monotonic() - start}, predictions)
            for state in folder.glob("*.npz"):
                if state != path:
                    state.unlink()
            keras.utils.clear_session(free_memory=True)
        facts, arrays = load_state(path, f"remove {folder} to train that step again")
        test, test_targets, validation, validation_targets = arrays
        if len(test) != len(self.examples):
            raise Failure(
                f"{data.folder}/test has changed since the comparison was interrupted; compare"
                " again in another --out"
            )
        return TrainingResult(
            fraction_correct(test, test_targets),
            macro_f1(test, test_targets, data),
            float(fraction_correct(validation, validation_targets).mean()),
            facts["seconds"],
        )

    def _predict(
        self, data: SplitData, trained: TrainedNetwork, options: TrainOptions, split: str
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the predicted and the true class indices of a split, or those of facets."""
        if trained.kept_stage != HEAD:
            network = trained.prediction_network(options)
            examples, logits = predict_logits(network, data, split, {})
            return predict_classes(logits, data), data.targets(examples)
        views = MIRROR_VIEWS if options.tta else Views()
        features = self._prepare(options, data).extractor.extract(data, split, views)
        logits = head_logits(trained.head, features, trained.feature_layers)
        return predict_classes(logits, data), features.targets


def predict_classes(logits: np.ndarray, data: SplitData) -> np.ndarray:
    """Return the most probable class of each photo, shape (n,), or of each facet, (n, facets)."""
    if data.facets is None:
        return logits.argmax(axis=1)
    members = map(list, data.facets.members)
    return np.stack([logits[:, own].argmax(axis=1) for own in members], axis=1)


def fraction_correct(predicted: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return whether each photo is predicted correctly, or the fraction of its labelled facets.

    Args:
        predicted: Result of `predict_classes`.
        targets: Result of `SplitData.targets`, of the same shape.

    Returns:
        Float64 array of shape (n,).
    """
    is_correct = predicted == targets
    if targets.ndim == 1:
        return is_correct.astype(np.float64)
    is_known = targets != UNLABELLED
    return (is_correct & is_known).sum(axis=1) / np.maximum(1, is_known.sum(axis=1))


def macro_f1(predicted: np.ndarray, targets: np.ndarray, data: SplitData) -> float:
    """Return the mean F1 of all labels; with facets, the mean of the facets' means."""
    columns = [(predicted, targets, len(data.labels))]
    if data.facets is not None:
        sizes = map(len, data.facets.members)
        columns = list(zip(predicted.T, targets.T, sizes, strict=True))
    scores = [
        precision_recall_fscore_support(
            own[own != UNLABELLED],
            guess[own != UNLABELLED],
            labels=range(size),
            average="macro",
            zero_division=0,
        )[2]
        for guess, own, size in columns
    ]
    return float(np.mean(scores))


def _find_base(step: Step, before: Sequence[StepResult]) -> StepResult | None:
    """Return the result of the step that a step changes."""
    trained = [result for result in before if not result.note]
    if step.base == BEST_STEP:
        return max(trained, key=lambda result: result.validation_accuracy)
    by_name = {result.step.name: result for result in before}
    base = by_name.get(step.base)
    # In place of a skipped step, the step that it was to change is used.
    while base and base.note:
        base = by_name.get(base.base)
    return base


def _useful_augmentation(step: Step, before: Sequence[StepResult]) -> str:
    """Return the augmentations that alone increased the validation accuracy of the base step."""
    base = _find_base(step, before)
    if base is None:
        return "none"
    transforms: list[str] = []
    for result in before:
        changes_augment = set(result.step.settings) == {"augment"}
        is_better = result.validation_accuracy > base.validation_accuracy
        if changes_augment and result.base == base.step.name and is_better:
            transforms += result.options.augment.split(",")
    return str(parse_augmentation(transforms))
