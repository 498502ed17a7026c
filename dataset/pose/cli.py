"""The `train-pose` command."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from dataset.errors import BadInput
from dataset.pose.models import DEFAULT, architecture_names, model_names
from dataset.utils.cli_options import CONTEXT_SETTINGS, FILE, FOLDER

pose_weights_option = click.option(
    "--pose-weights",
    type=FILE,
    metavar="PATH",
    help="Weights for that network: .weights.h5 of train-pose with its .json file beside it, or a"
    " .pth file of HRNet's authors or of mmpose.",
)


class InputSize(click.ParamType):
    """Height and width, separated by an x."""

    name = "size"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[int, int]:
        """Convert to two numbers of pixels, 32 to 1024."""
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
    multiple=True,
    help="COCO JSON file with key points of any joint set, masks (segmentation), or both. Repeat"
    " the option for more files; a file that is named twice has twice the weight.",
)
@click.option(
    "--images",
    type=FOLDER,
    required=True,
    multiple=True,
    help="Folder of its images; one for each --annotations, or one for all.",
)
@click.option(
    "--evaluate",
    is_flag=True,
    help="Evaluate --pose on the annotations instead of training.",
)
@click.option(
    "--validation",
    type=FILE,
    multiple=True,
    help="COCO JSON file for the validation after each epoch.  [default: 5 % of the images]",
)
@click.option(
    "--validation-images",
    type=FOLDER,
    multiple=True,
    help="Folder of its images.  [default: --images]",
)
@click.option(
    "--model",
    type=click.Choice(architecture_names()),
    default=DEFAULT,
    show_default=True,
    help="Architecture to train.",
)
@click.option(
    "--input-size",
    "size",
    type=InputSize(),
    default=(192, 192),
    metavar="HxW",
    help="Height and width of the network's input in pixels.  [default: 192x192]",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=210,
    show_default=True,
    help="Number of epochs.",
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="People per step.",
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    default=1e-3,
    show_default=True,
    help="Initial learning rate; a tenth of it after 81 % of the epochs, a hundredth after 95 %.",
)
@click.option(
    "--whole-photos",
    "whole",
    type=click.FloatRange(0, 1),
    default=0.4,
    show_default=True,
    help="Fraction of samples that show the whole image instead of the person's box, as in the"
    " first pass on images without boxes.",
)
@click.option(
    "--pose-weights",
    type=FILE,
    metavar="PATH",
    help="Initial weights, whose heads are all trained unless an option says otherwise; or the"
    " weights to evaluate.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="Precision of the layers; weights and heat maps are float32. bfloat16 is 1.4 times as fast"
    " on processors that support it.",
)
@click.option(
    "--masks-only",
    is_flag=True,
    help="Train only the mask head; the key point weights of --pose-weights stay frozen.",
)
@click.option(
    "--boxes-only",
    is_flag=True,
    help="Train a head that finds the person's box, and leave the key points and masks of"
    " --pose-weights as they are.",
)
@click.option(
    "--without-people",
    type=FOLDER,
    help="Folder of images without people, such as garments laid flat; 15 % of the samples are"
    " drawn from it. With --evaluate, the fraction of them that is cropped is measured.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Random seed.")
@click.option("--resume", is_flag=True, help="Continue the training in --out.")
@click.option(
    "--out",
    type=FOLDER,
    default=Path("runs/pose"),
    show_default=True,
    help="New output folder.",
)
@click.option(
    "--pose",
    type=click.Choice(model_names()),
    default=DEFAULT,
    show_default=True,
    help="Network to evaluate, with --evaluate.",
)
@click.option(
    "--flip", is_flag=True, help="Average with the mirrored image in the evaluation (slower)."
)
@click.option("--dark", is_flag=True, help="Decode heat maps with DARK in the evaluation.")
@click.option(
    "--json", "json_file", type=FILE, metavar="FILE", help="Write the metrics to this file as well."
)
def train_pose(**chosen: Any) -> None:
    """Train an HRNet for key points and person masks, or evaluate one.

    The network gets a mask head if any person has a segmentation. After each epoch the fraction of
    correct key points (PCK) and the IoU of the masks are measured on held-out images; the weights
    of the best epoch are saved as pose.weights.h5 with pose.json in --out, for
    build-dataset --pose-weights. An interrupted training continues with --resume. The folder also
    gets curves.png and, every ten epochs, images with the detected joints.

    With --evaluate: OKS average precision and PCK with given boxes; and of what is found in whole
    images, COCO's average precision of boxes and masks, and the mean IoU of masks and crops.
    """
    from dataset.utils import keras_backend

    keras_backend.import_backend()
    if chosen.pop("evaluate"):
        _evaluate(**chosen)
    else:
        _train(chosen)


def _train(chosen: dict[str, Any]) -> None:
    from dataset.pose.training import WEIGHTS, PoseTrainOptions, describe_figures, train_pose

    if chosen["masks_only"] and chosen["boxes_only"]:
        raise click.UsageError("--masks-only and --boxes-only exclude each other: masks come first")
    for name in ("masks_only", "boxes_only"):
        if chosen[name] and not chosen["pose_weights"]:
            option = f"--{name.replace('_', '-')}"
            raise click.UsageError(f"{option} needs --pose-weights: key points to keep")
    names = {field.name for field in fields(PoseTrainOptions)}
    options = PoseTrainOptions(
        start=chosen["pose_weights"], **{name: chosen[name] for name in names & chosen.keys()}
    )
    done = train_pose(options)
    click.echo(f"{describe_figures(done)} in epoch {done['epoch']} of {done['epochs']}")
    click.echo(f"weights: {options.out / WEIGHTS}")


def _evaluate(
    annotations: tuple[Path, ...],
    images: tuple[Path, ...],
    pose: str,
    pose_weights: Path | None,
    without_people: Path | None,
    flip: bool,
    dark: bool,
    json_file: Path | None,
    **_: Any,
) -> None:
    from dataset.pose.annotations import read_people, read_photos_without_people
    from dataset.pose.checkpoints import load_estimator
    from dataset.pose.evaluation import evaluate_pose
    from dataset.pose.models import find_model
    from dataset.utils.cli_options import format_table
    from dataset.utils.files import write_json

    model = find_model(pose, pose_weights)
    people = read_people(annotations, images, model.joints)
    if not people.persons:
        raise BadInput(
            f"{annotations[0]} has no people with a mask or with annotated joints of the network"
            f" ({', '.join(model.joints.names)}) and an image in {images[0]}"
        )
    empty = (
        read_photos_without_people(without_people, len(people.joints.names))
        if without_people
        else []
    )
    figures = evaluate_pose(load_estimator(model, flip, dark), people, empty)
    rows = [("PCK@0.2", figures["PCK"])] if "PCK" in figures else []
    rows += [
        (f"{group} {name.replace('_', ' ')}", value)
        for group in ("OKS", "box", "mask", "crop")
        for name, value in figures.get(group, {}).items()
    ]
    click.echo(format_table(("figure", "value"), [(name, f"{value:.3f}") for name, value in rows]))
    click.echo(f"{len(people.persons)} people in {figures['photos']} photos")
    for path in figures["missing"]:
        click.echo(f"missing: {path}", err=True)
    for path, why in figures["unreadable"].items():
        click.echo(f"excluded {path}: {why}", err=True)
    if json_file:
        try:
            write_json(figures, json_file)
        except OSError as error:
            raise BadInput(f"--json {json_file}: {error.strerror}; name another file") from error
