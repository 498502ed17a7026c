"""Train a network: a linear probe and fine-tuning, or backbone and head together from scratch."""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import click
import keras
import numpy as np

from dataset.errors import Failure
from dataset.utils.downloads import file_digest
from dataset.utils.engines import LOCAL_ENGINE, Engine
from dataset.utils.keras_backend import from_first_process, set_seed
from model.data.feature_cache import FeatureCache, default_cache_folder
from model.data.features import FeatureExtractor, ImageSet, ImageTrainingSet, SplitFeatures, Views
from model.data.loading import UNLABELLED, Example, SplitData, class_weights, load_metadata
from model.network import inception
from model.network.inception import PrecisionChoice
from model.training import label_noise
from model.training.config import TrainOptions
from model.training.fit import FitProgress, ValidationSet, fit
from model.training.linear_probe import (
    choose_feature_layers,
    fit_head,
    ridge_logits,
    solve_head,
)

# Fine-tuning is skipped if less than this is left of the time budget.
MIN_FINE_TUNING_SECONDS = 20
# Largest drop of the linear probe's accuracy that is accepted for a larger backbone to fine-tune.
ACCURACY_SLACK = 0.03
# Keras' default of 0.99 keeps the statistics of the random initial weights for too long.
SCRATCH_BATCH_NORM_MOMENTUM = 0.9
# A head is solved in closed form for fewer training photos, if these are fewer than its features:
# accuracies of 0.69 instead of 0.65 with 400 photos of garments, 0.95 instead of 0.93 with 360
# drawn ones. With more photos they were not compared.
MAX_SOLVED_PHOTOS = 1000
HEAD, FINE_TUNING, FROM_SCRATCH = "head", "fine-tuning", "from scratch"


class ProgressReporter(Protocol):
    """Receives the progress of a training."""

    def report_epoch(self, stage: str, progress: FitProgress) -> None:
        """Report the last finished epoch of a stage."""

    def report_message(self, text: str) -> None:
        """Show a message."""


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network and how it was trained.

    Attributes:
        network: Pixels -> logits.
        head: The part of the network that reads the features.
        feature_layers: Blocks whose outputs the head reads.
        stages: Stage -> its progress, in the order of training.
        kept_stage: The stage whose weights were kept.
        examples: Split -> its readable photos.
        unreadable: Path -> reason.
        facts: More facts for `run.json`.
    """

    network: keras.Model
    head: keras.Model
    feature_layers: tuple[str, ...]
    stages: Mapping[str, FitProgress]
    kept_stage: str
    examples: Mapping[str, Sequence[Example]]
    unreadable: Mapping[str, str]
    facts: dict[str, str] = field(default_factory=dict)

    def prediction_network(self, options: TrainOptions) -> keras.Model:
        """Return the network for predictions, with test-time augmentation if that is on."""
        return inception.add_tta(self.network) if options.tta else self.network


@dataclass(frozen=True)
class PreparedBackbone:
    """A backbone with its weights, an extractor of its features, and its precision."""

    backbone: keras.Model
    extractor: FeatureExtractor
    precision: PrecisionChoice


def train_network(
    data: SplitData,
    options: TrainOptions,
    folder: Path,
    reporter: ProgressReporter,
    prepared: PreparedBackbone | None = None,
    engine: Engine = LOCAL_ENGINE,
) -> TrainedNetwork:
    """Train on the train split, and select epochs on the validation split.

    Args:
        data: The splits.
        options: How to train.
        folder: Where the state of each stage is saved for `--resume`.
        reporter: Receives progress and messages.
        prepared: The backbone of the same options, to save time when there are many trainings.
        engine: Runs the frozen backbone, unless one is prepared.

    Raises:
        Failure: A label has no readable photos, the weights can't be loaded, or the loss is NaN.
    """
    set_seed(options.seed)
    for label, count in sorted(data.unknown_labels.items()):
        reporter.report_message(f"excluded {count} photos of {label!r}: no photos in train/")
    for facet, label in sorted(data.single_labels.items()):
        reporter.report_message(
            f"the facet {facet} is not trained: {label} is its only label with photos in train/"
        )
    if data.skipped:
        reporter.report_message(f"{data.folder}: {data.skipped}")
    if not data.examples_of("validation"):
        reporter.report_message(
            "no validation photos: the last epoch is kept and probabilities are not calibrated"
        )
    if options.from_scratch:
        return _train_from_scratch(data, options, folder, reporter)
    return _train_in_stages(data, options, folder, reporter, prepared, engine)


def _train_in_stages(
    data: SplitData,
    options: TrainOptions,
    folder: Path,
    reporter: ProgressReporter,
    prepared: PreparedBackbone | None,
    engine: Engine,
) -> TrainedNetwork:
    start = time.monotonic()
    prepared = prepared or prepare_backbone(options, engine, data.channels)
    backbone, extractor, precision = prepared.backbone, prepared.extractor, prepared.precision
    views = Views(options.augmentation, options.views)
    train = extractor.extract(data, "train", views)
    validation = extractor.extract(data, "validation", Views())
    # The training may need what the workers hold.
    engine.close()
    unreadable = train.unreadable | validation.unreadable
    report_unreadable(data, unreadable, reporter)
    require_all_labels(data, train.examples)
    feature_layers = options.feature_layers or _choose_feature_layers(
        train, validation, data, options, reporter
    )
    targets, weights = encode_targets(train.targets, data, options)
    if options.noise_robust:
        reliability = label_weights(data, train, validation, feature_layers, options.seed, reporter)
        if data.facets is None:
            weights = weights * reliability[:, 0]
        else:
            targets = targets * np.repeat(reliability, list(map(len, data.facets.members)), axis=1)
    # Whether features were cached has no influence on the random numbers of the training.
    set_seed(options.seed)
    facts = {"precision": precision.reason, "feature_layers": "+".join(feature_layers)}
    width = len(train.columns(feature_layers))
    has_few_photos = len(train.targets) < min(width, MAX_SOLVED_PHOTOS)
    if data.facets is None and has_few_photos and options.can_solve_head():
        facts["head"] = "closed form"
        groups = load_metadata(data.folder, train.examples).groups
        head, progress = solve_head(
            train, validation, weights, feature_layers, len(data.labels), groups, options.seed
        )
    else:
        head, progress = fit_head(
            train,
            validation,
            weights,
            feature_layers,
            len(data.labels),
            options.head_config(),
            folder / "head.npz",
            partial(reporter.report_epoch, HEAD),
            targets,
            data.facets,
        )
    views_read = options.parts, data.channels
    features = _feature_network(backbone, feature_layers, "float32", *views_read)
    stages, kept_stage = {HEAD: progress}, HEAD
    budget = options.time_budget
    seconds = budget and max(0.0, budget - (time.monotonic() - start))
    if options.fine_tune != 0 and budget and seconds < MIN_FINE_TUNING_SECONDS:
        reporter.report_message("no time left for fine-tuning; raise --time-budget")
    elif options.fine_tune != 0:
        set_seed(options.seed)
        tuned = _feature_network(backbone, feature_layers, precision.policy, *views_read)
        probe_weights = head.get_weights()
        network = inception.join_head(tuned, head)
        stages[FINE_TUNING] = _fine_tune(
            network, data, train, validation, targets, weights, options, seconds, folder, reporter
        )
        if stages[FINE_TUNING].best_loss < progress.best_loss or not len(validation.targets):
            kept_stage = FINE_TUNING
            features.set_weights(tuned.get_weights())
        else:
            reporter.report_message(
                "fine-tuning did not lower the validation loss: the linear probe is kept"
            )
            head.set_weights(probe_weights)
    examples = {"train": train.examples, "validation": validation.examples}
    network = inception.join_head(features, head)
    return TrainedNetwork(
        network, head, feature_layers, stages, kept_stage, examples, unreadable, facts
    )


def prepare_backbone(
    options: TrainOptions, engine: Engine = LOCAL_ENGINE, channels: int = 3
) -> PreparedBackbone:
    """Load the backbone in the precision that suits this machine.

    Args:
        options: How to train.
        engine: Runs the backbone.
        channels: Channels of the photos; see `SplitData`.

    Raises:
        Failure: The weights can't be downloaded or read.
    """
    backbone = inception.build_backbone(options.image_size, options.weights)

    own = inception.backbone_blocks(backbone)
    blocks = tuple(block for block in inception.CACHED_BLOCKS if block in own)

    def build(policy: str) -> keras.Model:
        folded = inception.fold_batch_norms(backbone, policy)
        return inception.build_feature_network(folded, blocks, options.parts, channels)

    digest = file_digest(inception.weights_file(options.weights), "sha256:" + 16 * "-")
    name = f"inception_v3-{digest.partition(':')[2]}-{options.image_size}"
    if options.parts != inception.WHOLE:
        name += f"-{options.parts}"
    if channels > 3:
        name += "-masks"
    folder = options.cache or default_cache_folder()
    reference = inception.build_feature_network(backbone, blocks, options.parts, channels)
    features, precision = inception.choose_precision(reference, build, options.precision)
    click.echo(f"precision: {precision.reason}")
    cache = FeatureCache(folder, f"{name}-{precision.policy}")
    return PreparedBackbone(backbone, FeatureExtractor(features, cache, blocks, engine), precision)


def _feature_network(
    backbone: keras.Model, feature_layers: Sequence[str], policy: str, parts: str, channels: int
) -> keras.Model:
    folded = inception.fold_batch_norms(backbone, policy)
    return inception.build_feature_network(
        inception.truncate(folded, feature_layers[-1]), feature_layers, parts, channels
    )


def _choose_feature_layers(
    train: SplitFeatures,
    validation: SplitFeatures,
    data: SplitData,
    options: TrainOptions,
    reporter: ProgressReporter,
) -> tuple[str, ...]:
    slack = 0.0 if options.fine_tune == 0 else ACCURACY_SLACK
    groups = load_metadata(data.folder, [*train.examples, *validation.examples]).groups
    choice = choose_feature_layers(
        train, validation, len(data.labels), options.seed, slack, data.facets, groups
    )
    if choice.accuracy is not None:
        reporter.report_message(
            f"feature layers: {' + '.join(choice.layers)} (accuracy"
            f" {choice.accuracy:.3f} with a ridge classifier on photos that it was not fitted on)"
        )
    # Each process has made its own choice, and they train one network.
    (is_chosen,) = from_first_process([np.isin(train.blocks, choice.layers)])
    return tuple(itertools.compress(train.blocks, is_chosen))


def example_weights(targets: np.ndarray, classes: int, options: TrainOptions) -> np.ndarray:
    """Return the weight of each example in the loss, float32 array of shape (n,)."""
    weights = class_weights(targets, classes) if options.class_weights else np.ones(len(targets))
    return weights.astype(np.float32)


def encode_targets(
    targets: np.ndarray, data: SplitData, options: TrainOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Return the targets of the loss, and the weight of each example.

    Args:
        targets: Targets of the training examples, as `SplitData.targets` returns them.
        data: The splits.
        options: How to train.

    Returns:
        Float32 arrays of shape (n, classes) and (n,). With facets, the class weights are in the
        targets.
    """
    if data.facets is not None:
        encoded = data.facets.encode(targets, options.class_weights)
        return encoded, np.ones(len(encoded), np.float32)
    one_hot = np.eye(len(data.labels), dtype=np.float32)[targets]
    return one_hot, example_weights(targets, len(data.labels), options)


def label_weights(
    data: SplitData,
    train: SplitFeatures,
    validation: SplitFeatures,
    feature_layers: Sequence[str],
    seed: int,
    reporter: ProgressReporter,
) -> np.ndarray:
    """Estimate how reliable the labels of each training photo are.

    All weights of a facet are 1 if a ridge classifier with the estimated weights is less accurate
    on the validation photos.

    Returns:
        Float32 array of shape (n, facets) with values in (0, 1]; (n, 1) with one label per photo.
        Unlabelled facets have the weight 1.
    """
    columns = train.columns(feature_layers)
    values = train.values[:, 0, columns].astype(np.float32)
    validation_values = validation.values[:, 0, columns].astype(np.float32)
    groups = load_metadata(data.folder, train.examples).groups
    if data.facets is None:
        facets = [("", len(data.labels))]
        targets, validation_targets = train.targets[:, None], validation.targets[:, None]
    else:
        sizes = map(len, data.facets.members)
        facets = list(zip(data.facets.names, sizes, strict=True))
        targets, validation_targets = train.targets, validation.targets
    weights = np.ones(targets.shape, np.float32)
    for number, (name, size) in enumerate(facets):
        known = np.flatnonzero(targets[:, number] != UNLABELLED)
        held_out = np.flatnonzero(validation_targets[:, number] != UNLABELLED)
        own_groups = None if groups is None else [groups[row] for row in known.tolist()]
        if len(known if own_groups is None else set(own_groups)) < label_noise.FOLDS:
            continue
        weights[known, number] = _facet_label_weights(
            (values[known], targets[known, number]),
            (validation_values[held_out], validation_targets[held_out, number]),
            own_groups,
            size,
            seed,
            _prefixed(reporter.report_message, f"{name}: " if name else ""),
        )
    return weights


def _prefixed(report: Callable[[str], None], prefix: str) -> Callable[[str], None]:
    return lambda text: report(f"{prefix}{text}")


def _facet_label_weights(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    groups: Sequence[str] | None,
    classes: int,
    seed: int,
    report: Callable[[str], None],
) -> np.ndarray:
    """Estimate how reliable labels that exclude each other are.

    Args:
        train: Features of shape (n, width), and class indices of shape (n,).
        validation: The same of the validation photos; may be empty.
        groups: A name for each training photo; photos of a group stay in one fold.
        classes: Number of classes.
        seed: Random seed.
        report: Receives how many labels are contradicted.

    Returns:
        Float32 array of shape (n,).
    """
    values, targets = train
    validation_values, validation_targets = validation

    def predict_fold(rest: np.ndarray, weights: np.ndarray, held_out: np.ndarray) -> np.ndarray:
        return ridge_logits(values[rest], targets[rest], weights, values[held_out], classes)

    def accuracy(weights: np.ndarray) -> float:
        logits = ridge_logits(values, targets, weights, validation_values, classes)
        return float((logits.argmax(axis=1) == validation_targets).mean())

    weights = label_noise.estimate_label_weights(targets, groups, classes, seed, predict_fold)
    contradicted = int((weights < 1).sum())
    if len(validation_values) and accuracy(weights) < accuracy(np.ones_like(weights)):
        report(
            f"{contradicted} training labels are contradicted; they keep their weight, because"
            " lower weights reduce the validation accuracy"
        )
        return np.ones_like(weights)
    report(
        f"{contradicted} of {len(targets)} training labels are contradicted and get a lower weight"
    )
    return weights


def require_all_labels(data: SplitData, examples: Sequence[Example]) -> None:
    """Raise Failure if a label has no photo among the training examples."""
    present = {label for example in examples for label in example.labels or (example.label,)}
    missing = [name for name in data.labels if name not in present]
    if missing:
        raise Failure(f"no readable photos in train/ of: {', '.join(missing)}")


def report_unreadable(
    data: SplitData, unreadable: Mapping[str, str], reporter: ProgressReporter
) -> None:
    """Report which photos are excluded because they can't be read."""
    for path, reason in unreadable.items():
        reporter.report_message(f"excluded {data.folder / path}: {reason}")


def _image_training_set(
    images: ImageSet,
    targets: np.ndarray,
    weights: np.ndarray,
    options: TrainOptions,
) -> ImageTrainingSet:
    return ImageTrainingSet(images, targets, weights, options.augmentation, options.seed)


def _fine_tune(
    network: keras.Model,
    data: SplitData,
    train: SplitFeatures,
    validation: SplitFeatures,
    targets: np.ndarray,
    weights: np.ndarray,
    options: TrainOptions,
    seconds: float,
    folder: Path,
    reporter: ProgressReporter,
) -> FitProgress:
    inception.unfreeze_blocks(network.get_layer("features"), options.fine_tune)
    size = inception.input_side(options.image_size, options.parts)
    images = ImageSet(data.folder, train.examples, size)
    training_set = _image_training_set(images, targets, weights, options)
    validation_images = ImageSet(data.folder, validation.examples, size)
    validation_set = ValidationSet(validation_images.logits, validation.targets, data.facets)
    config, state = options.fine_tuning_config(seconds), folder / "tuning.npz"
    on_epoch_end = partial(reporter.report_epoch, FINE_TUNING)
    return fit(
        network,
        training_set,
        validation_set,
        config,
        state,
        on_epoch_end,
        distribution=options.distribution(),
    )


def _train_from_scratch(
    data: SplitData, options: TrainOptions, folder: Path, reporter: ProgressReporter
) -> TrainedNetwork:
    """Train backbone and head together: a frozen backbone would keep its random weights."""
    feature_layers = options.feature_layers or (inception.TOP_BLOCK,)
    backbone = inception.truncate(
        inception.build_backbone(options.image_size, "none"), feature_layers[-1]
    )
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = SCRATCH_BATCH_NORM_MOMENTUM
    features = inception.build_feature_network(
        backbone, feature_layers, options.parts, data.channels
    )
    side = inception.input_side(options.image_size, options.parts)
    head = inception.build_head(int(features.output.shape[-1]), len(data.labels))
    network = inception.join_head(features, head)
    unreadable: dict[str, str] = {}
    images = {
        split: ImageSet.load_readable(data.folder, data.examples_of(split), side, unreadable)
        for split in ("train", "validation")
    }
    report_unreadable(data, unreadable, reporter)
    examples = {split: image_set.examples for split, image_set in images.items()}
    require_all_labels(data, examples["train"])
    targets, weights = encode_targets(data.targets(examples["train"]), data, options)
    training_set = _image_training_set(images["train"], targets, weights, options)
    validation_set = ValidationSet(
        images["validation"].logits, data.targets(examples["validation"]), data.facets
    )
    config, state = options.scratch_config(options.time_budget), folder / "whole.npz"
    on_epoch_end = partial(reporter.report_epoch, FROM_SCRATCH)
    progress = fit(
        network,
        training_set,
        validation_set,
        config,
        state,
        on_epoch_end,
        distribution=options.distribution(),
    )
    stages = {FROM_SCRATCH: progress}
    return TrainedNetwork(network, head, feature_layers, stages, FROM_SCRATCH, examples, unreadable)
