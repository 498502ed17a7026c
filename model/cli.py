"""`train-model`: options -> one call -> exit status."""

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from dataset.errors import BadInput
from dataset.utils.cli_options import CONTEXT_SETTINGS, FOLDER
from model import cli_options


@click.command(
    "train-model",
    context_settings=CONTEXT_SETTINGS,
    epilog="Example: train-model --data splits --time-budget 30m --out runs/first",
)
@cli_options.data_option
@cli_options.weights_option
@click.option(
    "--fine-tune",
    type=cli_options.Blocks(),
    default="all",
    show_default=True,
    metavar="N|all",
    help="How many inception blocks learn after the head does, from the top; 0: the head alone,"
    " in minutes.",
)
@click.option(
    "--time-budget",
    "seconds",
    type=cli_options.Duration(),
    default="1h",
    show_default=True,
    metavar="TIME",
    help="Epochs are planned to fit it: 30m, 1.5h, or none for as long as --epochs take.",
)
@click.option(
    "--taps",
    default="auto",
    show_default=True,
    callback=lambda _ctx, _param, value: cli_options.taps_of(value),
    help="The blocks whose outputs the head reads, such as mixed10 or mixed7+mixed8; auto: those"
    " that tell the validation photos apart best.",
)
@click.option(
    "--optimizer",
    type=click.Choice(["adamw", "adam", "sgd"]),
    default="adamw",
    show_default=True,
    help="AdamW, Adam, or SGD with Nesterov momentum.",
)
@click.option(
    "--learning-rate",
    "rate",
    type=click.FloatRange(min=0, min_open=True),
    help="The highest, of fine-tuning or of a network from nothing.  [default: 1e-4 for Adam and"
    " AdamW, 5e-3 for SGD; from nothing 1e-3 and 5e-3]",
)
@click.option(
    "--head-rate",
    type=click.FloatRange(min=0, min_open=True),
    help="The highest of the head alone.  [default: 1e-3 for Adam and AdamW, 5e-3 for SGD]",
)
@click.option(
    "--momentum",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.9,
    show_default=True,
    help="Of SGD.",
)
@click.option(
    "--weight-decay",
    type=click.FloatRange(min=0),
    default=0.02,
    show_default=True,
    help="Pulls weights to 0, decoupled from the gradient.",
)
@click.option(
    "--schedule",
    type=click.Choice(["cosine", "step", "constant"]),
    default="cosine",
    show_default=True,
    help="How the rate falls after its warm-up; step: to a tenth at each third.",
)
@click.option(
    "--warm-up",
    type=click.FloatRange(min=0),
    default=0.5,
    show_default=True,
    help="Epochs until the rate is at its highest.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    metavar="N",
    help="At most so many.  [default: 12 of fine-tuning, 30 from nothing]",
)
@click.option(
    "--head-epochs",
    type=click.IntRange(min=1),
    default=60,
    show_default=True,
    metavar="N",
    help="At most so many of the head alone.",
)
@click.option(
    "--patience",
    type=click.IntRange(min=0),
    default=4,
    show_default=True,
    help="Epochs of fine-tuning without a lower validation loss, then it ends; 0: never.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Photos a step.",
)
@cli_options.size_option
@click.option(
    "--augment",
    default="mirror,rotate=15,scale=0.2,colour=0.2",
    show_default=True,
    callback=lambda _ctx, _param, value: cli_options.changes_of(value),
    help="What is changed at random, and how much: mirror, rotate=DEGREES, scale=SHARE,"
    " cutout=SHARE, colour=SHARE, or none.",
)
@click.option(
    "--views",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Of each photo for the head: as it is, and so many less one changed by --augment.",
)
@click.option(
    "--label-smoothing",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.1,
    show_default=True,
    help="Share of each label that is spread over all.",
)
@click.option(
    "--mixup",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Alpha of the share by which pairs of photos are blended; 0: none.",
)
@click.option(
    "--average/--no-average",
    default=True,
    show_default=True,
    help="Measure and keep the average of the weights over about an epoch (EMA).",
)
@click.option(
    "--class-weights/--no-class-weights",
    default=True,
    show_default=True,
    help="Let each label count the same, however many photos it has.",
)
@click.option(
    "--noise-robust",
    is_flag=True,
    help="For labels that are wrong in part, as hashtags are: those that out-of-fold predictions"
    " contradict count less, and photos are blended (mixup 0.2).",
)
@click.option(
    "--both-sides/--one-side",
    default=True,
    show_default=True,
    help="The model judges each photo and its mirror image: more often right, in twice the time.",
)
@cli_options.precision_option
@cli_options.cache_option
@click.option(
    "--out", type=FOLDER, help="The run's folder, a new one.  [default: runs/<date and time>]"
)
@click.option("--resume", is_flag=True, help="Go on with the training of --out that was cut off.")
@click.option(
    "--folds",
    type=click.IntRange(min=3),
    metavar="K",
    help="Cross-validate instead: K trainings on train and validation photos, each judged on a part"
    " that it did not see; the test split stays unseen.  [default: no]",
)
@cli_options.seed_option
def train_model(out: Path | None, resume: bool, folds: int | None, **chosen: Any) -> None:
    """Train an Inception-v3 classifier on splits, and measure it once on the test split.

    First a head on the frozen trunk, whose outputs are computed once and kept on disk; then trunk
    and head together, at a low rate, until the validation loss falls no more or the time is over.
    Writes model.keras, which takes raw uint8 photos of any size; report.html and README.md;
    metrics.json and predictions.csv with other tables and charts; run.json and TensorBoard logs.
    """
    if resume and out is None:
        raise BadInput("--resume: say with --out which training goes on")
    from dataset.utils import keras_backend

    keras_backend.import_backend()
    from model.reports.run_report import format_summary
    from model.training.config import TrainOptions
    from model.training.cross_validation import cross_validate
    from model.training.train import train

    out = out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
    if chosen["weights"] == "none":
        click.echo("The network starts from nothing: trunk and head are trained together.")
    options = TrainOptions(out=out, resume=resume, folds=folds or 0, **chosen)
    click.echo(format_summary(cross_validate(options) if folds else train(options)))
    click.echo(f"report: {out}/report.html")
    click.echo(f"figures: {out}/metrics.json, {out}/predictions.csv")
    if not folds:
        click.echo(f"model: {out}/model.keras")
