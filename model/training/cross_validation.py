"""`--folds K`: K trainings, each judged on the part of the data that it did not see."""

import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np

from dataset.errors import Failure
from dataset.utils.cli_options import options_as_json
from dataset.utils.files import write_json
from dataset.utils.training_state import load_state, save_state
from model.data.features import raw_logits
from model.data.loading import Data, Example, find_data, targets_of
from model.data.metadata import origins
from model.evaluation import calibration
from model.reports import run_report
from model.reports.run_results import Judged
from model.training.config import TrainOptions
from model.training.label_noise import folds_of
from model.training.stages import learn
from model.training.train import Watcher, run_folder

DONE = "judged.npz"


@dataclass(frozen=True)
class Fold:
    """A finished fold: the readable photos it judged, and their calibrated shares."""

    examples: Sequence[Example]
    shares: np.ndarray
    targets: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of its photos that were named rightly."""
        return float((self.shares.argmax(axis=1) == self.targets).mean())


def cross_validate(options: TrainOptions) -> dict[str, Any]:
    """Train and judge OPTIONS.folds times, write the papers, and return the figures of all photos.

    Groups of a build (duplicates, one product, one author) stay together. Each fold stops by a
    neighbouring fold, not by the one that judges it. The test split is not looked at.

    Raises:
        BadInput, Failure: as `train`.
    """
    began = time.time()
    with run_folder(options) as part:
        data = find_data(options.data)
        pool = [*data.of("train"), *data.of("validation")]
        targets = targets_of(pool, data.labels)
        groups = origins(data.folder, pool).groups
        places = folds_of(targets, groups, options.folds, options.seed)
        _refuse_rare(data, targets, places, options.folds)
        shared = replace(options, seconds=options.seconds / options.folds)
        folds = [
            _judged_fold(_as_splits(data, pool, places, fold), shared, part, fold)
            for fold in range(options.folds)
        ]
        return _write(part, data, folds, options, time.time() - began)


def _refuse_rare(data: Data, targets: np.ndarray, places: np.ndarray, count: int) -> None:
    """Raise Failure when one of COUNT folds would leave a label without any train photo."""
    for fold in range(count):
        train = targets[(places != fold) & (places != (fold + 1) % count)]
        missing = [name for place, name in enumerate(data.labels) if place not in train]
        if missing:
            raise Failure(
                f"--folds {count}: too few photos, or groups of them, of {', '.join(missing)} for"
                " each fold to learn it; crawl more, or leave such labels out of the build"
            )


def _as_splits(data: Data, pool: Sequence[Example], places: np.ndarray, fold: int) -> Data:
    """DATA with FOLD of POOL as its test split, the next fold for validation, the rest to train."""
    names = {fold: "test", (fold + 1) % (int(places.max()) + 1): "validation"}
    examples = tuple(
        replace(example, split=names.get(int(place), "train"))
        for example, place in zip(pool, places, strict=True)
    )
    return replace(data, examples=examples)


def _judged_fold(data: Data, options: TrainOptions, part: Path, number: int) -> Fold:
    folder = part / f"fold-{number + 1}"
    folder.mkdir(exist_ok=True)
    by_path = {example.path: example for example in data.of("test")}
    if (folder / DONE).exists():
        paths, (shares,) = load_state(folder / DONE, f"remove {folder} to train that fold again")
        examples = [by_path[path] for path in paths]
    else:
        click.echo(f"fold {number + 1} of {options.folds}")
        watcher = Watcher(folder)
        learned = learn(data, options, folder, watcher)
        watcher.close()
        examples, shares = _shares(learned.judging(options), data)
        save_state(folder / DONE, [example.path for example in examples], [shares])
        keras.utils.clear_session()
    fold = Fold(examples, shares, targets_of(examples, data.labels))
    click.echo(f"fold {number + 1}: accuracy {fold.accuracy:.3f} of {len(examples)} photos")
    return fold


def _shares(network: keras.Model, data: Data) -> tuple[list[Example], np.ndarray]:
    """Calibrated shares of the test photos of DATA, by the temperature of its validation photos."""
    watched, logits = raw_logits(network, data, "validation", {})
    heat = calibration.temperature(logits, targets_of(watched, data.labels))
    examples, logits = raw_logits(network, data, "test", {})
    return examples, calibration.softmax(logits, heat)


def _write(
    part: Path, data: Data, folds: Sequence[Fold], options: TrainOptions, seconds: float
) -> dict[str, Any]:
    accuracies = [fold.accuracy for fold in folds]
    with (part / "folds.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["fold", "photos", "accuracy"])
        for number, fold in enumerate(folds):
            writer.writerow([number + 1, len(fold.examples), repr(fold.accuracy)])
    mean, spread = float(np.mean(accuracies)), float(np.std(accuracies, ddof=1))
    click.echo(
        f"accuracy over {len(folds)} folds: mean {mean:.3f}, standard deviation {spread:.3f}"
    )
    write_json({"labels": list(data.labels)}, part / "labels.json")
    shares = np.concatenate([fold.shares for fold in folds])
    judged = Judged(
        folder=data.folder,
        labels=data.labels,
        test=[example for fold in folds for example in fold.examples],
        test_logits=calibration.logits_of(shares),
        validation=[],
        validation_logits=np.zeros((0, len(data.labels)), np.float32),
        history={},
        best=0,
        options=options_as_json(options),
        seed=options.seed,
        figures={"folds": {"accuracy": accuracies, "mean": mean, "standard_deviation": spread}},
        facts={"backend": keras.backend.backend(), "seconds": round(seconds, 1)},
    )
    return run_report.write(part, judged)
