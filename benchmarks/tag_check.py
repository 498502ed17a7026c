"""Compare the tag check with cleanlab on the same photos and out-of-fold probabilities.

    python -m benchmarks.tag_check --photos ../shared/data/clothing --weights FILE

Labels of garment photos are flipped, at random or to the most confusable label. `same`: cleanlab's
scores of the probabilities that the tag check uses; `plain`: cleanlab's scores of out-of-fold
probabilities of classifiers that are trained on all labels alike. Measured are the average
precision of the ranking, the precision in its first tenth, and the precision of the verdicts.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.metrics import average_precision_score

from dataset.utils import keras_backend
from dataset.utils.cli_options import format_table

VERDICT_ROWS = ("mistakes", "suggestions of mistakes", "agreement", "cleanlab's issues, plain")
METHODS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


class Photos(NamedTuple):
    """Features of photos with their true classes.

    Attributes:
        values: Backbone features, float32 array of shape (n, width).
        truth: Class indices of shape (n,).
        classes: Number of classes.
    """

    values: np.ndarray
    truth: np.ndarray
    classes: int


def load(photos: Path, weights: str, cache: Path | None) -> Photos:
    """Load the photos of a folder and their features, with the feature layers that suit them."""
    from dataclasses import replace

    from model.data.features import Views
    from model.data.loading import load_splits
    from model.training.config import TrainOptions
    from model.training.linear_probe import choose_feature_layers
    from model.training.stages import prepare_backbone

    data = load_splits(photos)
    extractor = prepare_backbone(TrainOptions(photos, photos, weights, cache=cache)).extractor
    pool = replace(data, examples=tuple(replace(e, split="train") for e in data.examples))
    outputs = extractor.extract(pool, "train", Views())
    half = np.arange(len(outputs.targets)) % 4 == 0
    parts = [
        replace(outputs, values=outputs.values[mask], targets=outputs.targets[mask])
        for mask in (~half, half)
    ]
    feature_layers = choose_feature_layers(parts[0], parts[1], len(data.labels), 0).layers
    values = outputs.values[:, 0, outputs.columns(feature_layers)].astype(np.float32)
    click.echo(
        f"{len(values)} photos, {len(data.labels)} labels, blocks {'+'.join(feature_layers)}"
    )
    return Photos(values, outputs.targets, len(data.labels))


def plain_probabilities(photos: Photos, tags: np.ndarray, seed: int) -> np.ndarray:
    """Return out-of-fold probabilities of ridge classifiers that are trained on all tags.

    Their number and their features are those of `cross_validated_probabilities`.
    """
    from model.tag_check.noise_model import FOLDS, ROUNDS, normalize_features
    from model.training.label_noise import assign_folds, predict_out_of_fold
    from model.training.linear_probe import ridge_scores

    values, wanted = (
        normalize_features(photos.values),
        np.eye(photos.classes, dtype=np.float32)[tags],
    )

    def logits(rest: np.ndarray, weights: np.ndarray, held: np.ndarray) -> np.ndarray:
        return ridge_scores(values[rest], wanted[rest], weights, values[held])

    ones = np.ones(len(tags), np.float32)
    return np.mean(
        [
            predict_out_of_fold(
                tags, assign_folds(tags, None, FOLDS, seed + one), photos.classes, ones, logits
            )
            for one in range(ROUNDS)
        ],
        axis=0,
    )


def flipped(photos: Photos, confusable: np.ndarray | None, rate: float, seed: int) -> np.ndarray:
    """Return tags of which a fraction is wrong: at random, or the most confusable class."""
    rng = np.random.default_rng(seed)
    tags = photos.truth.copy()
    some = rng.choice(len(tags), round(rate * len(tags)), replace=False)
    moved = (tags[some] + rng.integers(1, photos.classes, len(some))) % photos.classes
    tags[some] = moved if confusable is None else confusable[tags[some]]
    return tags


def first_tenth(score: np.ndarray, wrong: np.ndarray) -> float:
    """Return the fraction of wrong tags among the tenth with the highest score."""
    return float(wrong[np.argsort(-score, kind="stable")[: len(score) // 10]].mean())


def scored(photos: Photos, tags: np.ndarray, seed: int) -> dict[str, tuple[float, ...]]:
    """Return ranking -> average precision and precision in the first tenth, by the true labels.

    For verdicts: name -> fraction of correct ones and their number.
    """
    from model.tag_check.noise_model import (
        AGREES,
        MISTAKE,
        choose_thresholds,
        cross_validated_probabilities,
        decide_verdicts,
        fit_noise_model,
    )

    wrong = tags != photos.truth
    probabilities = cross_validated_probabilities(photos.values, tags, None, photos.classes, seed)
    plain = plain_probabilities(photos, tags, seed)
    noise_model = fit_noise_model(probabilities, tags)
    verdicts = decide_verdicts(
        noise_model, choose_thresholds(noise_model, probabilities, tags), probabilities, tags
    )
    ranked = {"ours": verdicts.wrong_probability}
    for name, some in (("same", probabilities), ("plain", plain)):
        for method in METHODS:
            score = get_label_quality_scores(tags, some, method=method)
            ranked[f"cleanlab {method}, {name}"] = -score
    found: dict[str, tuple[float, ...]] = {
        name: (float(average_precision_score(wrong, score)), first_tenth(score, wrong))
        for name, score in ranked.items()
    }
    verdict = np.array(verdicts.verdict)
    mistake, agrees = verdict == MISTAKE, verdict == AGREES
    found["mistakes"] = (_mean(wrong[mistake]), float(mistake.sum()))
    right = verdicts.best[mistake] == photos.truth[mistake]
    found["suggestions of mistakes"] = (_mean(right), float(mistake.sum()))
    found["agreement"] = (_mean(~wrong[agrees]), float(agrees.sum()))
    issues = find_label_issues(tags, plain, return_indices_ranked_by=None)
    found["cleanlab's issues, plain"] = (_mean(wrong[issues]), float(issues.sum()))
    return found


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def confusable_of(photos: Photos) -> np.ndarray:
    """Return the most confusable class of each class, by classifiers trained on the true labels."""
    probabilities = plain_probabilities(photos, photos.truth, 0)
    sums = np.stack(
        [probabilities[photos.truth == one].sum(axis=0) for one in range(photos.classes)]
    )
    np.fill_diagonal(sums, -1)
    found: np.ndarray = sums.argmax(axis=1)
    return found


def report(title: str, runs: Sequence[Mapping[str, tuple[float, ...]]]) -> str:
    """Format the means over runs as a table."""
    rows = []
    for name in runs[0]:
        # A run without such verdicts has no precision.
        seen = [run[name][0] for run in runs if not np.isnan(run[name][0])]
        first, second = np.mean(seen or np.nan), np.mean([run[name][1] for run in runs])
        if name in VERDICT_ROWS:
            rows.append((name, f"{first:.3f} correct", f"of {second:.1f}"))
        else:
            rows.append(
                (name, f"{first:.3f} average precision", f"{second:.3f} in the first tenth")
            )
    return f"{title}\n{format_table(('ranking', 'mean', ''), rows)}\n"


@click.command()
@click.option("--photos", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--weights", default="imagenet", help="`imagenet` or a Keras weights file.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder of cached features.")
@click.option("--rates", default="0.1", help="Comma-separated fractions of wrong labels.")
@click.option("--seeds", default=3)
def main(photos: Path, weights: str, cache: Path | None, rates: str, seeds: int) -> None:
    """Print the results, as means over seeds."""
    keras_backend.import_backend()
    loaded = load(photos, weights, cache)
    ways: dict[str, Callable[[], np.ndarray | None]] = {
        "at random": lambda: None,
        "to the most confusable label": lambda: confusable_of(loaded),
    }
    for way, chosen in ways.items():
        confusable = chosen()
        for rate in map(float, rates.split(",")):
            runs = [
                scored(loaded, flipped(loaded, confusable, rate, seed), seed)
                for seed in range(seeds)
            ]
            click.echo(report(f"{rate:.0%} of labels flipped {way}, {seeds} seeds", runs))


if __name__ == "__main__":
    main()
