"""Cross-validate: train K times, and evaluate each network on its held-out fold."""

import csv
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import keras
import numpy as np

from dataset.errors import BadInput, Failure
from dataset.utils.files import write_json
from dataset.utils.keras_backend import load_state, save_state
from model.data.features import predict_logits
from model.data.loading import Example, SplitData, class_indices, load_splits
from model.data.metadata import load_metadata
from model.evaluation import calibration
from model.reports import run_report
from model.reports.run_results import RunResults
from model.training.config import TrainOptions
from model.training.label_noise import assign_folds
from model.training.stages import train_network
from model.training.train import ConsoleReporter, recorded_options, run_folder

FOLD_FILE = "predictions.npz"


@dataclass(frozen=True)
class FoldResult:
    """Predictions of a fold.

    Attributes:
        examples: The readable photos of the fold.
        probabilities: Calibrated probabilities of shape (n, classes).
        targets: Class indices of shape (n,).
    """

    examples: Sequence[Example]
    probabilities: np.ndarray
    targets: np.ndarray

    @property
    def accuracy(self) -> float:
        """Accuracy on the photos of the fold."""
        return float((self.probabilities.argmax(axis=1) == self.targets).mean())


def cross_validate(options: TrainOptions) -> dict[str, Any]:
    """Train `options.folds` times, write the reports, and return the metrics of all photos.

    Groups of a build (near duplicates, products, authors) stay together. The epochs of each
    training are selected on a neighbouring fold. The test split is not used.

    Raises:
        BadInput: As `train`.
        Failure: As `train`.
    """
    start = time.time()
    with run_folder(options) as folder:
        data = load_splits(options.data)
        if data.facets is not None:
            raise BadInput(
                f"--folds needs one label per photo, and {data.folder} has several; train without"
                " --folds"
            )
        pool = [*data.examples_of("train"), *data.examples_of("validation")]
        targets = class_indices(pool, data.labels)
        groups = load_metadata(data.folder, pool).groups
        folds = assign_folds(targets, groups, options.folds, options.seed)
        _require_all_labels(data, targets, folds, options.folds)
        fold_options = replace(options, time_budget=options.time_budget / options.folds)
        results = [
            _train_fold(_split_by_fold(data, pool, folds, fold), fold_options, folder, fold)
            for fold in range(options.folds)
        ]
        return _write_results(folder, data, results, options, time.time() - start)


def _require_all_labels(
    data: SplitData, targets: np.ndarray, folds: np.ndarray, count: int
) -> None:
    """Raise Failure if a training would have no training photo of a label."""
    for fold in range(count):
        train = targets[(folds != fold) & (folds != (fold + 1) % count)]
        missing = [name for index, name in enumerate(data.labels) if index not in train]
        if missing:
            raise Failure(
                f"--folds {count}: too few photos or groups of {', '.join(missing)} to train on in"
                " every fold; crawl more photos, or build without these labels"
            )


def _split_by_fold(
    data: SplitData, pool: Sequence[Example], folds: np.ndarray, fold: int
) -> SplitData:
    """Return data with one fold as test split, the next one for validation, the rest to train."""
    splits = {fold: "test", (fold + 1) % (int(folds.max()) + 1): "validation"}
    examples = tuple(
        replace(example, split=splits.get(int(number), "train"))
        for example, number in zip(pool, folds, strict=True)
    )
    return replace(data, examples=examples)


def _train_fold(data: SplitData, options: TrainOptions, run_path: Path, fold: int) -> FoldResult:
    folder = run_path / f"fold-{fold + 1}"
    folder.mkdir(exist_ok=True)
    by_path = {example.path: example for example in data.examples_of("test")}
    if (folder / FOLD_FILE).exists():
        remedy = f"remove {folder} to train that fold again"
        paths, (probabilities,) = load_state(folder / FOLD_FILE, remedy)
        examples = [by_path[path] for path in paths]
    else:
        click.echo(f"fold {fold + 1} of {options.folds}")
        reporter = ConsoleReporter(folder)
        trained = train_network(data, options, folder, reporter)
        reporter.close()
        examples, probabilities = _predict_test_split(trained.prediction_network(options), data)
        save_state(folder / FOLD_FILE, [example.path for example in examples], [probabilities])
        keras.utils.clear_session()
    result = FoldResult(examples, probabilities, class_indices(examples, data.labels))
    click.echo(f"fold {fold + 1}: accuracy {result.accuracy:.3f} of {len(examples)} photos")
    return result


def _predict_test_split(network: keras.Model, data: SplitData) -> tuple[list[Example], np.ndarray]:
    """Return the test photos and their probabilities, calibrated on the validation photos."""
    validation, logits = predict_logits(network, data, "validation", {})
    temperature = calibration.fit_temperature(logits, class_indices(validation, data.labels))
    examples, logits = predict_logits(network, data, "test", {})
    return examples, calibration.softmax(logits, temperature)


def _write_results(
    folder: Path,
    data: SplitData,
    folds: Sequence[FoldResult],
    options: TrainOptions,
    seconds: float,
) -> dict[str, Any]:
    accuracies = [fold.accuracy for fold in folds]
    with (folder / "folds.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["fold", "photos", "accuracy"])
        for number, fold in enumerate(folds):
            writer.writerow([number + 1, len(fold.examples), repr(fold.accuracy)])
    mean, deviation = float(np.mean(accuracies)), float(np.std(accuracies, ddof=1))
    click.echo(
        f"accuracy over {len(folds)} folds: mean {mean:.3f}, standard deviation {deviation:.3f}"
    )
    write_json({"labels": list(data.labels)}, folder / "labels.json")
    probabilities = np.concatenate([fold.probabilities for fold in folds])
    results = RunResults(
        folder=data.folder,
        labels=data.labels,
        test=[example for fold in folds for example in fold.examples],
        test_logits=calibration.log_probabilities(probabilities),
        validation=[],
        validation_logits=np.zeros((0, len(data.labels)), np.float32),
        history={},
        best_epoch=0,
        options=recorded_options(options),
        seed=options.seed,
        extra_metrics={
            "folds": {"accuracy": accuracies, "mean": mean, "standard_deviation": deviation}
        },
        folds=np.repeat(np.arange(len(folds)), [len(fold.examples) for fold in folds]),
        facts={"backend": keras.backend.backend(), "seconds": round(seconds, 1)},
    )
    return run_report.write_results(folder, results)
