"""Wrong tags found: ours and cleanlab, on the same photos and the same out-of-fold probabilities.

    python -m benchmarks.tag_check --photos ../shared/data/clothing --weights FILE

Labels of real garment photos are flipped, to any other label at random or each to the one that it
is most taken for. `same`: cleanlab's scores of the very probabilities that ours starts from;
`plain`: of out-of-fold probabilities of heads that believe all labels alike. Average precision of
the ranking, and precision in its first tenth; and of what ours asserts, how much is right.
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
from dataset.utils.tables import format_table

SAID = ("asserted mistakes", "their suggestions", "asserted agreement", "cleanlab's issues, plain")
METHODS = ("self_confidence", "normalized_margin", "confidence_weighted_entropy")


class Photos(NamedTuple):
    """Backbone outputs, (n, width) float32, and true classes, (n,) int, of CLASSES."""

    values: np.ndarray
    truth: np.ndarray
    classes: int


def load(photos: Path, weights: str, cache: Path | None) -> Photos:
    """All photos of the folder PHOTOS, seen by the blocks of the backbone that suit them."""
    from dataclasses import replace

    from model.data.features import Views
    from model.data.loading import load_splits
    from model.training.config import TrainOptions
    from model.training.linear_probe import choose_feature_layers, feature_columns
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
    values = outputs.values[:, 0, feature_columns(feature_layers)].astype(np.float32)
    click.echo(
        f"{len(values)} photos, {len(data.labels)} labels, blocks {'+'.join(feature_layers)}"
    )
    return Photos(values, outputs.targets, len(data.labels))


def plain_shares(photos: Photos, tags: np.ndarray, seed: int) -> np.ndarray:
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
    """Tags of which RATE are wrong: at random, or each what CONFUSABLE, (classes,), says."""
    rng = np.random.default_rng(seed)
    tags = photos.truth.copy()
    some = rng.choice(len(tags), round(rate * len(tags)), replace=False)
    moved = (tags[some] + rng.integers(1, photos.classes, len(some))) % photos.classes
    tags[some] = moved if confusable is None else confusable[tags[some]]
    return tags


def first_tenth(score: np.ndarray, wrong: np.ndarray) -> float:
    """Share of wrong ones among the tenth of the highest SCORE."""
    return float(wrong[np.argsort(-score, kind="stable")[: len(score) // 10]].mean())


def scored(photos: Photos, tags: np.ndarray, seed: int) -> dict[str, tuple[float, ...]]:
    """Ranking -> average precision, precision in the first tenth, seen on the true labels.

    And what is asserted: name -> share that is right, how many.
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
    plain = plain_shares(photos, tags, seed)
    noise_model = fit_noise_model(probabilities, tags)
    said = decide_verdicts(
        noise_model, choose_thresholds(noise_model, probabilities, tags), probabilities, tags
    )
    ranked = {"ours": said.wrong_probability}
    for name, some in (("same", probabilities), ("plain", plain)):
        for method in METHODS:
            score = get_label_quality_scores(tags, some, method=method)
            ranked[f"cleanlab {method}, {name}"] = -score
    found: dict[str, tuple[float, ...]] = {
        name: (float(average_precision_score(wrong, score)), first_tenth(score, wrong))
        for name, score in ranked.items()
    }
    verdict = np.array(said.verdict)
    mistake, agrees = verdict == MISTAKE, verdict == AGREES
    found["asserted mistakes"] = (_mean(wrong[mistake]), float(mistake.sum()))
    right = said.best[mistake] == photos.truth[mistake]
    found["their suggestions"] = (_mean(right), float(mistake.sum()))
    found["asserted agreement"] = (_mean(~wrong[agrees]), float(agrees.sum()))
    issues = find_label_issues(tags, plain, return_indices_ranked_by=None)
    found["cleanlab's issues, plain"] = (_mean(wrong[issues]), float(issues.sum()))
    return found


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def confusable_of(photos: Photos) -> np.ndarray:
    """(classes,): what each class is most taken for by heads that learned from the true labels."""
    probabilities = plain_shares(photos, photos.truth, 0)
    sums = np.stack(
        [probabilities[photos.truth == one].sum(axis=0) for one in range(photos.classes)]
    )
    np.fill_diagonal(sums, -1)
    found: np.ndarray = sums.argmax(axis=1)
    return found


def report(title: str, runs: Sequence[Mapping[str, tuple[float, ...]]]) -> str:
    """The means over RUNS as a table."""
    rows = []
    for name in runs[0]:
        # Of what is never asserted nothing is right or wrong.
        seen = [run[name][0] for run in runs if not np.isnan(run[name][0])]
        first, second = np.mean(seen or np.nan), np.mean([run[name][1] for run in runs])
        if name in SAID:
            rows.append((name, f"{first:.3f} right", f"of {second:.1f}"))
        else:
            rows.append(
                (name, f"{first:.3f} average precision", f"{second:.3f} in the first tenth")
            )
    return f"{title}\n{format_table(('ranking', 'mean', ''), rows)}\n"


@click.command()
@click.option("--photos", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--weights", default="imagenet", help="`imagenet` or a Keras weights file.")
@click.option("--cache", type=click.Path(path_type=Path), help="Where backbone outputs are kept.")
@click.option("--rates", default="0.1", help="Shares of wrong labels, between commas.")
@click.option("--seeds", default=3)
def main(photos: Path, weights: str, cache: Path | None, rates: str, seeds: int) -> None:
    """Print what each finds, the mean over seeds."""
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
