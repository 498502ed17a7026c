"""Command-line options of `train-model` and commands that share them, and their parsers."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dataset.errors import BadInput
from dataset.utils.cli_options import FOLDER

SECONDS_PER_UNIT = {"": 60, "s": 1, "m": 60, "h": 3600}
# The built-in steps of a comparison.
STEPS_FILE = Path(__file__).parent / "ablation" / "compare.toml"
IMAGENET_IMAGE_SIZE, GARMENTS_IMAGE_SIZE = 299, 224
FEATURE_LAYERS = [f"mixed{number}" for number in range(4, 11)]


class Duration(click.ParamType):
    """A duration in seconds: `45m`, `1.5h`, `90s`, a number of minutes, or `none` for 0."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Return the duration in seconds."""
        if isinstance(value, (int, float)):
            return float(value)
        if value == "none":
            return 0.0
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", value.strip())
        if not match or float(match[1]) == 0:
            self.fail(f"{value!r} is not a time; use 45m, 1.5h, 90s or none", param, ctx)
        return float(match[1]) * SECONDS_PER_UNIT[match[2]]


class Blocks(click.ParamType):
    """A number of inception blocks; `all` is None."""

    name = "blocks"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | None:
        """Return the number of blocks; None: all."""
        if value is None or isinstance(value, int):
            return value
        if value == "all":
            return None
        if not value.isdigit():
            self.fail(f"{value!r} is not a number of blocks; use a number or all", param, ctx)
        return int(value)


def check_weights(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    """Return the value of --weights.

    Raises:
        BadInput: It is neither a name nor a file that may hold Keras weights.
    """
    if value in ("imagenet", "garments", "none"):
        return value
    path = Path(value)
    if not path.is_file():
        raise BadInput(
            f"--weights {value}: no such file; name a file, or use imagenet, garments or none"
        )
    if path.suffix not in (".h5", ".hdf5"):
        raise BadInput(f"--weights {value}: a Keras weights file ends in .h5 (or .weights.h5)")
    return value


def default_image_size(weights: str) -> int:
    """Return the size of photos that initial weights were trained on, in pixels."""
    return GARMENTS_IMAGE_SIZE if weights == "garments" else IMAGENET_IMAGE_SIZE


def parse_feature_layers(value: str) -> tuple[str, ...]:
    """Parse names of inception blocks, joined by + or commas; `auto` is an empty tuple.

    Returns:
        The names in the order of the network.

    Raises:
        BadInput: A name is unknown.
    """
    if value == "auto":
        return ()
    names = {name.strip() for name in value.replace(",", "+").split("+")}
    unknown = sorted(names - set(FEATURE_LAYERS))
    if unknown:
        choices = ", ".join(FEATURE_LAYERS)
        raise BadInput(f"--feature-layers {value}: {unknown[0]!r} is not one of {choices}")
    return tuple(name for name in FEATURE_LAYERS if name in names)


def normalize_augmentation(value: str) -> str:
    """Return a value of --augment with the strength of every transform.

    Raises:
        BadInput: A transform is unknown, or a strength is out of range.
    """
    from model.data.augmentation import parse_augmentation

    return str(parse_augmentation(value.split(",")))


data_option: Callable[[Any], Any] = click.option(
    "--data",
    type=FOLDER,
    default=Path("splits"),
    show_default=True,
    help="Folder of build-dataset, or a folder with train/, validation/ and test/ and a folder per"
    " label in each.",
)
weights_option: Callable[[Any], Any] = click.option(
    "--weights",
    default="imagenet",
    show_default=True,
    metavar="imagenet|garments|none|PATH",
    callback=check_weights,
    help="Initial weights of the backbone: ImageNet (downloaded once); garments: a smaller backbone"
    " in the package that was fine-tuned on photos of garments; a Keras weights file of InceptionV3"
    " without top; or none: train backbone and head together from scratch.",
)
cache_option: Callable[[Any], Any] = click.option(
    "--cache",
    type=FOLDER,
    help="Folder of cached features.  [default: ~/.cache/fashion-tagger/features]",
)
size_option: Callable[[Any], Any] = click.option(
    "--image-size",
    type=click.IntRange(min=75, max=1024),
    help="Width and height of the network's input in pixels.  [default: 299; 224 with --weights"
    " garments]",
)
precision_option: Callable[[Any], Any] = click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Precision of the backbone's computations; auto: bfloat16 where the processor or GPU"
    " supports it natively and the outputs stay the same, else float32. Weights are float32.",
)
seed_option: Callable[[Any], Any] = click.option(
    "--seed", type=int, default=0, show_default=True, help="Random seed."
)
image_root_option: Callable[[Any], Any] = click.option(
    "--image-root",
    type=FOLDER,
    help="Folder of the photos that are paths in the feed; files outside it are not read."
    "  [default: the feed's folder]",
)
allow_leaks_option: Callable[[Any], Any] = click.option(
    "--allow-leaks",
    is_flag=True,
    help="Accept plain folders whose test photos are among the train or validation photos, resized,"
    " cropped or changed; reports then say how many.",
)


def read_facets(run: Path) -> tuple[str, ...]:
    """Return the facets of a run, empty if its photos have one label; reads only labels.json."""
    try:
        labels = json.loads((run / "labels.json").read_text(encoding="utf-8"))
        return tuple(labels.get("facets", ()))
    # `load_run` names what is wrong with it.
    except (OSError, ValueError, AttributeError):
        return ()
