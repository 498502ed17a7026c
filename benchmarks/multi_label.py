"""Train a tagger on street photos of worn clothes, beside one-vs-rest logistic regression.

    python benchmarks/multi_label.py --photos ../shared/data/worn --weights FILE --work NEW

The photos have a label for what is worn outermost above the waist and one for the legs, or one of
both is unknown; of a folder with one folder per class, such as `../shared/data/clothing`, the
classes are the labels of one facet. The folder's validation photos are the test split; of the
others, blocks of ten photos in a row are the validation split, so that shots of one burst mostly
stay together. The peer is scikit-learn's logistic regression for each label, on the photos on which
it is known, with the standardized features of the frozen backbone of the blocks that the tagger's
head reads, for several values of C. The best of them is the one on the validation split.

Then `check-tags` checks a feed of the photos, whose tags are a list: some tags are replaced by
another label of their facet, and some photos lose one of two tags, or the only one of one facet.
Photos of the training are predicted out of fold. This is repeated in memory for the tags of the
test photos alone, with DRAWS draws at several rates of wrong tags. `--trained` checks a run that
was trained before.
"""

import csv
import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from dataset.utils.cli_options import format_table
from dataset.utils.files import write_json

if TYPE_CHECKING:
    from model.data.features import SplitFeatures
    from model.data.loading import SplitData

FACETS = ("outer", "legs")
# The facet of a folder with one folder per class.
KIND = "kind"
# Inverse strengths of the penalty of logistic regression; scikit-learn's default is 1.
STRENGTHS = (1.0, 0.1, 1e-2, 1e-3)
# Rates of wrong tags of the test photos, and draws for each.
RATES, DRAWS = (0.03, 0.1, 0.25), 30
# Verdicts that assert something.
ASSERTED = ("agrees", "mistake", "missing")
# Photos in a row, and how many of these blocks are the validation split: every seventh.
BLOCK, BLOCKS = 10, 7


def labelled_photos(photos: Path) -> Iterator[tuple[Path, dict[str, str], bool]]:
    """Yield each photo, its label by facet, and whether it is held out for the test split."""
    if (photos / "labels.csv").exists():
        with (photos / "labels.csv").open(encoding="utf-8") as file:
            rows = sorted(csv.DictReader(file), key=lambda row: row["id"])
        for row in rows:
            labels = {facet: f"{facet} {row[facet]}" for facet in FACETS if row[facet]}
            yield photos / "photos" / f"{row['id']}.jpg", labels, row["split"] != "train"
        return
    for split in ("train", "validation"):
        for path in sorted((photos / split).glob("*/*")):
            yield path, {KIND: f"{KIND} {path.parent.name}"}, split != "train"


def write_build(photos: Path, folder: Path) -> None:
    """Link the photos into a folder as `build-dataset --multi-label` writes it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    by_facet: dict[str, set[str]] = defaultdict(set)
    columns: dict[str, list[Any]] = {name: [] for name in ("path", "labels", "facets", "split")}
    learned = 0
    for original, own, is_test in labelled_photos(photos):
        split = "test"
        if not is_test:
            split = "validation" if learned // BLOCK % BLOCKS == BLOCKS - 1 else "train"
            learned += 1
        for facet, label in own.items():
            by_facet[facet].add(label)
        path = folder / "photos" / split / f"{original.stem}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(original.absolute())
        values = (path.relative_to(folder).as_posix(), [*own.values()], [*own], split)
        for name, value in zip(columns, values, strict=True):
            columns[name].append(value)
    pq.write_table(pa.table(columns), folder / "manifest.parquet")
    facets_of = {facet: sorted(labels) for facet, labels in by_facet.items()}
    labels = sorted(label for own in facets_of.values() for label in own)
    write_json({"labels": labels, "facets": facets_of, "format": "folders"}, folder / "labels.json")


def regression_scores(
    data: "SplitData",
    train: "SplitFeatures",
    others: "list[SplitFeatures]",
    layers: tuple[str, ...],
    strength: float,
) -> list[np.ndarray]:
    """Return the probabilities of one-vs-rest logistic regression for other splits."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    assert data.facets is not None
    count, columns = len(data.labels), train.columns(layers)
    known = data.facets.is_known(train.targets, count)
    has = data.facets.has_label(train.targets, count)
    values = train.values[:, 0, columns].astype(np.float32)
    scores = [np.zeros((len(other.targets), count)) for other in others]
    for label in range(count):
        rows = known[:, label]
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=500))
        model.fit(values[rows], has[rows, label])
        for other, own in zip(others, scores, strict=True):
            features = other.values[:, 0, columns].astype(np.float32)
            own[:, label] = model.predict_proba(features)[:, 1]
    return scores


def mean_average_precision(data: "SplitData", targets: np.ndarray, scores: np.ndarray) -> float:
    """Return scikit-learn's average precision, as the mean over the labels, on known photos."""
    from sklearn.metrics import average_precision_score

    assert data.facets is not None
    count = len(data.labels)
    known, has = data.facets.is_known(targets, count), data.facets.has_label(targets, count)
    return float(
        np.mean(
            [
                average_precision_score(has[known[:, i], i], scores[known[:, i], i])
                for i in range(count)
                if has[known[:, i], i].any()
            ]
        )
    )


def write_feed(data: Path, path: Path, rate: float, seed: int) -> dict[str, dict[str, str]]:
    """Write a feed with wrong and missing tags; return path -> facet -> right label."""
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    facets = json.loads((data / "labels.json").read_text(encoding="utf-8"))["facets"]
    truth: dict[str, dict[str, str]] = {}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "tags", "split"])
        for row in pq.read_table(data / "manifest.parquet").to_pylist():
            right = dict(zip(row["facets"], row["labels"], strict=True))
            truth[row["path"]], tags = right, []
            for facet, label in right.items():
                rivals = [name for name in facets[facet] if name != label]
                tags.append(str(rng.choice(rivals)) if rng.random() < rate else label)
            if (len(tags) > 1 or len(facets) == 1) and rng.random() < rate:
                del tags[rng.integers(len(tags))]
            image = (data / row["path"]).resolve()
            writer.writerow([row["path"], image, "; ".join(tags), row["split"]])
    return truth


def check_feed(run: Path, photos: Path, data: Path, work: Path, rate: float, seed: int) -> None:
    """Check the feed, and print how many of the statements are right."""
    from dataset.feeds.product_feed import open_feed
    from dataset.vocabulary import load_vocabulary
    from model.tag_check.pipeline import CheckOptions, check_tags

    path, out = work / f"feed-{seed}.csv", work / f"checked-{seed}"
    truth = write_feed(data, path, rate, seed)
    feed = open_feed(path, {"tag": "tags"})
    vocabulary = load_vocabulary(multi_label=True)
    results = check_tags(CheckOptions(run, out, feed, image_root=photos, data=data), vocabulary)
    stated: Counter[tuple[str, str, str]] = Counter()
    right: Counter[tuple[str, str, str]] = Counter()
    with (out / "checked.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            verdict, facet = row["verdict"], row["facet"]
            own = truth[row["id"]].get(facet)
            part = "test" if row["split"] == "test" else "train and validation"
            stated[part, facet, verdict] += 1
            if verdict == "missing":
                is_right = own == row["suggested"]
                # No label of the facet is known: the proposal can't be counted.
                stated[part, facet, "missing, unknown"] += own is None
                stated[part, facet, verdict] -= own is None
            else:
                is_right = (row["checked_tag"] == own) == (verdict == "agrees")
            right[part, facet, verdict] += is_right
    rows = [
        (*key, str(count), f"{right[key] / count:.1%}" if key[2] in ASSERTED else "")
        for key, count in sorted(stated.items())
        if count
    ]
    click.echo(format_table(("photos", "facet", "verdict", "tags", "right"), rows))
    for facet, result in results["facets"].items():
        click.echo(f"{facet}: estimated wrong tags {result['estimated_wrong_rate']:.1%}")


def check_draws(run: Path, data: Path) -> None:
    """Print how many statements on the tags of the test photos are right, over many draws."""
    from model.data.features import read_letterboxed
    from model.data.loading import load_splits
    from model.inference.predictor import load_predictor, load_run
    from model.tag_check.noise_model import (
        choose_thresholds,
        decide_verdicts,
        fit_noise_model,
    )

    saved, splits = load_run(run), load_splits(data)
    assert splits.facets is not None
    predictor, examples = load_predictor(saved), splits.examples_of("test")
    photos = read_letterboxed(data, examples, predictor.size)
    readable = [(example, photo) for example, photo in photos if not isinstance(photo, str)]
    pixels = np.stack([photo.round().astype(np.uint8) for _, photo in readable])
    targets = splits.targets([example for example, _ in readable])
    parts = splits.facets.by_facet(predictor.predict(pixels).logits, targets)
    rows = []
    for facet, (logits, labels) in zip(splits.facets.names, parts, strict=True):
        exponents = np.exp(logits.astype(np.float64))
        probabilities = exponents / exponents.sum(axis=1, keepdims=True)
        classes = probabilities.shape[1]
        for rate in RATES:
            stated, right = Counter[str](), Counter[str]()
            for seed in range(DRAWS):
                rng = np.random.default_rng(seed)
                is_wrong = rng.random(len(labels)) < rate
                shift = rng.integers(1, classes, len(labels))
                tags = np.where(is_wrong, (labels + shift) % classes, labels)
                noise = fit_noise_model(probabilities, tags)
                thresholds = choose_thresholds(noise, probabilities, tags)
                verdicts = decide_verdicts(noise, thresholds, probabilities, tags).verdict
                for verdict, wrong in zip(verdicts, is_wrong, strict=True):
                    stated[verdict] += 1
                    right[verdict] += bool(wrong) == (verdict == "mistake")
            rows += [
                (
                    *(facet, f"{rate:.0%}", str(len(labels)), verdict),
                    f"{stated[verdict] / DRAWS:.1f}",
                    f"{right[verdict] / stated[verdict]:.1%}",
                )
                for verdict in ("agrees", "mistake")
                if stated[verdict]
            ]
    click.echo(format_table(("facet", "flipped", "tags", "verdict", "stated", "right"), rows))


@click.command()
@click.option("--photos", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--weights", required=True)
@click.option("--work", type=click.Path(path_type=Path), required=True, help="A new folder.")
@click.option("--cache", type=click.Path(path_type=Path))
@click.option("--minutes", type=float, default=60.0, show_default=True, help="Time budget.")
@click.option("--fine-tune", type=int, help="Number of blocks to fine-tune.  [default: all]")
@click.option("--image-size", type=int, default=299, show_default=True)
@click.option("--flipped", type=float, default=0.1, show_default=True, help="Rate of wrong tags.")
@click.option("--seeds", type=int, default=3, show_default=True, help="Number of feeds.")
@click.option(
    "--trained", type=click.Path(path_type=Path, exists=True), help="A folder of --work to check."
)
def main(
    photos: Path,
    weights: str,
    work: Path,
    cache: Path | None,
    minutes: float,
    fine_tune: int | None,
    image_size: int,
    flipped: float,
    seeds: int,
    trained: Path | None,
) -> None:
    """Train and measure both, and check flipped tags."""
    if trained is None:
        train_and_compare(photos, weights, work, cache, minutes, fine_tune, image_size)
    folder = trained or work
    work.mkdir(parents=True, exist_ok=True)
    check_draws(folder / "run", folder / "data")
    for seed in range(seeds):
        check_feed(folder / "run", photos, folder / "data", work, flipped, seed)


def train_and_compare(
    photos: Path,
    weights: str,
    work: Path,
    cache: Path | None,
    minutes: float,
    fine_tune: int | None,
    image_size: int,
) -> None:
    """Train, and print the mean average precision beside that of logistic regression."""
    from model.data.features import Views
    from model.data.loading import load_splits
    from model.inference.predictor import load_run
    from model.training.config import TrainOptions
    from model.training.stages import prepare_backbone
    from model.training.train import train

    folder = work / "data"
    write_build(photos, folder)
    options = TrainOptions(
        data=folder,
        out=work / "run",
        weights=weights,
        cache=cache,
        fine_tune=fine_tune,
        image_size=image_size,
        time_budget=60 * minutes,
    )
    metrics = train(options)
    run = load_run(options.out)
    used = tuple(str(run.facts["feature_layers"]).split("+"))
    data, prepared = load_splits(folder), prepare_backbone(options)
    extract = prepared.extractor.extract
    learned, validation, test = (
        extract(data, split, Views()) for split in ("train", "validation", "test")
    )

    interval = metrics["intervals"]["mean_average_precision"]
    own = f"{metrics['mean_average_precision']:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"
    rows: list[tuple[str, ...]] = [(f"train-model, {metrics['kept_stage']}", "", own)]
    click.echo(f"features: {'+'.join(used)}; train-model: {own}")
    for strength in STRENGTHS:
        scores = regression_scores(data, learned, [validation, test], used, strength)
        parts = zip((validation, test), scores, strict=True)
        values = [f"{mean_average_precision(data, part.targets, s):.3f}" for part, s in parts]
        rows.append((f"logistic regression, C = {strength:g}", *values))
        click.echo(": ".join(rows[-1]))
    click.echo(format_table(("method", "mAP on validation", "mAP on test"), rows))


if __name__ == "__main__":
    main()
