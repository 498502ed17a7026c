"""Compare training with Keras' guide to transfer learning, on the same photos and weights.

    python benchmarks/train.py head --photos ../shared/data/clothing --weights FILE
    python benchmarks/train.py fine-tune --photos ../shared/data/clothing --weights FILE
    python benchmarks/train.py backbone --weights FILE

The script of the guide has `image_dataset_from_directory`, a frozen InceptionV3, mean pooling, a
softmax layer, Adam and `fit`. Each side runs in another process.

`head`: seconds of ten epochs of the guide, and of `train-model --fine-tune 0` with an empty cache,
including start-up, calibration and reports; and the time until it reaches the same validation
accuracy. `fine-tune`: photos per second of training steps of the whole network, in turns.
`backbone`: multiply-adds per second of the frozen backbone, in turns with large matrix products.
"""

import itertools
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np

from dataset.images.io import find_photos
from dataset.utils.cli_options import format_table

SIZE, BATCH, EPOCHS = 299, 32, 10
# Training photos of a class for each validation photo of it: about the proportion of a usual build.
HELD = 4
SIDES = (1024, 2048, 4096)
# Threads of the one before still spin for a moment.
PAUSE = 0.3

# What is timed, and its billions of multiply-adds.
Work = tuple[Callable[[], Any], float]

photos_option = click.option(
    "--photos",
    type=click.Path(exists=True, path_type=Path),
    required=True,
    help="A folder of train/ and validation/, with a folder a class.",
)
weights_option = click.option(
    "--weights",
    type=click.Path(exists=True, path_type=Path, resolve_path=True),
    required=True,
    help="Keras weights of InceptionV3 without top.",
)
each_option = click.option(
    "--photos-a-class",
    "each",
    type=click.IntRange(min=4),
    metavar="N",
    help="Maximum number of train photos; a quarter of it for validation.  [default: all]",
)


@click.group()
def main() -> None:
    """Measure how fast training is."""


def subset(photos: Path, folder: Path, each: int | None) -> Path:
    """Link splits of photos, with at most `each` training photos per class."""
    held = max(1, each // HELD) if each else None
    for split, source, most in (
        ("train", "train", each),
        ("validation", "validation", held),
        ("test", "validation", 1),
    ):
        for label in sorted(path for path in (photos / source).iterdir() if path.is_dir()):
            target = folder / "data" / split / label.name
            target.mkdir(parents=True)
            found = find_photos(label.iterdir()).paths
            for path in found[:most]:
                (target / path.name).symlink_to(path.resolve())
    return folder / "data"


def aside(work: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in another process and return its result."""
    with multiprocessing.get_context("spawn").Pool(1, quietly) as pool:
        return pool.apply(work, arguments)


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """Run a function that starts processes; return its result, wall and processor seconds."""

    def used() -> float:
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        return spent.ru_utime + spent.ru_stime

    began, before = time.perf_counter(), used()
    found = work()
    return found, time.perf_counter() - began, used() - before


def quietly() -> None:
    """Silence TensorFlow's messages."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def keras_guide(data: Path, weights: Path, tuned: bool) -> tuple[Any, Any, Any]:
    """Return the compiled network of Keras' guide, and the train and validation data."""
    import keras

    train, validation = (
        keras.utils.image_dataset_from_directory(
            data / split, image_size=(SIZE, SIZE), batch_size=BATCH, seed=0, verbose=False
        )
        for split in ("train", "validation")
    )
    classes = len(train.class_names)
    backbone = keras.applications.InceptionV3(
        weights=str(weights), include_top=False, input_shape=(SIZE, SIZE, 3)
    )
    backbone.trainable = tuned
    pixels = keras.Input((SIZE, SIZE, 3))
    scaled = keras.applications.inception_v3.preprocess_input(pixels)
    # The guide keeps batch normalisation in inference mode, tuned or not.
    means = keras.layers.GlobalAveragePooling2D()(backbone(scaled, training=False))
    network = keras.Model(pixels, keras.layers.Dense(classes, activation="softmax")(means))
    network.compile(
        keras.optimizers.Adam(1e-5 if tuned else 1e-3),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    # As many batches ahead as tf.data finds best.
    return network, train.prefetch(-1), validation.prefetch(-1)


def keras_guide_head(data: Path, weights: Path) -> list[float]:
    """Return the validation accuracy of the guide's network after each epoch."""
    network, train, validation = keras_guide(data, weights, tuned=False)
    history = network.fit(train, validation_data=validation, epochs=EPOCHS, verbose=0).history
    return [float(value) for value in history["val_accuracy"]]


def our_head(data: Path, weights: Path, folder: Path, options: tuple[str, ...]) -> None:
    """Run `train-model --fine-tune 0` with an empty cache, as a user does."""
    command = [
        *(str(Path(sys.executable).with_name("train-model")), "--fine-tune", "0"),
        *("--data", str(data), "--weights", str(weights), "--cache", str(folder / "cache")),
        *("--out", str(folder / "run"), *options),
    ]
    subprocess.run(command, check=True)


def accuracies(logs: Path) -> list[tuple[float, float]]:
    """Return the end time and the validation accuracy of each epoch from TensorBoard's logs."""
    from dataset.utils import keras_backend

    keras_backend.import_backend()
    import tensorflow as tf

    found = []
    for path in logs.rglob("events.*"):
        for record in tf.data.TFRecordDataset(str(path)):
            event = tf.compat.v1.Event.FromString(record.numpy())
            for value in event.summary.value:
                if value.tag == "val_accuracy":
                    found.append((event.wall_time, float(tf.make_ndarray(value.tensor))))
    return sorted(found)


@main.command()
@photos_option
@weights_option
@each_option
@click.argument("options", nargs=-1)
def head(photos: Path, weights: Path, each: int | None, options: tuple[str, ...]) -> None:
    """Measure the seconds to train a linear probe. OPTIONS after -- are passed to train-model."""
    with tempfile.TemporaryDirectory() as name:
        data = subset(photos, Path(name), each)
        theirs, spent, work = timed(partial(aside, keras_guide_head, data, weights))
        began = time.time()
        _, seconds, own = timed(partial(our_head, data, weights, Path(name), options))
        ours = accuracies(Path(name) / "run" / "logs")
        counts = [len(list((data / split).glob("*/*"))) for split in ("train", "validation")]
    until = next((at - began for at, accuracy in ours if accuracy >= max(theirs)), None)
    click.echo(f"{counts[0]} train and {counts[1]} validation photos, {os.cpu_count()} cores")
    rows = [
        ("Keras guide, 10 epochs", f"{spent:.0f}", "1.0 x", f"{work:.0f}", f"{max(theirs):.3f}")
    ]
    if until is not None:
        rows.append(("ours, until as good", f"{until:.0f}", f"{spent / until:.1f} x", "", ""))
    best = f"{max(accuracy for _, accuracy in ours):.3f}"
    rows.append(
        ("ours, all of it", f"{seconds:.0f}", f"{spent / seconds:.1f} x", f"{own:.0f}", best)
    )
    heads = ("script", "seconds", "as fast", "CPU seconds", "best on validation")
    click.echo(format_table(heads, rows))


def clock(times: list[float]) -> Any:
    """Return a callback that appends the start time of each step to a list."""
    import keras

    return keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs=None: times.append(time.perf_counter())
    )


def keras_guide_steps(data: Path, weights: Path, steps: int) -> tuple[list[float], str]:
    """Return the start time of each step of the guide's fine-tuning, and the precision."""
    network, train, _ = keras_guide(data, weights, tuned=True)
    times: list[float] = []
    network.fit(
        train.repeat(), steps_per_epoch=steps, epochs=1, verbose=0, callbacks=[clock(times)]
    )
    return times, "float32"


def our_steps(data: Path, weights: Path, steps: int) -> tuple[list[float], str]:
    """Return the start time of each step of fine-tuning all blocks, and the precision."""
    from dataset.utils import keras_backend

    keras_backend.import_backend()
    from model.data.features import ImageSet, ImageTrainingSet
    from model.data.loading import class_indices, load_splits
    from model.network import inception
    from model.training.config import TrainOptions
    from model.training.fit import ValidationSet, fit

    options = TrainOptions(data=data, out=data, weights=str(weights))
    backbone = inception.build_backbone(SIZE, options.weights)

    def build(policy: str) -> Any:
        return inception.build_feature_network(
            inception.fold_batch_norms(backbone, policy), [inception.TOP_BLOCK]
        )

    reference = inception.build_feature_network(backbone, [inception.TOP_BLOCK])
    features, chosen = inception.choose_precision(reference, build, options.precision)
    found = load_splits(data)
    network = inception.join_head(
        features,
        inception.build_head(inception.BLOCK_CHANNELS[inception.TOP_BLOCK], len(found.labels)),
    )
    inception.unfreeze_blocks(network.get_layer("features"), None)
    examples = list(itertools.islice(itertools.cycle(found.examples_of("train")), steps * BATCH))
    feed = ImageTrainingSet(
        ImageSet(data, examples, SIZE),
        np.eye(len(found.labels), dtype=np.float32)[class_indices(examples, found.labels)],
        np.ones(len(examples), np.float32),
        options.augmentation,
        seed=0,
    )
    times: list[float] = []
    nothing = ValidationSet(
        lambda _: np.zeros((0, len(found.labels)), np.float32), np.zeros(0, np.int64)
    )
    with tempfile.TemporaryDirectory() as name:
        state = Path(name) / "tuning.npz"
        config = options.fine_tuning_config(0.0)
        fit(network, feed, nothing, config, state, lambda _: None, [clock(times)])
    return times[:steps], chosen.policy


@main.command()
@photos_option
@weights_option
@each_option
@click.option("--steps", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--warmup-steps", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=2, show_default=True)
def fine_tune(
    photos: Path, weights: Path, each: int | None, steps: int, warmup_steps: int, rounds: int
) -> None:
    """Measure photos per second of fine-tuning the whole backbone."""
    spent: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        data = subset(photos, Path(name), each)
        for _ in range(rounds):
            for who, work in (("Keras guide", keras_guide_steps), ("ours", our_steps)):
                times, policy = aside(work, data, weights, warmup_steps + steps + 1)
                spent.setdefault(f"{who}, {policy}", []).extend(np.diff(times)[warmup_steps:])
    middles = {name: statistics.median(seconds) for name, seconds in spent.items()}
    slow = max(middles[name] for name in middles if name.startswith("Keras guide"))
    rows = [
        (name, f"{BATCH / middle:.2f}", f"{slow / middle:.2f} x")
        for name, middle in middles.items()
    ]
    click.echo(f"median of {rounds} x {steps} steps of {BATCH} photos, {os.cpu_count()} cores")
    click.echo(format_table(("script", "photos/s", "as fast"), rows))


def products(kind: str) -> Iterator[Work]:
    """Yield square matrix products with their billions of multiply-adds."""
    import tensorflow as tf

    multiply = tf.function(tf.matmul)
    for side in SIDES:
        matrix = tf.cast(tf.random.normal((side, side)), kind)
        yield partial(multiply, matrix, matrix), side**3 / 1e9


def multiply_adds(features: Any) -> float:
    """Return the billions of multiply-adds of the convolutions for one photo."""
    import keras

    return (
        sum(
            float(np.prod(layer.kernel.shape)) * float(np.prod(layer.output.shape[1:3]))
            for layer in features.get_layer("backbone").layers
            if isinstance(layer, keras.layers.Conv2D)
        )
        / 1e9
    )


@main.command()
@weights_option
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True)
def backbone(weights: Path, batch_size: int, rounds: int) -> None:
    """Measure the fraction of the processor's peak in matrix products that the backbone reaches."""
    from dataset.utils import keras_backend

    keras_backend.import_backend()
    from model.network import inception

    whole = inception.build_backbone(SIZE, str(weights))
    pixels = np.random.default_rng(0).integers(0, 256, (batch_size, SIZE, SIZE, 3), dtype=np.uint8)
    rows = []
    for kind in ("float32", "bfloat16"):
        features = inception.build_feature_network(
            inception.fold_batch_norms(whole, inception.POLICIES[kind]), inception.CACHED_BLOCKS
        )
        work = multiply_adds(features) * batch_size
        works: list[Work] = [(partial(features.predict_on_batch, pixels), work), *products(kind)]
        speeds = in_turns(works, rounds)
        best, peak = max(speeds[0]), max(itertools.chain(*speeds[1:]))
        ratios = [own / max(others) for own, *others in zip(*speeds, strict=True)]
        rows.append(
            (
                kind,
                f"{best / work * batch_size:.1f}",
                f"{best:.0f}",
                f"{peak:.0f}",
                f"{best / peak:.0%}",
                f"{statistics.median(ratios):.0%}",
            )
        )
    click.echo(
        f"{work / batch_size:.2f} billion multiply-adds a photo, batches of {batch_size},"
        f" {os.cpu_count()} cores, the best of {rounds} rounds, and the median of a round's shares"
    )
    heads = ("precision", "photos/s", "billions/s", "products", "best of best", "in one round")
    click.echo(format_table(heads, rows))


def in_turns(works: list[Work], rounds: int) -> list[list[float]]:
    """Return the billions of multiply-adds per second of each function in each round."""
    for work, _ in works:
        work()
    speeds: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for own, (work, count) in zip(speeds, works, strict=True):
            time.sleep(PAUSE)
            began = time.perf_counter()
            work()
            own.append(count / (time.perf_counter() - began))
    return speeds


if __name__ == "__main__":
    main()
