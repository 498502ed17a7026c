"""The `fashion-tagger compare` command."""

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from dataset.errors import BadInput
from dataset.pose.models import DEFAULT, model_names
from dataset.utils.cli_options import CONTEXT_SETTINGS, FILE, FOLDER
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
    default=cli_options.STEPS_FILE,
    metavar="FILE",
    help="TOML file of steps.  [default: built-in steps; --show-steps prints them]",
)
@click.option("--show-steps", is_flag=True, help="Print the file of steps and exit.")
@click.option(
    "--seeds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="N",
    help="Number of trainings per step, with different seeds.",
)
@cli_options.size_option
@cli_options.precision_option
@cli_options.cache_option
@click.option(
    "--pose",
    type=click.Choice(model_names()),
    default=DEFAULT,
    show_default=True,
    help="Pose network for the crops.",
)
@click.option("--pose-weights", type=FILE, metavar="FILE", help="Weights file of the pose network.")
@click.option("--out", type=FOLDER, help="New folder.  [default: runs/compare-<date and time>]")
@click.option("--resume", is_flag=True, help="Continue the interrupted comparison of --out.")
@cli_options.allow_leaks_option
@cli_options.seed_option
def compare_steps(out: Path | None, show_steps: bool, **values: Any) -> None:
    """Train one change after another on the same split, and measure the effect of each.

    The built-in steps are those of the thesis: SGD, Adam, each augmentation alone, the useful ones
    together, a central strip, the person crop, without background, with upper and lower half, and
    fine-tuning. Each step is trained several times and tested against another one. Features of the
    frozen backbone are cached, which makes a second comparison much faster. Writes compare.html
    with its chart as compare.png, and the table as compare.md, compare.csv and compare.json.
    """
    if show_steps:
        click.echo(values["steps"].read_text(encoding="utf-8"), nl=False)
        return
    if values["resume"] and out is None:
        raise BadInput("--resume: name the interrupted comparison with --out")
    if values["weights"] == "none":
        raise BadInput("--weights none: a comparison needs a pre-trained backbone")
    from dataset.utils import keras_backend

    keras_backend.import_backend()
    from model.ablation.compare import compare, format_comparison
    from model.ablation.config import read_steps
    from model.ablation.runner import CompareOptions

    values["image_size"] = values["image_size"] or cli_options.default_image_size(values["weights"])
    out = out or Path("runs") / datetime.now().strftime("compare-%Y%m%d-%H%M%S")
    options = CompareOptions(out=out, **values)
    rows = compare(options)
    click.echo(format_comparison(rows, read_steps(options.steps).reference))
    click.echo(f"report: {out}/compare.html")
    click.echo(f"tables: {out}/compare.md, {out}/compare.csv, {out}/compare.json")
