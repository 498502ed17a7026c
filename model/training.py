"""A training on one page: read, trunk, fit, look at the test split once, write."""

import math
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np
from tqdm import tqdm

from dataset.errors import BadInput, Failure
from dataset.export import write_json
from dataset.options import plain
from model import classifier, report
from model.calibration import logits_of
from model.data import Data, class_weights, find_data, read
from model.features import Photos, letterboxed, predicted, trunk_outputs
from model.judged import Judged

FROZEN_EPOCHS, WHOLE_EPOCHS = 60, 30
PATIENCE = 8


@dataclass(frozen=True)
class TrainOptions:
    """What `train-model` was asked for. `epochs` None: 60 for a head, 30 for the whole network."""

    data: Path
    out: Path
    weights: str = "imagenet"
    optimizer: str = "adam"
    epochs: int | None = None
    batch_size: int = 32
    image_size: int = 299
    seed: int = 0


@dataclass(frozen=True)
class Schedule:
    """How long to train, and how fast. `patience`: epochs without a better one, then it ends."""

    rate: Any
    epochs: int
    patience: int


@dataclass(frozen=True)
class Fitted:
    """A trained classifier, how it learned, and the epoch that was kept, from 1."""

    network: keras.Model
    history: dict[str, list[float]]
    best: int


def train(options: TrainOptions) -> dict[str, Any]:
    """Train as OPTIONS say, write the run folder, and return its figures.

    Raises:
        BadInput: no data there, or --out is taken.
        Failure: one label only, unreadable photos, weights that can't be had, a loss that is NaN.
    """
    began = time.time()
    refuse_taken(options.out)
    data = find_data(options.data)
    keras.utils.set_random_seed(options.seed)
    trunk = classifier.build_trunk(options.image_size, options.weights)
    splits = {name: _read(data, name, options.image_size) for name in ("train", "validation")}
    fit = fit_whole if options.weights == "none" else fit_head
    fitted = fit(trunk, splits["train"], splits["validation"], len(data.labels), options)
    splits["test"] = test = predicted(fitted.network, read(data, "test"), data.labels)
    _name_unreadable(data, test)
    if not len(test.targets):
        raise Failure(f"{data.folder}/test has no photos to measure on; build with a test share")
    judged = _judged(data, splits, fitted, options)
    return write_run(options, judged, fitted, time.time() - began)


def refuse_taken(out: Path) -> None:
    """Raise BadInput when OUT is there and is not empty: no run is overwritten."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"--out {out} is there already; name a new folder for this run")


def _read(data: Data, split: str, size: int) -> Photos:
    photos = letterboxed(read(data, split), data.labels, size)
    _name_unreadable(data, photos)
    missing = [n for i, n in enumerate(data.labels) if i not in set(photos.targets)]
    if split == "train" and missing:
        raise Failure(f"no readable train photos of: {', '.join(missing)}")
    return photos


def _name_unreadable(data: Data, photos: Photos) -> None:
    for path, reason in photos.unreadable.items():
        click.echo(f"left out {data.folder / path}: {reason}", err=True)


def fit_head(
    trunk: keras.Model, train: Photos, validation: Photos, classes: int, options: TrainOptions
) -> Fitted:
    """Keep TRUNK as it is and train a head on its outputs, computed once a photo."""
    trunk.trainable = False
    features = classifier.build_features(trunk, options.image_size, augment=False)
    head = classifier.build_head(int(trunk.output_shape[-1]), classes)
    outputs = {
        name: trunk_outputs(features, photos.values, options.batch_size, name)
        for name, photos in (("train", train), ("validation", validation))
    }
    epochs = options.epochs or FROZEN_EPOCHS
    rate = 1e-3 if options.optimizer == "adam" else 0.05
    history, best = _fit(
        head,
        (outputs["train"], train.targets),
        (outputs["validation"], validation.targets),
        classes,
        options,
        Schedule(rate, epochs, patience=max(PATIENCE, epochs // 3)),
    )
    return Fitted(classifier.join(features, head), history, best)


def fit_whole(
    trunk: keras.Model, train: Photos, validation: Photos, classes: int, options: TrainOptions
) -> Fitted:
    """Train trunk and head together: random weights, frozen, would stay random."""
    for layer in trunk.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # The default, 0.99, remembers the random start for hundreds of steps.
            layer.momentum = 0.9
    network = classifier.join(
        classifier.build_features(trunk, options.image_size, augment=True),
        classifier.build_head(int(trunk.output_shape[-1]), classes),
    )
    epochs = options.epochs or WHOLE_EPOCHS
    steps = math.ceil(len(train.targets) / options.batch_size) * epochs
    # SGD's usual 0.05 breaks this network in its first steps, when it starts from nothing.
    peak = 1e-3 if options.optimizer == "adam" else 0.005
    rate = keras.optimizers.schedules.CosineDecay(
        peak / 10, steps, warmup_target=peak, warmup_steps=max(1, steps // 10)
    )
    history, best = _fit(
        network,
        (train.values, train.targets),
        (validation.values, validation.targets),
        classes,
        options,
        # The last epochs, at small rates, are the best ones: never end before them.
        Schedule(rate, epochs, patience=epochs),
    )
    return Fitted(network, history, best)


def _fit(
    network: keras.Model,
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    classes: int,
    options: TrainOptions,
    schedule: Schedule,
) -> tuple[dict[str, list[float]], int]:
    """Fit NETWORK and leave it as it was in its best epoch: the lowest validation loss."""
    watched = len(validation[1]) > 0
    bar = _Bar(schedule.epochs)
    callbacks: list[keras.callbacks.Callback] = [keras.callbacks.TerminateOnNaN(), bar]
    if watched:
        callbacks.append(
            keras.callbacks.EarlyStopping(
                "val_loss", patience=schedule.patience, restore_best_weights=True
            )
        )
    network.compile(
        _optimizer(options.optimizer, schedule.rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    history = network.fit(
        *train,
        batch_size=options.batch_size,
        epochs=schedule.epochs,
        validation_data=validation if watched else None,
        class_weight=class_weights(train[1], classes),
        callbacks=callbacks,
        verbose=0,
    ).history
    bar.close()
    if not np.isfinite(history["loss"]).all():
        raise Failure("the loss became NaN; train with a smaller step (--optimizer adam)")
    losses = history.get("val_loss")
    return history, int(np.argmin(losses)) + 1 if losses else len(history["loss"])


def _optimizer(name: str, rate: Any) -> keras.optimizers.Optimizer:
    if name == "sgd":
        return keras.optimizers.SGD(rate, momentum=0.9, nesterov=True)
    return keras.optimizers.Adam(rate)


class _Bar(keras.callbacks.Callback):
    """A line that moves with the epochs."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.bar = tqdm(total=epochs, desc="training", unit=" epochs", disable=None)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Show the figures of EPOCH."""
        self.bar.set_postfix({n: f"{v:.3f}" for n, v in (logs or {}).items() if "rate" not in n})
        self.bar.update()

    def close(self) -> None:
        """End the line."""
        self.bar.close()


def _facts(splits: dict[str, Photos], options: TrainOptions, fitted: Fitted) -> dict[str, Any]:
    return {
        "counts": {name: len(photos.targets) for name, photos in splits.items()},
        "unreadable": {p: r for photos in splits.values() for p, r in photos.unreadable.items()},
        "seed": options.seed,
        "weights": options.weights,
        "best_epoch": fitted.best,
        "epochs": len(fitted.history["loss"]),
    }


def _judged(data: Data, splits: dict[str, Photos], fitted: Fitted, options: TrainOptions) -> Judged:
    test, validation = splits["test"], splits["validation"]
    shares = trunk_outputs(fitted.network, validation.values, options.batch_size, "validation")
    return Judged(
        folder=data.folder,
        labels=data.labels,
        test=test.examples,
        test_logits=logits_of(test.values),
        validation=validation.examples,
        validation_logits=logits_of(shares),
        history=fitted.history,
        best=fitted.best,
        options=plain(options),
        seed=options.seed,
        figures=_facts(splits, options, fitted),
    )


def write_run(
    options: TrainOptions, judged: Judged, fitted: Fitted, seconds: float
) -> dict[str, Any]:
    """Write the run's files aside and rename the folder, so that a half run never stands there."""
    part = options.out.with_name(f".{options.out.name}.part-{os.getpid()}")
    part.mkdir(parents=True)
    # The shares that the model gives are calibrated ones, as in predictions.csv.
    last = fitted.network.layers[-1].get_layer("labels")
    last.set_weights([values / judged.temperature for values in last.get_weights()])
    fitted.network.save(part / "model.keras")
    write_json({"labels": list(judged.labels)}, part / "labels.json")
    facts = {"seconds": round(seconds, 1), "backend": keras.backend.backend()}
    metrics = report.write(part, replace(judged, facts=facts))
    if options.out.exists():
        options.out.rmdir()
    part.rename(options.out)
    return metrics
