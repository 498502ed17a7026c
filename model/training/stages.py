"""From data to a network: a head on a frozen trunk, then both together; or all from nothing."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import click
import keras
import numpy as np

from dataset.errors import Failure
from dataset.utils.downloads import file_digest
from model.data.batches import Pixels, PixelsFeed
from model.data.features import Extractor, Outputs, OutputsCache, Views, default_folder
from model.data.loading import Data, Example, class_weights, targets_of
from model.data.metadata import origins
from model.network import dtype, inception
from model.training import label_noise
from model.training.config import TrainOptions
from model.training.fit import Check, Progress, fit
from model.training.linear_probe import KEPT, choose_taps, columns, fit_head, quick_logits

# Less than this is too little to fine-tune anything.
LEAST_SECONDS = 20
# Accuracy of a quick head that more of the trunk to fine-tune is worth.
SLACK = 0.03
# Of a network that starts from nothing: Keras' 0.99 remembers the random start for too long.
MOMENTUM = 0.9
HEAD, TUNING, WHOLE = "head", "fine-tuning", "whole network"


class Watcher(Protocol):
    """Who is told how a training goes."""

    def show(self, stage: str, progress: Progress) -> None:
        """The last epoch of PROGRESS is done."""

    def tell(self, text: str) -> None:
        """TEXT is for people."""


@dataclass(frozen=True)
class Learned:
    """A trained network, pixels -> logits, and how it came about.

    `stages`: name -> how it went, in their order; `kept`: the stage whose network this is.
    `examples`: the readable photos by split; `unreadable`: path -> reason. `said`: facts in words.
    `head` and the `taps` that it reads are parts of the network.
    """

    network: keras.Model
    head: keras.Model
    taps: tuple[str, ...]
    stages: Mapping[str, Progress]
    kept: str
    examples: Mapping[str, Sequence[Example]]
    unreadable: Mapping[str, str]
    said: dict[str, str] = field(default_factory=dict)

    def judging(self, options: TrainOptions) -> keras.Model:
        """The network as it judges photos: pixels -> logits, of both sides where OPTIONS say so."""
        return inception.both_sides(self.network) if options.both_sides else self.network


@dataclass(frozen=True)
class Prepared:
    """A trunk with weights, what computes its outputs, and in which precision."""

    trunk: keras.Model
    extractor: Extractor
    precision: dtype.Chosen


def learn(
    data: Data,
    options: TrainOptions,
    folder: Path,
    watcher: Watcher,
    prepared: Prepared | None = None,
) -> Learned:
    """Train on DATA's train photos as OPTIONS say, watching its validation photos.

    FOLDER takes the state of each stage, from which a killed training goes on. WATCHER is told
    of each epoch. PREPARED, of the same options, saves its time when there are many trainings.

    Raises:
        Failure: no readable photos of a label, weights that can't be had, a loss that is NaN.
    """
    keras.utils.set_random_seed(options.seed)
    for label, count in sorted(data.strangers.items()):
        watcher.tell(f"left out {count} photos of {label!r}, which has none in train/")
    if not data.of("validation"):
        watcher.tell("no validation photos: the last epoch is kept, and shares are not calibrated")
    if options.from_nothing:
        return _learn_from_nothing(data, options, folder, watcher)
    return _learn_in_stages(data, options, folder, watcher, prepared)


def _learn_in_stages(
    data: Data, options: TrainOptions, folder: Path, watcher: Watcher, prepared: Prepared | None
) -> Learned:
    began = time.monotonic()
    prepared = prepared or prepare(options)
    trunk, extractor, chosen = prepared.trunk, prepared.extractor, prepared.precision
    views = Views(options.augmentation, options.views)
    train = extractor.outputs(data, "train", views)
    validation = extractor.outputs(data, "validation", Views())
    unreadable = train.unreadable | validation.unreadable
    name_unreadable(data, unreadable, watcher)
    refuse_missing(data, train.targets)
    taps = options.taps or _chosen_taps(train, validation, len(data.labels), options, watcher)
    weights = weights_of(train.targets, len(data.labels), options)
    if options.noise_robust:
        weights = weights * believed(data, train, validation, taps, options.seed, watcher)
    head, progress = fit_head(
        train,
        validation,
        weights,
        taps,
        len(data.labels),
        options.head_recipe(),
        folder / "head.npz",
        partial(watcher.show, HEAD),
    )
    features = _features(trunk, taps, "float32")
    stages, kept = {HEAD: progress}, HEAD
    seconds = options.seconds and max(0.0, options.seconds - (time.monotonic() - began))
    if options.fine_tune != 0 and options.seconds and seconds < LEAST_SECONDS:
        watcher.tell("no time is left for fine-tuning; give more with --time-budget")
    elif options.fine_tune != 0:
        tuned, before = _features(trunk, taps, chosen.policy), head.get_weights()
        network = inception.join(tuned, head)
        stages[TUNING] = _fine_tune(
            network, data, train, validation, weights, options, seconds, folder, watcher
        )
        if stages[TUNING].loss < progress.loss or not len(validation.targets):
            kept = TUNING
            features.set_weights(tuned.get_weights())
        else:
            watcher.tell("fine-tuning did not lower the validation loss; the head alone is kept")
            head.set_weights(before)
    examples = {"train": train.examples, "validation": validation.examples}
    said = {"precision": chosen.why, "taps": "+".join(taps)}
    network = inception.join(features, head)
    return Learned(network, head, taps, stages, kept, examples, unreadable, said)


def prepare(options: TrainOptions) -> Prepared:
    """The trunk that OPTIONS name, in the precision that suits this machine.

    Raises:
        Failure: its weights can't be had.
    """
    trunk = inception.build_trunk(options.image_size, options.weights)

    def build(policy: str) -> keras.Model:
        return inception.tapped(inception.folded(trunk, policy), KEPT)

    weights = file_digest(inception.weights_file(options.weights), "sha256:" + 16 * "-")
    name = f"inception_v3-{weights.partition(':')[2]}-{options.image_size}"
    folder = options.cache or default_folder()
    features, chosen = dtype.choose(build, options.precision)
    click.echo(f"precision: {chosen.why}")
    cache = OutputsCache(folder, f"{name}-{chosen.policy}")
    return Prepared(trunk, Extractor(features, cache), chosen)


def _features(trunk: keras.Model, taps: Sequence[str], policy: str) -> keras.Model:
    return inception.tapped(inception.cut(inception.folded(trunk, policy), taps[-1]), taps)


def _chosen_taps(
    train: Outputs, validation: Outputs, classes: int, options: TrainOptions, watcher: Watcher
) -> tuple[str, ...]:
    slack = 0.0 if options.fine_tune == 0 else SLACK
    tapped = choose_taps(train, validation, classes, options.seed, slack)
    if tapped.accuracy is not None:
        blocks, accuracy = " + ".join(tapped.taps), f"{tapped.accuracy:.3f} with a quick head"
        watcher.tell(f"the head reads {blocks}: good on validation ({accuracy})")
    return tapped.taps


def weights_of(targets: np.ndarray, classes: int, options: TrainOptions) -> np.ndarray:
    """(n,) float32: what each example counts in the loss."""
    weights = class_weights(targets, classes) if options.class_weights else np.ones(len(targets))
    return weights.astype(np.float32)


def believed(
    data: Data,
    train: Outputs,
    validation: Outputs,
    taps: Sequence[str],
    seed: int,
    watcher: Watcher,
) -> np.ndarray:
    """(n,) float32 in (0, 1]: how far the label of each train photo is believed.

    All of them wholly where a quick head on the validation photos is more often right that way.
    """
    classes, places = len(data.labels), columns(taps)
    values = train.values[:, 0, places].astype(np.float32)
    seen = validation.values[:, 0, places].astype(np.float32)
    targets, groups = train.targets, origins(data.folder, train.examples).groups

    def logits(rest: np.ndarray, weights: np.ndarray, held: np.ndarray) -> np.ndarray:
        return quick_logits(values[rest], targets[rest], weights, values[held], classes)

    def accuracy(weights: np.ndarray) -> float:
        found = quick_logits(values, targets, weights, seen, classes).argmax(axis=1)
        return float((found == validation.targets).mean())

    weights = label_noise.trust(targets, groups, classes, seed, logits)
    doubted = int((weights < 1).sum())
    if len(seen) and accuracy(weights) < accuracy(np.ones_like(weights)):
        watcher.tell(f"{doubted} train labels are contradicted; doubting them helps nobody here")
        return np.ones_like(weights)
    watcher.tell(f"{doubted} of {len(targets)} train labels are contradicted, and count less")
    return weights


def refuse_missing(data: Data, targets: np.ndarray) -> None:
    """Raise Failure when a label of DATA has no photo among the train TARGETS."""
    missing = [name for place, name in enumerate(data.labels) if place not in set(targets)]
    if missing:
        raise Failure(f"no readable train photos of: {', '.join(missing)}")


def name_unreadable(data: Data, unreadable: Mapping[str, str], watcher: Watcher) -> None:
    """Say which photos of DATA are left out, and why."""
    for path, reason in unreadable.items():
        watcher.tell(f"left out {data.folder / path}: {reason}")


def _pixels_feed(
    pixels: Pixels, targets: np.ndarray, weights: np.ndarray, classes: int, options: TrainOptions
) -> PixelsFeed:
    """PIXELS of TARGETS, (n,) int, that count as WEIGHTS say, augmented as OPTIONS say."""
    shares = np.eye(classes, dtype=np.float32)[targets]
    return PixelsFeed(pixels, shares, weights, options.augmentation, options.seed)


def _fine_tune(
    network: keras.Model,
    data: Data,
    train: Outputs,
    validation: Outputs,
    weights: np.ndarray,
    options: TrainOptions,
    seconds: float,
    folder: Path,
    watcher: Watcher,
) -> Progress:
    inception.train_blocks(network.get_layer("features"), options.fine_tune)
    size = options.image_size
    pixels = Pixels(data.folder, train.examples, size)
    feed = _pixels_feed(pixels, train.targets, weights, len(data.labels), options)
    check = Check(Pixels(data.folder, validation.examples, size).logits, validation.targets)
    recipe = options.tuning_recipe(seconds)
    return fit(network, feed, check, recipe, folder / "tuning.npz", partial(watcher.show, TUNING))


def _learn_from_nothing(
    data: Data, options: TrainOptions, folder: Path, watcher: Watcher
) -> Learned:
    """Trunk and head together: random weights, frozen, would stay random."""
    taps = options.taps or (inception.TOP,)
    trunk = inception.cut(inception.build_trunk(options.image_size, "none"), taps[-1])
    for layer in trunk.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = MOMENTUM
    features = inception.tapped(trunk, taps)
    head = inception.build_head(int(features.output.shape[-1]), len(data.labels))
    network = inception.join(features, head)
    unreadable: dict[str, str] = {}
    pixels = {
        split: Pixels.readable(data.folder, data.of(split), options.image_size, unreadable)
        for split in ("train", "validation")
    }
    name_unreadable(data, unreadable, watcher)
    targets = {split: targets_of(some.examples, data.labels) for split, some in pixels.items()}
    refuse_missing(data, targets["train"])
    weights = weights_of(targets["train"], len(data.labels), options)
    feed = _pixels_feed(pixels["train"], targets["train"], weights, len(data.labels), options)
    check = Check(pixels["validation"].logits, targets["validation"])
    recipe = options.whole_recipe(options.seconds)
    progress = fit(network, feed, check, recipe, folder / "whole.npz", partial(watcher.show, WHOLE))
    examples = {split: some.examples for split, some in pixels.items()}
    return Learned(network, head, taps, {WHOLE: progress}, WHOLE, examples, unreadable)
