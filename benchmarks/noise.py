"""Train linear probes on flipped labels, with and without `--noise-robust`.

    python benchmarks/noise.py --photos ../shared/data/clothing --weights FILE

A fraction of the labels in train/ is flipped at random, and 15 % of these photos are the validation
split, with flipped labels, too. The accuracy is measured by the true labels of the folder's
validation photos, which are not used for training. Both methods are trained with the same flips,
splits and seeds.
"""

import itertools
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from dataset.utils.cli_options import format_table

if TYPE_CHECKING:
    from model.data.loading import SplitData
    from model.training.config import TrainOptions
    from model.training.stages import PreparedBackbone

FLIPPED = (0.0, 0.1, 0.2, 0.4)
HELD = 0.15


def noisy(data: "SplitData", share: float, seed: int) -> "SplitData":
    """Flip a fraction of the training labels, and hold out some photos for validation.

    The folder's validation photos become the test split, with their true labels.
    """
    rng = np.random.default_rng((seed, int(1000 * share)))
    own = data.examples_of("train")
    held = np.random.default_rng(seed).permutation(len(own)) < HELD * len(own)
    flipped = rng.random(len(own)) < share
    steps = rng.integers(1, len(data.labels), len(own))
    examples = [replace(example, split="test") for example in data.examples_of("validation")]
    for place, example in enumerate(own):
        label = (data.labels.index(example.label) + flipped[place] * steps[place]) % len(
            data.labels
        )
        split = "validation" if held[place] else "train"
        examples.append(replace(example, label=data.labels[label], split=split))
    return replace(data, examples=tuple(examples))


def accuracy(data: "SplitData", options: "TrainOptions", prepared: "PreparedBackbone") -> float:
    """Return the test accuracy of a linear probe."""
    from model.ablation.runner import MIRROR_VIEWS
    from model.training.linear_probe import head_logits
    from model.training.stages import train_network
    from model.training.train import ConsoleReporter

    with tempfile.TemporaryDirectory() as name:
        trained = train_network(
            data, options, Path(name), ConsoleReporter(Path(name), quiet=True), prepared
        )
    outputs = prepared.extractor.extract(data, "test", MIRROR_VIEWS)
    named = head_logits(trained.head, outputs, trained.feature_layers).argmax(axis=1)
    return float((named == outputs.targets).mean())


@click.command()
@click.option("--photos", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--weights", type=click.Path(exists=True), required=True)
@click.option("--seeds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    help="Folder of cached features.  [default: train-model's own]",
)
def main(photos: Path, weights: str, seeds: int, cache: Path | None) -> None:
    """Print accuracies by the true labels for each fraction of flipped labels."""
    from dataset.utils import keras_backend

    keras_backend.import_backend()
    import keras

    from model.data.loading import load_splits
    from model.training.config import TrainOptions
    from model.training.stages import prepare_backbone

    data = load_splits(photos)
    options = TrainOptions(data=photos, out=photos, weights=weights, fine_tune=0, cache=cache)
    prepared = prepare_backbone(options)
    found = np.zeros((len(FLIPPED), seeds, 2))
    for seed, (row, share) in itertools.product(range(seeds), enumerate(FLIPPED)):
        seen = noisy(data, share, seed)
        for side, robust in enumerate((False, True)):
            asked = replace(options, noise_robust=robust, seed=seed)
            found[row, seed, side] = accuracy(seen, asked, prepared)
            keras.utils.clear_session(free_memory=True)
        plain, robust_ = found[row, seed]
        click.echo(f"{share:.0%} flipped, seed {seed}: {plain:.3f} plain, {robust_:.3f} robust")
    click.echo(
        f"{len(data.examples_of('train'))} photos to train and validate on,"
        f" {len(data.examples_of('validation'))} to test on; means of {seeds} seeds, the gain with"
        " its standard error"
    )
    click.echo(format_table(("labels flipped", "plain", "--noise-robust", "gain"), lines(found)))


def lines(found: np.ndarray) -> list[tuple[str, str, str, str]]:
    """Return the rows of the table: means over the seeds, from shape (fractions, seeds, 2)."""
    rows = []
    for share, pairs in zip(FLIPPED, found, strict=True):
        gains = pairs[:, 1] - pairs[:, 0]
        spread = f" ± {gains.std(ddof=1) / len(gains) ** 0.5:.3f}" if len(gains) > 1 else ""
        plain, robust = (f"{mean:.3f}" for mean in pairs.mean(axis=0))
        rows.append((f"{share:.0%}", plain, robust, f"{gains.mean():+.3f}{spread}"))
    return rows


if __name__ == "__main__":
    main()
