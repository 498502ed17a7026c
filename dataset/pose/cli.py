"""`train-pose`: options -> one call -> exit status."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from dataset.errors import BadInput
from dataset.pose.models import DEFAULT, architecture_names, model_names
from dataset.utils.cli_options import CONTEXT_SETTINGS, FILE, FOLDER

weights_option = click.option(
    "--pose-weights",
    type=FILE,
    metavar="PATH",
    help="Weights of your own for that network: .weights.h5 of train-pose (its .json beside), or a"
    " .pth file of HRNet's authors or of mmpose.",
)


class Size(click.ParamType):
    """Height and width between an x."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        """VALUE as two numbers of pixels, 32 to 1024."""
        if isinstance(value, tuple):
            return value
        parts = value.lower().split("x")
        if len(parts) != 2 or not all(p.isdecimal() and 32 <= int(p) <= 1024 for p in parts):
            self.fail(f"{value!r} is not height x width such as 256x192, 32 to 1024", param, ctx)
        return int(parts[0]), int(parts[1])


@click.command(
    "train-pose",
    context_settings=CONTEXT_SETTINGS,
    epilog="Example: train-pose --annotations people.json --images photos",
)
@click.option(
    "--annotations",
    type=FILE,
    required=True,
    help="People and their joints: COCO key-point JSON, of any joint set.",
)
@click.option("--images", type=FOLDER, required=True, help="The folder of its photos.")
@click.option(
    "--evaluate",
    is_flag=True,
    help="Don't train: measure --pose on the annotations.",
)
@click.option(
    "--validation",
    type=FILE,
    help="People to measure on after each epoch.  [default: one photo in twenty, held back]",
)
@click.option(
    "--validation-images", type=FOLDER, help="The folder of their photos.  [default: --images]"
)
@click.option(
    "--model",
    type=click.Choice(architecture_names()),
    default=DEFAULT,
    show_default=True,
    help="The network to train.",
)
@click.option(
    "--input-size",
    "size",
    type=Size(),
    default=(192, 192),
    metavar="HxW",
    help="Height and width of what the network sees, in pixels.  [default: 192x192]",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=210,
    show_default=True,
    help="How often each person is seen.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="People a step.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=1e-3,
    show_default=True,
    help="Adam's step; a tenth of it from 81 % of the epochs, a hundredth from 95 %.",
)
@click.option(
    "--whole-photos",
    "whole",
    type=click.FloatRange(0, 1),
    default=0.4,
    show_default=True,
    help="Share of samples that show the whole photo instead of the person's box: what the network"
    " sees first in photos where nobody drew a box.",
)
@click.option(
    "--pose-weights", type=FILE, metavar="PATH", help="Weights to begin with, or to measure."
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="What the layers compute in; weights and heat maps stay float32. bfloat16 trains 1.4 times"
    " as fast on processors that have it.",
)
@click.option(
    "--without-people",
    type=FOLDER,
    help="A folder of photos that show nobody, such as garments laid flat; one sample in seven is"
    " of them, so that nobody is found there. With --evaluate: in how many somebody is.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is random.")
@click.option("--resume", is_flag=True, help="Go on where the training in --out was stopped.")
@click.option(
    "--out",
    type=FOLDER,
    default=Path("runs/pose"),
    show_default=True,
    help="The training's folder, a new one.",
)
@click.option(
    "--pose",
    type=click.Choice(model_names()),
    default=DEFAULT,
    show_default=True,
    help="The network to measure, with --evaluate.",
)
@click.option("--flip", is_flag=True, help="Measure with the mirrored photo too (slower).")
@click.option("--dark", is_flag=True, help="Measure with DARK decoding of the heat maps.")
@click.option(
    "--json", "json_file", type=FILE, metavar="FILE", help="Write the measured figures here too."
)
def train_pose(**chosen: Any) -> None:
    """Train an HRNet to find people's joints, or measure one.

    After each epoch the share of joints that are found (PCK) is measured on other photos; the best
    epoch's weights are kept as pose.weights.h5 with pose.json in --out, for build-dataset
    --pose-weights. A killed training goes on with --resume. Beside them: curves.png, and every ten
    epochs a picture of what is found.

    With --evaluate: OKS average precision and PCK with the people's boxes given, and the mean IoU
    of the crop box that is found in the whole photo.
    """
    from dataset.utils import keras_backend

    keras_backend.import_backend()
    if chosen.pop("evaluate"):
        _evaluate(**chosen)
    else:
        _train(chosen)


def _train(chosen: dict[str, Any]) -> None:
    from dataset.pose.training import WEIGHTS, PoseTraining, train_pose

    names = {field.name for field in fields(PoseTraining)}
    options = PoseTraining(
        start=chosen["pose_weights"], **{name: chosen[name] for name in names & chosen.keys()}
    )
    done = train_pose(options)
    click.echo(f"PCK {done['PCK']:.3f} in epoch {done['epoch']} of {done['epochs']}")
    click.echo(f"weights: {options.out / WEIGHTS}")


def _evaluate(
    annotations: Path,
    images: Path,
    pose: str,
    pose_weights: Path | None,
    without_people: Path | None,
    flip: bool,
    dark: bool,
    json_file: Path | None,
    **_: Any,
) -> None:
    from dataset.pose.annotations import read_empty, read_people
    from dataset.pose.checkpoints import load_estimator
    from dataset.pose.evaluation import evaluate_pose
    from dataset.pose.models import find_model
    from dataset.utils.files import write_json
    from dataset.utils.tables import format_table

    people = read_people(annotations, images)
    if not people.persons:
        raise BadInput(
            f"{annotations} names nobody with annotated joints whose photo is in {images}"
        )
    model = find_model(pose, pose_weights)
    empty = read_empty(without_people, len(people.joints.names)) if without_people else []
    figures = evaluate_pose(load_estimator(model, flip, dark), people, empty)
    rows = [("PCK@0.2", figures["PCK"])]
    rows += [(f"OKS {name}", value) for name, value in figures["OKS"].items()]
    rows += [(f"crop {n.replace('_', ' ')}", value) for n, value in figures["crop"].items()]
    click.echo(format_table(("figure", "value"), [(name, f"{value:.3f}") for name, value in rows]))
    click.echo(f"{figures['persons']} people in {figures['photos']} photos")
    for path in figures["missing"]:
        click.echo(f"missing: {path}", err=True)
    for path, why in figures["unreadable"].items():
        click.echo(f"left out {path}: {why}", err=True)
    if json_file:
        try:
            write_json(figures, json_file)
        except OSError as error:
            raise BadInput(f"--json {json_file}: {error.strerror}; name another file") from error
