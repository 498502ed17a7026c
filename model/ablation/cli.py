"""`fashion-tagger compare`: options -> one call -> exit status."""

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from dataset.errors import BadInput
from dataset.pose.models import DEFAULT, model_names
from dataset.utils.cli_options import CONTEXT_SETTINGS, FILE, FOLDER, vocabulary_option
from model import cli_options


@click.command(
    "compare",
    context_settings=CONTEXT_SETTINGS,
    epilog="Example: fashion-tagger compare --data splits --seeds 5 --out runs/table",
)
@cli_options.data_option
@cli_options.weights_option
@click.option(
    "--steps",
    type=FILE,
    default=cli_options.BUILT_IN,
    metavar="FILE",
    help="Your own steps (TOML).  [default: the thesis' steps; --show-steps prints them]",
)
@click.option("--show-steps", is_flag=True, help="Print the file of steps, to be copied, and end.")
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="N",
    help="Trainings of each step.",
)
@cli_options.size_option
@cli_options.precision_option
@cli_options.cache_option
@click.option(
    "--pose",
    type=click.Choice(model_names()),
    default=DEFAULT,
    show_default=True,
    help="The network that finds people for the crops.",
)
@click.option("--pose-weights", type=FILE, metavar="FILE", help="Your own weights of it.")
@vocabulary_option
@click.option("--out", type=FOLDER, help="A new folder.  [default: runs/compare-<date and time>]")
@click.option("--resume", is_flag=True, help="Go on with the comparison of --out that was cut off.")
@cli_options.seed_option
def compare_steps(out: Path | None, resume: bool, show_steps: bool, **chosen: Any) -> None:
    """Train one change after another on the same split, and say what each brings.

    By default the thesis' way: SGD, then Adam, each augmentation alone, the useful ones together,
    HRNet's person crop, the garment zone, fine-tuning; several trainings a step, with intervals and
    a paired test against the step that it changes. Frozen trunks' outputs are kept on disk, so
    that a second comparison is much faster. Writes compare.md, .csv, .json and .png.
    """
    if show_steps:
        click.echo(chosen["steps"].read_text(encoding="utf-8"), nl=False)
        return
    if resume and out is None:
        raise BadInput("--resume: say with --out which comparison goes on")
    if chosen["weights"] == "none":
        raise BadInput("--weights none: a comparison needs a trunk that knows something")
    from dataset.utils import keras_backend

    keras_backend.import_backend()
    from model.ablation.compare import compare, summary
    from model.ablation.config import read_steps
    from model.ablation.runner import CompareOptions

    out = out or Path("runs") / datetime.now().strftime("compare-%Y%m%d-%H%M%S")
    rows = compare(CompareOptions(out=out, resume=resume, **chosen))
    click.echo(summary(rows, read_steps(chosen["steps"]).reference))
    click.echo(f"table: {out}/compare.md, {out}/compare.csv, {out}/compare.json")
    click.echo(f"chart: {out}/compare.png")
