"""Options of `train-model` that other commands of the model share, and what their texts mean."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from dataset.errors import BadInput
from dataset.utils.cli_options import FOLDER

UNITS = {"": 60, "s": 1, "m": 60, "h": 3600}
# The steps of a comparison that nobody named: the thesis'.
BUILT_IN = Path(__file__).parent / "ablation" / "compare.toml"
BLOCKS = [f"mixed{number}" for number in range(4, 11)]


class Duration(click.ParamType):
    """`45m`, `1.5h`, `90s`, or minutes alone, as seconds; `none` is 0."""

    name = "time"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """VALUE as seconds."""
        if isinstance(value, (int, float)):
            return float(value)
        if value == "none":
            return 0.0
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", value.strip())
        if not found or float(found[1]) == 0:
            self.fail(f"{value!r} is no time; say 45m, 1.5h, 90s or none", param, ctx)
        return float(found[1]) * UNITS[found[2]]


class Blocks(click.ParamType):
    """How many inception blocks learn: a number, `all` (None) or `0`."""

    name = "blocks"

    def convert(self, value: Any, param: Any, ctx: Any) -> int | None:
        """VALUE as a number of blocks; None: all."""
        if value is None or isinstance(value, int):
            return value
        if value == "all":
            return None
        if not value.isdigit():
            self.fail(f"{value!r} is no number of blocks; say 2, all, or 0 for none", param, ctx)
        return int(value)


def known_weights(_ctx: click.Context, _param: click.Parameter, value: str) -> str:
    """VALUE, where it is `imagenet`, `none` or a file that may hold Keras weights."""
    if value in ("imagenet", "none"):
        return value
    path = Path(value)
    if not path.is_file():
        raise BadInput(f"--weights {value}: no such file; name one, or say imagenet or none")
    if path.suffix not in (".h5", ".hdf5"):
        raise BadInput(f"--weights {value}: a Keras weights file ends in .h5 (or .weights.h5)")
    return value


def taps_of(value: str) -> tuple[str, ...]:
    """The inception blocks that VALUE names, in the trunk's order; `auto`: none."""
    if value == "auto":
        return ()
    names = {name.strip() for name in value.replace(",", "+").split("+")}
    unknown = sorted(names - set(BLOCKS))
    if unknown:
        raise BadInput(f"--taps {value}: {unknown[0]!r} is none of {', '.join(BLOCKS)}")
    return tuple(name for name in BLOCKS if name in names)


def changes_of(value: str) -> str:
    """The augmentation VALUE, spelt in full."""
    from model.data.augmentation import parse

    return str(parse(value.split(",")))


data_option: Callable[[Any], Any] = click.option(
    "--data",
    type=FOLDER,
    default=Path("splits"),
    show_default=True,
    help="A folder of build-dataset, or one with train/ validation/ test/ and a folder a label.",
)
weights_option: Callable[[Any], Any] = click.option(
    "--weights",
    default="imagenet",
    show_default=True,
    metavar="imagenet|none|PATH",
    callback=known_weights,
    help="What the trunk knows at the start: ImageNet (fetched once), a Keras weights file of"
    " InceptionV3 without top, or nothing: then trunk and head are trained together.",
)
cache_option: Callable[[Any], Any] = click.option(
    "--cache",
    type=FOLDER,
    help="Where outputs of frozen trunks are kept, for every later training."
    "  [default: ~/.cache/fashion-tagger/trunk-outputs]",
)
size_option: Callable[[Any], Any] = click.option(
    "--image-size",
    type=click.IntRange(min=75, max=1024),
    default=299,
    show_default=True,
    help="Width and height that the network sees, in pixels.",
)
precision_option: Callable[[Any], Any] = click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
    default="auto",
    show_default=True,
    help="Of the trunk's work; auto: bfloat16 where the processor or GPU multiplies it and outputs"
    " stay the same, else float32. Weights are float32 always.",
)
seed_option: Callable[[Any], Any] = click.option(
    "--seed", type=int, default=0, show_default=True, help="Of all that is random."
)
