"""Train a network, evaluate it once on the test split, and write a run directory.

Plain folders with leaks, test photos that are among the others, are refused (`check_for_leaks`).
"""

import io
import json
import math
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import click
import keras
import numpy as np
from tqdm import tqdm

from dataset.duplicates.search import LoadedPhotos, PhotoSignature, compare_candidates
from dataset.errors import BadInput, Failure, first_line
from dataset.export.layout import MANIFEST
from dataset.images.io import Unreadable
from dataset.utils.cli_options import options_as_json
from dataset.utils.engines import LOCAL_ENGINE, Engine
from dataset.utils.files import make_folder, require_new_run, unfinished_path, write_json
from dataset.utils.threads import map_in_threads
from model.data.augmentation import render_samples
from model.data.feature_cache import default_cache_folder
from model.data.features import predict_logits, read_letterboxed
from model.data.loading import Example, SplitData, hash_dataset, load_splits
from model.inference.grad_cam import JPEG_QUALITY, draw_heat_map, heat_map
from model.inference.predictor import nested_networks
from model.network import inception
from model.reports import run_report
from model.reports.html import most_confident_mistakes
from model.reports.run_results import RunResults
from model.training.config import TrainOptions
from model.training.fit import FitProgress, TensorBoardWriter
from model.training.stages import HEAD, TrainedNetwork, report_unreadable, train_network

OPTIONS_FILE = "options.json"
# Options that may change when a training resumes: paths, and the time budget.
CHANGEABLE_OPTIONS = {"data", "out", "cache", "time_budget", "resume"}
# Pairs that an error message names.
MAX_EXAMPLES = 3


class ResumableOptions(Protocol):
    """Options, a dataclass, of a command that can be interrupted and resumed."""

    @property
    def out(self) -> Path:
        """The folder to write."""

    @property
    def resume(self) -> bool:
        """Whether an interrupted command continues."""


def train(options: TrainOptions, engine: Engine = LOCAL_ENGINE) -> dict[str, Any]:
    """Train a classifier and write its run directory.

    Until it is complete the directory is `<out>.unfinished`, from which `--resume` continues.

    Args:
        options: How to train.
        engine: Runs the frozen backbone; it does not change the features.

    Returns:
        The content of `metrics.json`.

    Raises:
        BadInput: There is no data, `--out` exists, there is nothing to resume, or test photos are
            among the others.
        Failure: There is only one label, photos of a label can't be read, the weights can't be
            loaded, or the loss is NaN.
    """
    start = time.time()
    with run_folder(options) as folder:
        data = load_splits(options.data)
        if not data.examples_of("test"):
            raise Failure(f"{data.folder}/test has no photos; build the data set with a test split")
        leaked = check_for_leaks(data, options.cache, options.allow_leaks)
        reporter = ConsoleReporter(folder)
        trained = train_network(data, options, folder, reporter, engine=engine)
        reporter.close()
        network = trained.prediction_network(options)
        results = predict_splits(data, network, trained, options, reporter)
        metrics = {**results.extra_metrics, "learned_test_photos": leaked}
        results = replace(results, extra_metrics=metrics)
        results = replace(results, heat_maps=explain_errors(results, network))
        return write_run(folder, results, network, time.time() - start)


@contextmanager
def run_folder(options: ResumableOptions) -> Iterator[Path]:
    """Yield the folder of an unfinished run, and give it its final name if the block succeeds.

    If the block fails before any state was saved, the folder is removed, and so are the folders
    that were created for it.
    """
    new_parents = [parent for parent in options.out.parents if not parent.exists()]
    folder = begin_run(options)
    try:
        yield folder
        finish_run(folder, options.out)
    except BaseException as error:
        is_resumable = any(folder.rglob("*.npz"))
        if not is_resumable:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                for parent in new_parents:
                    parent.rmdir()
        if isinstance(error, OSError):
            remedy = "then continue with --resume" if is_resumable else "or choose another folder"
            raise Failure(
                f"--out {options.out} can't be written: {first_line(error)}; free disk space,"
                f" {remedy}"
            ) from error
        raise


def begin_run(options: ResumableOptions) -> Path:
    """Create the folder of an unfinished run, or return that of the run to resume.

    Raises:
        BadInput: `--out` exists, or there is nothing to resume.
    """
    require_new_run(options.out, options.resume)
    folder = unfinished_path(options.out)
    fixed = {n: v for n, v in options_as_json(options).items() if n not in CHANGEABLE_OPTIONS}
    fixed = json.loads(json.dumps(fixed))
    if options.resume:
        _require_same_options(folder, fixed)
        return folder
    make_folder(folder, options.out)
    write_json(fixed, folder / OPTIONS_FILE)
    return folder


def recorded_options(options: TrainOptions) -> dict[str, Any]:
    """Return the options for `run.json`; paths hold from any folder."""
    values = {name: v for name, v in options_as_json(options).items() if name != "resume"}
    for name in ("data", "cache"):
        if values[name] is not None:
            values[name] = str(Path(values[name]).absolute())
    if options.weights not in inception.NAMED_WEIGHTS:
        values["weights"] = str(Path(options.weights).absolute())
    return values


def _require_same_options(folder: Path, options: dict[str, Any]) -> None:
    try:
        before = json.loads((folder / OPTIONS_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"--resume: {folder} is not an interrupted training; start one without --resume"
        ) from error
    changed = [name for name in options if before.get(name) != options[name]]
    if changed:
        values = ", ".join(f"{name} was {before.get(name)!r}" for name in changed)
        raise BadInput(f"--resume: {folder} was started with other options: {values}")


def predict_splits(
    data: SplitData,
    network: keras.Model,
    trained: TrainedNetwork,
    options: TrainOptions,
    reporter: "ConsoleReporter",
) -> RunResults:
    """Predict the validation and test photos.

    Args:
        data: The splits.
        network: Pixels -> logits.
        trained: How the network was trained.
        options: How to train.
        reporter: Receives the names of unreadable photos.
    """
    unreadable = dict(trained.unreadable)
    predictions: dict[str, tuple[list[Example], np.ndarray]] = {}
    for split in ("validation", "test"):
        unreadable_now: dict[str, str] = {}
        predictions[split] = predict_logits(network, data, split, unreadable_now)
        new = {path: why for path, why in unreadable_now.items() if path not in unreadable}
        report_unreadable(data, new, reporter)
        unreadable |= unreadable_now
    if not predictions["test"][0]:
        raise Failure(f"none of the photos in {data.folder}/test can be read")
    stages = list(trained.stages.values())
    kept = list(trained.stages).index(trained.kept_stage)
    counts = {split: len(examples) for split, examples in trained.examples.items()}
    train_examples = trained.examples["train"]
    return RunResults(
        folder=data.folder,
        labels=data.labels,
        test=predictions["test"][0],
        test_logits=predictions["test"][1],
        validation=predictions["validation"][0],
        validation_logits=predictions["validation"][1],
        history=join_histories(stages),
        best_epoch=sum(stage.done for stage in stages[:kept]) + stages[kept].best_epoch,
        options=recorded_options(options),
        seed=options.seed,
        first_stage_epochs=stages[0].done if len(stages) > 1 else None,
        extra_metrics={
            "counts": counts | {"test": len(predictions["test"][0])},
            "unreadable": unreadable,
            "kept_stage": trained.kept_stage,
        },
        facts={"backend": keras.backend.backend(), **trained.facts},
        augmentation_samples=render_samples(
            data, train_examples, options.augmentation, options.seed
        ),
        facets=data.facets,
    )


def explain_errors(results: RunResults, network: keras.Model) -> dict[int, bytes]:
    """Draw Grad-CAM maps of the most confident errors.

    Args:
        results: Predictions of the test photos.
        network: Pixels -> logits.

    Returns:
        Index of a test photo -> JPEG file; empty with several labels per photo.
    """
    if results.facets is not None:
        return {}
    networks = {layer.name: layer for layer in nested_networks(network)}
    indices, drawn = most_confident_mistakes(results), {}
    examples = [results.test[index] for index in indices]
    photos = read_letterboxed(results.folder, examples, int(network.input.shape[1]))
    for index, (_, photo) in zip(indices, photos, strict=True):
        # It was predicted before, but may be gone now.
        if isinstance(photo, str):
            continue
        pixels = photo.round().astype(np.uint8)
        predicted = int(results.probabilities[index].argmax())
        heat = heat_map(networks["features"], networks["head"], pixels, predicted)
        out = io.BytesIO()
        draw_heat_map(pixels, heat).save(out, "JPEG", quality=JPEG_QUALITY)
        drawn[index] = out.getvalue()
    return drawn


def join_histories(stages: list[FitProgress]) -> dict[str, list[float]]:
    """Concatenate the histories of stages; a metric that a stage lacks is NaN there."""
    names = dict.fromkeys(name for stage in stages for name in stage.history)
    return {
        name: [
            value for stage in stages for value in stage.history.get(name, [math.nan] * stage.done)
        ]
        for name in names
    }


def write_run(
    folder: Path, results: RunResults, network: keras.Model, seconds: float
) -> dict[str, Any]:
    """Write the model and its reports into a folder, and return the metrics.

    Args:
        folder: An existing folder.
        results: Predictions of the validation and test photos.
        network: Pixels -> logits.
        seconds: Duration of the training.
    """
    if results.facets is None:
        classifier = inception.build_classifier(network, results.temperature)
    else:
        probabilities = inception.build_facet_probabilities(
            len(results.labels), results.facets.members, results.temperatures
        )
        classifier = inception.build_classifier(network, 1.0, probabilities)
    classifier.save(folder / "model.keras")
    write_json(describe_labels(results), folder / "labels.json")
    facts = {**results.facts, "seconds": round(seconds, 1)}
    return run_report.write_results(folder, replace(results, facts=facts))


def describe_labels(results: RunResults) -> dict[str, Any]:
    """Return the content of `labels.json`: the labels, their facets and thresholds."""
    labels = {"labels": list(results.labels)}
    if results.facets is None:
        return labels
    facets = results.facets.named_labels(results.labels)
    return {**labels, "facets": facets, "thresholds": results.thresholds}


def finish_run(folder: Path, out: Path) -> None:
    """Rename a finished run, and remove the files that only `--resume` needs."""
    if out.exists():
        out.rmdir()
    folder.rename(out)
    # States of stages and folds; no other file of a run has this suffix.
    for path in out.rglob("*.npz"):
        path.unlink()
    (out / OPTIONS_FILE).unlink(missing_ok=True)


class ConsoleReporter:
    """Show the progress of a training: a bar for the head's epochs, a line for each other epoch.

    Args:
        folder: Where TensorBoard's logs are written.
        quiet: Show only the lines of slow epochs.
    """

    def __init__(self, folder: Path, quiet: bool = False) -> None:
        self.tensorboard, self.quiet = TensorBoardWriter(folder / "logs"), quiet
        self.bar: tqdm | None = None

    def report_message(self, text: str) -> None:
        """Print a message; exclusions go to standard error."""
        if not self.quiet:
            click.echo(text, err=text.startswith("excluded"))

    def report_epoch(self, stage: str, progress: FitProgress) -> None:
        """Show the metrics of the last finished epoch, and write them for TensorBoard."""
        last = {name: values[-1] for name, values in progress.history.items()}
        self.tensorboard.write(stage, progress.done, last)
        if stage == HEAD:
            self.bar = self.bar or tqdm(
                total=progress.epochs,
                desc=stage,
                unit=" epochs",
                disable=True if self.quiet else None,
            )
            self.bar.n = progress.done
            self.bar.set_postfix({name: f"{value:.3f}" for name, value in last.items()})
            return
        self.close()
        metrics = ", ".join(
            f"{name.replace('val_', 'validation ')} {value:.3f}" for name, value in last.items()
        )
        seconds = (progress.epochs - progress.done) * progress.seconds / progress.done
        click.echo(
            f"{stage} {progress.done}/{progress.epochs}: {metrics};"
            f" best epoch {progress.best_epoch}, about {seconds / 60:.0f} min left"
        )

    def close(self) -> None:
        """Close the progress bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def find_leaked_test_photos(data: SplitData, cache: Path | None) -> list[tuple[str, str]]:
    """Find the test photos that match a train or validation photo.

    A build has been audited; its photos are not compared again.

    Args:
        data: The splits.
        cache: Folder that keeps the result for the next training on the same photos; None: the
            default one.

    Returns:
        Path of each such test photo, and of one photo that it shows.
    """
    if (data.folder / MANIFEST).exists() or not data.examples_of("test"):
        return []
    digest = hash_dataset(data.folder, data.examples).sha256
    file = (cache or default_cache_folder()) / f"split-leaks-{digest[:24]}.json"
    try:
        pairs = json.loads(file.read_text(encoding="utf-8"))["pairs"]
        return [(test, other) for test, other in pairs]
    except (OSError, ValueError, KeyError):
        pairs = _find_leaks(data.folder, data.examples)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json({"pairs": pairs}, file)
    return pairs


def check_for_leaks(data: SplitData, cache: Path | None, allow: bool) -> int:
    """Return how many test photos leak into the train or validation split.

    Raises:
        BadInput: There are any, and they are not allowed.
    """
    pairs = find_leaked_test_photos(data, cache)
    if pairs and not allow:
        examples = "; ".join(f"{test} is {other}" for test, other in pairs[:MAX_EXAMPLES])
        raise BadInput(
            f"{len(pairs)} of the {len(data.examples_of('test'))} test photos of {data.folder} are"
            f" among the train or validation photos, resized, cropped or changed ({examples}), so"
            " the accuracy would be too high. Move them to one split, let build-dataset split the"
            " photos, or train with --allow-leaks"
        )
    return len(pairs)


def _find_leaks(folder: Path, examples: Sequence[Example]) -> list[tuple[str, str]]:
    def read(example: Example) -> PhotoSignature | None:
        try:
            return PhotoSignature.read(folder / example.path)
        except (Unreadable, OSError):
            # The training excludes and reports it.
            return None

    signatures = tqdm(
        map_in_threads(read, examples),
        total=len(examples),
        desc="comparing splits",
        unit=" photos",
        disable=None,
    )
    known = [
        (example, photo)
        for example, photo in zip(examples, signatures, strict=True)
        if photo is not None
    ]
    # In an order of their content, so that the result does not depend on names.
    known.sort(key=lambda pair: pair[1].features.packed)
    photos = LoadedPhotos(
        [photo for _, photo in known],
        lambda number: (folder / known[number][0].path).read_bytes(),
    )
    is_test = np.array([example.split == "test" for example, _ in known], int)
    leaked: dict[str, str] = {}
    for batch in compare_candidates(photos, groups=is_test, thorough=True):
        for pair in batch:
            if pair.comparison.is_related:
                first, second = known[pair.first][0], known[pair.second][0]
                test, other = (first, second) if first.split == "test" else (second, first)
                leaked[test.path] = min(other.path, leaked.get(test.path, other.path))
    return sorted(leaked.items())
