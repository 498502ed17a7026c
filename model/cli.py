"""`train-model`: options -> one call -> exit status."""

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from dataset.errors import BadInput
from dataset.options import CONTEXT, FOLDER


def _weights(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    if value in ("imagenet", "none"):
        return value
    path = Path(value)
    if not path.is_file():
        raise BadInput(f"--weights {value}: no such file; name one, or say imagenet or none")
    if path.suffix not in (".h5", ".hdf5"):
        raise BadInput(f"--weights {value}: a Keras weights file ends in .h5 (or .weights.h5)")
    return value


@click.command(
    "train-model",
    context_settings=CONTEXT,
    epilog="Example: train-model --data splits --optimizer adam --out runs/first",
)
@click.option(
    "--data",
    type=FOLDER,
    default=Path("splits"),
    show_default=True,
    help="A folder of build-dataset, or one with train/ validation/ test/ and a folder a label.",
)
@click.option(
    "--weights",
    default="imagenet",
    show_default=True,
    metavar="imagenet|none|PATH",
    callback=_weights,
    help="What the trunk knows at the start: ImageNet (fetched once), a Keras weights file of"
    " InceptionV3 without top, or nothing: then trunk and head are trained together.",
)
@click.option(
    "--optimizer",
    type=click.Choice(["adam", "sgd"]),
    default="adam",
    show_default=True,
    help="Adam, or SGD with Nesterov momentum 0.9.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    metavar="N",
    help="At most so many epochs.  [default: 60 for the head alone, 30 for the whole network]",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Photos a step.",
)
@click.option(
    "--image-size",
    type=click.IntRange(min=75, max=1024),
    default=299,
    show_default=True,
    help="Width and height that the network sees, in pixels.",
)
@click.option(
    "--out", type=FOLDER, help="The run's folder, a new one.  [default: runs/<date and time>]"
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is random.")
def train_model(out: Path | None, **chosen: Any) -> None:
    """Train an Inception-v3 classifier on splits, and measure it once on the test split.

    The trunk is frozen and a softmax head is trained on its outputs, with class weights; the epoch
    with the lowest validation loss is kept. Writes metrics.json, predictions.csv, confusion.png,
    curves.png, labels.json, run.json and model.keras, which takes raw uint8 photos of any size.
    """
    from dataset import backend

    backend.load()
    from model.report import summary
    from model.training import TrainOptions, train

    out = out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
    if chosen["weights"] == "none":
        click.echo("The network starts from nothing: trunk and head are trained together.")
    metrics = train(TrainOptions(out=out, **chosen))
    click.echo(summary(metrics))
    click.echo(f"figures: {out}/metrics.json, {out}/predictions.csv")
    click.echo(f"pictures: {out}/confusion.png, {out}/curves.png")
    click.echo(f"model: {out}/model.keras")
