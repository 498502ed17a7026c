"""Read the steps of a comparison from a TOML file, train and evaluate them.

Results are saved for --resume.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import click
import keras
import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from dataset.errors import BadInput, Failure
from dataset.pose.crop import KEEP
from dataset.selection.crops import PoseOptions
from dataset.utils.keras_backend import load_state, save_state
from dataset.vocabulary import read_toml
from model import cli_options
from model.data.augmentation import ImageAugmentation, parse_augmentation
from model.data.crops import BACKGROUNDS, CROPS, crop_data, is_cropped
from model.data.feature_cache import default_cache_folder
from model.data.features import Views, predict_logits
from model.data.loading import UNLABELLED, SplitData, load_metadata
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
USEFUL_AUGMENTATION, BEST_STEP = "useful", "best"
# Keys of a step that are not options of train-model.
STEP_KEYS = {"name", "from", "against", "crop", "background", "seeds"}
# Options that are the same for all steps.
SHARED_OPTIONS = {
    *("data", "out", "weights", "image_size", "precision", "cache", "seed", "folds", "resume"),
}


@dataclass(frozen=True)
class AblationStep:
    """A step of a comparison.

    Attributes:
        name: Its name.
        base: Name of the step that it changes; `best`, or "" for the first step.
        settings: Changed fields of TrainOptions.
        crop: One of CROPS; None: as the step that it changes.
        background: One of BACKGROUNDS; None: as the step that it changes.
        seeds: Number of trainings at most; 0: no limit.
        against: Name of the step that it is compared with; "": the step that it changes.
    """

    name: str
    base: str
    settings: Mapping[str, Any]
    crop: str | None
    background: str | None
    seeds: int
    against: str = ""


@dataclass(frozen=True)
class StepsFile:
    """The content of a file of steps.

    Attributes:
        steps: The steps.
        reference: Name -> accuracy that was measured elsewhere, shown beside the steps.
    """

    steps: Sequence[AblationStep]
    reference: Mapping[str, float]


def read_steps(path: Path) -> StepsFile:
    """Read a TOML file of steps.

    Raises:
        BadInput: A step has no name, an unknown base, or an invalid setting.
    """
    table = read_toml(path)
    entries = table.get("step")
    if not isinstance(entries, list) or not entries:
        raise BadInput(f"{path}: no [[step]]; start from a copy of {cli_options.STEPS_FILE}")
    steps: list[AblationStep] = []
    for entry in entries:
        steps.append(_step(entry, steps, path))
    reference = table.get("reference", {})
    for name, value in reference.items():
        if not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise BadInput(f"{path}: the reference {name!r} must be an accuracy from 0 to 1")
    return StepsFile(steps, reference)


def _step(entry: Mapping[str, Any], before: Sequence[AblationStep], path: Path) -> AblationStep:
    name = entry.get("name")
    names = [step.name for step in before]
    if not isinstance(name, str) or not name or name in (*names, BEST_STEP):
        raise BadInput(f"{path}: each [[step]] needs a unique name, not {name!r}")
    base = entry.get("from", names[-1] if names else "")
    if names and base not in (*names, BEST_STEP):
        raise BadInput(f"{path}: step {name!r}: from = {base!r} is not a step before it")
    crop, background, seeds = (entry.get(key) for key in ("crop", "background", "seeds"))
    seeds = seeds or 0
    for key, value, choices in (
        ("crop", crop, CROPS),
        ("background", background, BACKGROUNDS),
    ):
        if value not in (None, *choices):
            raise BadInput(
                f"{path}: step {name!r}: {key} must be {', '.join(choices)}, not {value!r}"
            )
    if not isinstance(seeds, int) or seeds < 0:
        raise BadInput(f"{path}: step {name!r}: seeds must be a number, not {seeds!r}")
    settings = {
        key: _parse_setting(key, value, f"{path}: step {name!r}")
        for key, value in entry.items()
        if key not in STEP_KEYS
    }
    against = entry.get("against", "")
    if against not in ("", *names):
        raise BadInput(f"{path}: step {name!r}: against = {against!r} is not a step before it")
    return AblationStep(name, base if names else "", settings, crop, background, seeds, against)


def _parse_setting(key: str, value: Any, where: str) -> Any:
    """Return a setting as TrainOptions has it."""
    types = {
        field.name: getattr(field.type, "__name__", str(field.type))
        for field in fields(TrainOptions)
    }
    if key in SHARED_OPTIONS:
        raise BadInput(f"{where}: {key} is the same for all steps; pass it to the command")
    if key not in types:
        raise BadInput(f"{where}: unknown setting {key!r}; settings are options of train-model")
    if key == "augment" and value == USEFUL_AUGMENTATION:
        return value
    try:
        return _PARSERS[key](value) if key in _PARSERS else _check_type(value, types[key])
    except (BadInput, click.BadParameter, TypeError) as error:
        raise BadInput(f"{where}: {key} = {value!r}: {error}") from error


def _check_type(value: Any, type_name: str) -> Any:
    """Return a value of a type, which is given by name, such as `int | None`."""
    name = type_name.partition(" ")[0]
    if name == "float" and type(value) in (int, float):
        return float(value)
    if type(value).__name__ != name:
        raise TypeError(f"must be of type {type_name}")
    return value


def _parse_time(value: Any) -> float:
    return cli_options.Duration().convert(str(value), None, None)


def _parse_blocks(value: Any) -> int | None:
    return cli_options.Blocks().convert(str(value), None, None)


_PARSERS: Mapping[str, Callable[[Any], Any]] = {
    "feature_layers": cli_options.parse_feature_layers,
    "augment": cli_options.normalize_augmentation,
    "time_budget": _parse_time,
    "fine_tune": _parse_blocks,
}


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

    step: AblationStep
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

    def run(self, number: int, step: AblationStep, before: Sequence[StepResult]) -> StepResult:
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


def _find_base(step: AblationStep, before: Sequence[StepResult]) -> StepResult | None:
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


def _useful_augmentation(step: AblationStep, before: Sequence[StepResult]) -> str:
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
