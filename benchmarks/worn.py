"""Measure what crops, backgrounds and parts of a photo add on street photos of worn clothes.

    python -m benchmarks.worn --photos ../shared/data/worn

Logistic regression on the frozen features of --weights, for the kinds of outerwear and of legwear.
Its regularization is chosen on a part of the train photos; accuracies are those of the photos of
the validation split, and p is that of McNemar's exact test against the whole photo.
"""

import csv
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np
from scipy.stats import binomtest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from model.data.feature_cache import default_cache_folder

if TYPE_CHECKING:
    from model.data.features import SplitFeatures

# Name of a row -> crop, background and parts of each rendering whose features are read.
ROWS = {
    "whole": [("whole", "keep", "whole")],
    "central strip": [("strip", "keep", "whole")],
    "person": [("person", "keep", "whole")],
    "person on white": [("person", "white", "whole")],
    "person, halves": [("person", "keep", "halves")],
    "person on white, halves": [("person", "white", "halves")],
    "both of these": [("person", "keep", "halves"), ("person", "white", "halves")],
}
TASKS = ("outer", "legs")
LAYERS = ("mixed5", "mixed6", "mixed7", "mixed8")
REGULARIZATION = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1)
# The last part of the train photos chooses the regularization.
TRAIN_FRACTION = 0.86


@click.command()
@click.option("--photos", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--weights", default="garments", show_default=True, help="As of train-model.")
@click.option("--image-size", default=224, show_default=True)
@click.option("--cache", type=click.Path(path_type=Path), help="As of train-model.")
def main(photos: Path, weights: str, image_size: int, cache: Path | None) -> None:
    """Print the accuracy of each row on outerwear and legwear."""
    from dataset.utils import keras_backend

    keras_backend.import_backend()
    correct: dict[tuple[str, str], np.ndarray] = {}
    with tempfile.TemporaryDirectory() as folder:
        for task in TASKS:
            splits = link_splits(photos, Path(folder) / task, task)
            for name in ROWS:
                correct[name, task] = predict(splits, name, weights, image_size, cache)
                click.echo(f"{name:24} {task:6} {correct[name, task].mean():.3f}", err=True)
    click.echo(f"| row | {' | '.join(TASKS)} | p over both |\n|---|{'---:|' * (len(TASKS) + 1)}")
    base = np.concatenate([correct["whole", task] for task in TASKS])
    for name in ROWS:
        own = np.concatenate([correct[name, task] for task in TASKS])
        better, worse = int((own & ~base).sum()), int((base & ~own).sum())
        p = binomtest(better, better + worse).pvalue if better + worse else 1.0
        figures = " | ".join(f"{correct[name, task].mean():.3f}" for task in TASKS)
        click.echo(f"| {name} | {figures} | {p:.4f} |")


def link_splits(photos: Path, folder: Path, task: str) -> Path:
    """Link the labelled photos of a task as splits; the validation split is the test split."""
    with (photos / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    train = [row["id"] for row in rows if row["split"] == "train"]
    first_of_validation = train[int(len(train) * TRAIN_FRACTION)]
    for row in rows:
        if not row[task]:
            continue
        split = "validation" if row["id"] >= first_of_validation else "train"
        if row["split"] == "validation":
            split = "test"
        target = folder / split / row[task] / f"{row['id']}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to((photos / "photos" / target.name).absolute())
    return folder


def predict(
    splits: Path, name: str, weights: str, image_size: int, cache: Path | None
) -> np.ndarray:
    """Return which test photos are predicted correctly, (n,) bool."""
    renderings = [
        extract(splits, rendering, weights, image_size, cache) for rendering in ROWS[name]
    ]
    y = {split: rows.targets for split, rows in renderings[0].items()}
    x = {split: np.concatenate([select(r[split]) for r in renderings], 1) for split in y}
    best = max(
        REGULARIZATION,
        key=lambda c: fit(x, y, ["train"], c).score(x["validation"], y["validation"]),
    )
    probe = fit(x, y, ["train", "validation"], best)
    return np.asarray(probe.predict(x["test"]) == y["test"])


def extract(
    splits: Path,
    rendering: tuple[str, str, str],
    weights: str,
    image_size: int,
    cache: Path | None,
) -> dict[str, "SplitFeatures"]:
    """Return the features of a rendering of each split."""
    from dataset.pose.models import find_model
    from model.data.crops import crop_data
    from model.data.features import Views
    from model.data.loading import load_splits
    from model.training.config import TrainOptions
    from model.training.stages import prepare_backbone

    crop, background, parts = rendering
    folder = cache or default_cache_folder()
    data = crop_data(load_splits(splits), crop, find_model("hrnet-small"), folder, background).data
    options = TrainOptions(splits, splits, weights, image_size=image_size, parts=parts, cache=cache)
    extractor = prepare_backbone(options).extractor
    return {
        split: extractor.extract(data, split, Views()) for split in ("train", "validation", "test")
    }


def select(rows: "SplitFeatures") -> np.ndarray:
    """Return the features of the layers, (n, width) float32."""
    return rows.values[:, 0, rows.columns(LAYERS)].astype(np.float32)


def fit(x: dict[str, np.ndarray], y: dict[str, np.ndarray], splits: Sequence[str], c: float):  # type: ignore[no-untyped-def]
    """Return a logistic regression that is fitted to some splits."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=300))
    return probe.fit(np.concatenate([x[s] for s in splits]), np.concatenate([y[s] for s in splits]))


if __name__ == "__main__":
    main()
