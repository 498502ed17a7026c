"""Read the steps of a comparison from a TOML file."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from dataset.errors import BadInput
from dataset.vocabulary import read_toml
from model import cli_options
from model.data.crops import BACKGROUNDS, CROPS
from model.training.config import TrainOptions

USEFUL_AUGMENTATION, BEST_STEP = "useful", "best"
# Keys of a step that are not options of train-model.
STEP_KEYS = {"name", "from", "against", "crop", "background", "seeds"}
# Options that are the same for all steps.
SHARED_OPTIONS = {
    *("data", "out", "weights", "image_size", "precision", "cache", "seed", "folds", "resume"),
}


@dataclass(frozen=True)
class Step:
    """A step of a comparison.

    Attributes:
        name: Its name.
        base: Name of the step that it changes; `best`, or "" for the first step.
        settings: Changed fields of TrainOptions.
        crop: One of CROPS; None: as the step that it changes.
        background: One of BACKGROUNDS; None: as the step that it changes.
        seeds: Number of trainings at most; 0: no limit.
        against: Name of the step that it is compared with; "": the step that it changes.
    """

    name: str
    base: str
    settings: Mapping[str, Any]
    crop: str | None
    background: str | None
    seeds: int
    against: str = ""


@dataclass(frozen=True)
class StepsFile:
    """The content of a file of steps.

    Attributes:
        steps: The steps.
        reference: Name -> accuracy that was measured elsewhere, shown beside the steps.
    """

    steps: Sequence[Step]
    reference: Mapping[str, float]


def read_steps(path: Path) -> StepsFile:
    """Read a TOML file of steps.

    Raises:
        BadInput: A step has no name, an unknown base, or an invalid setting.
    """
    table = read_toml(path)
    entries = table.get("step")
    if not isinstance(entries, list) or not entries:
        raise BadInput(f"{path}: no [[step]]; start from a copy of {cli_options.STEPS_FILE}")
    steps: list[Step] = []
    for entry in entries:
        steps.append(_step(entry, steps, path))
    reference = table.get("reference", {})
    for name, value in reference.items():
        if not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise BadInput(f"{path}: the reference {name!r} must be an accuracy from 0 to 1")
    return StepsFile(steps, reference)


def _step(entry: Mapping[str, Any], before: Sequence[Step], path: Path) -> Step:
    name = entry.get("name")
    names = [step.name for step in before]
    if not isinstance(name, str) or not name or name in (*names, BEST_STEP):
        raise BadInput(f"{path}: each [[step]] needs a unique name, not {name!r}")
    base = entry.get("from", names[-1] if names else "")
    if names and base not in (*names, BEST_STEP):
        raise BadInput(f"{path}: step {name!r}: from = {base!r} is not a step before it")
    crop, background, seeds = (entry.get(key) for key in ("crop", "background", "seeds"))
    seeds = seeds or 0
    for key, value, choices in (
        ("crop", crop, CROPS),
        ("background", background, BACKGROUNDS),
    ):
        if value not in (None, *choices):
            raise BadInput(
                f"{path}: step {name!r}: {key} must be {', '.join(choices)}, not {value!r}"
            )
    if not isinstance(seeds, int) or seeds < 0:
        raise BadInput(f"{path}: step {name!r}: seeds must be a number, not {seeds!r}")
    settings = {
        key: _parse_setting(key, value, f"{path}: step {name!r}")
        for key, value in entry.items()
        if key not in STEP_KEYS
    }
    against = entry.get("against", "")
    if against not in ("", *names):
        raise BadInput(f"{path}: step {name!r}: against = {against!r} is not a step before it")
    return Step(name, base if names else "", settings, crop, background, seeds, against)


def _parse_setting(key: str, value: Any, where: str) -> Any:
    """Return a setting as TrainOptions has it."""
    types = {
        field.name: getattr(field.type, "__name__", str(field.type))
        for field in fields(TrainOptions)
    }
    if key in SHARED_OPTIONS:
        raise BadInput(f"{where}: {key} is the same for all steps; pass it to the command")
    if key not in types:
        raise BadInput(f"{where}: unknown setting {key!r}; settings are options of train-model")
    if key == "augment" and value == USEFUL_AUGMENTATION:
        return value
    try:
        return _PARSERS[key](value) if key in _PARSERS else _check_type(value, types[key])
    except (BadInput, click.BadParameter, TypeError) as error:
        raise BadInput(f"{where}: {key} = {value!r}: {error}") from error


def _check_type(value: Any, type_name: str) -> Any:
    """Return a value of a type, which is given by name, such as `int | None`."""
    name = type_name.partition(" ")[0]
    if name == "float" and type(value) in (int, float):
        return float(value)
    if type(value).__name__ != name:
        raise TypeError(f"must be of type {type_name}")
    return value


def _parse_time(value: Any) -> float:
    return cli_options.Duration().convert(str(value), None, None)


def _parse_blocks(value: Any) -> int | None:
    return cli_options.Blocks().convert(str(value), None, None)


_PARSERS: Mapping[str, Callable[[Any], Any]] = {
    "feature_layers": cli_options.parse_feature_layers,
    "augment": cli_options.normalize_augmentation,
    "time_budget": _parse_time,
    "fine_tune": _parse_blocks,
}
