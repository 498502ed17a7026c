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

from dataset.errors import Failure
from dataset.utils.engines import LOCAL_ENGINE, Engine
from dataset.utils.files import write_json
from dataset.utils.keras_backend import load_state, save_state
from model.data.features import predict_logits
from model.data.loading import Example, SplitData, load_metadata, load_splits
from model.evaluation import calibration
from model.evaluation.metrics import LabeledLogits
from model.evaluation.multi_label import facet_accuracy
from model.reports import run_report
from model.reports.run_results import RunResults
from model.training.config import TrainOptions
from model.training.label_noise import assign_folds
from model.training.stages import train_network
from model.training.train import (
    ConsoleReporter,
    describe_labels,
    recorded_options,
    run_folder,
)

FOLD_FILE = "predictions.npz"


@dataclass(frozen=True)
class FoldResult:
    """Predictions of a fold.

    Attributes:
        examples: The readable photos of the fold.
        probabilities: Calibrated probabilities of shape (n, classes).
        accuracy: Accuracy on the photos of the fold; with facets, on their labelled facets.
    """

    examples: Sequence[Example]
    probabilities: np.ndarray
    accuracy: float


def cross_validate(options: TrainOptions, engine: Engine = LOCAL_ENGINE) -> dict[str, Any]:
    """Train `options.folds` times, write the reports, and return the metrics of all photos.

    Groups of a build (near duplicates, products, authors) stay together. The epochs of each
    training are selected on a neighbouring fold. The test split is not used.

    Args:
        options: How to train.
        engine: Runs the frozen backbone; it does not change the features.

    Raises:
        BadInput: As `train`.
        Failure: As `train`.
    """
    start = time.time()
    with run_folder(options) as folder:
        data = load_splits(options.data)
        pool = [*data.examples_of("train"), *data.examples_of("validation")]
        groups = load_metadata(data.folder, pool).groups
        folds = assign_folds(_strata(data, pool), groups, options.folds, options.seed)
        _require_all_labels(data, pool, folds, options.folds)
        fold_options = replace(options, time_budget=options.time_budget / options.folds)
        results = [
            _train_fold(_split_by_fold(data, pool, folds, fold), fold_options, folder, fold, engine)
            for fold in range(options.folds)
        ]
        return _write_results(folder, data, results, options, time.time() - start)


def _strata(data: SplitData, pool: Sequence[Example]) -> np.ndarray:
    """Return a class index for each photo; with facets, the index of its set of labels."""
    targets = data.targets(pool)
    if data.facets is None:
        return targets
    return np.unique(targets, axis=0, return_inverse=True)[1].reshape(-1)


def _require_all_labels(
    data: SplitData, pool: Sequence[Example], folds: np.ndarray, count: int
) -> None:
    """Raise Failure if a training would have no training photo of a label."""
    for fold in range(count):
        train = (folds != fold) & (folds != (fold + 1) % count)
        present = {
            label
            for example, is_train in zip(pool, train, strict=True)
            if is_train
            for label in example.labels or (example.label,)
        }
        missing = [name for name in data.labels if name not in present]
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


def _train_fold(
    data: SplitData, options: TrainOptions, run_path: Path, fold: int, engine: Engine
) -> FoldResult:
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
        trained = train_network(data, options, folder, reporter, engine=engine)
        reporter.close()
        examples, probabilities = _predict_test_split(trained.prediction_network(options), data)
        save_state(folder / FOLD_FILE, [example.path for example in examples], [probabilities])
        keras.utils.clear_session()
    result = FoldResult(examples, probabilities, _accuracy(probabilities, examples, data))
    click.echo(f"fold {fold + 1}: accuracy {result.accuracy:.3f} of {len(examples)} photos")
    return result


def _accuracy(probabilities: np.ndarray, examples: Sequence[Example], data: SplitData) -> float:
    targets = data.targets(examples)
    if data.facets is None:
        return float((probabilities.argmax(axis=1) == targets).mean())
    return facet_accuracy(LabeledLogits(probabilities, targets), data.facets)


def _predict_test_split(network: keras.Model, data: SplitData) -> tuple[list[Example], np.ndarray]:
    """Return the test photos and their probabilities, calibrated on the validation photos."""
    validation, logits = predict_logits(network, data, "validation", {})
    targets = data.targets(validation)
    examples, test_logits = predict_logits(network, data, "test", {})
    if data.facets is None:
        temperature = calibration.fit_temperature(logits, targets)
        return examples, calibration.softmax(test_logits, temperature)
    parts = data.facets.by_facet(logits, targets)
    temperatures = [calibration.fit_temperature(*part) for part in parts]
    return examples, calibration.facet_probabilities(test_logits, data.facets, temperatures)


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
        facets=data.facets,
    )
    write_json(describe_labels(results), folder / "labels.json")
    return run_report.write_results(folder, results)
