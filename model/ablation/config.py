"""The steps of a comparison, read from a TOML file that people edit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import click

from dataset.errors import BadInput
from dataset.vocabulary import read_toml
from model import cli_options
from model.data.crops import CROPS
from model.training.config import TrainOptions

USEFUL, BEST = "useful", "best"
# Settings of a step that are no options of train-model.
OWN = {"name", "from", "crop", "seeds"}
# Options that a comparison has for all of its steps.
SHARED = {"data", "out", "weights", "image_size", "precision", "cache", "seed", "folds", "resume"}
# A step's settings are spelt as options; what the options' dataclass calls them.
NAMES = {"learning_rate": "rate", "time_budget": "seconds"}


@dataclass(frozen=True)
class Step:
    """A row to be. `base`: the name of the step it changes, `best`, or "" for the first.

    `settings`: what it changes, by names of TrainOptions; `seeds`: trainings at most, 0: no limit.
    """

    name: str
    base: str
    settings: Mapping[str, Any]
    crop: str | None
    seeds: int


@dataclass(frozen=True)
class Steps:
    """What a file of steps says. `reference`: figures of others to be shown beside, by name."""

    steps: Sequence[Step]
    reference: Mapping[str, float]


def read_steps(path: Path) -> Steps:
    """The steps of the TOML file PATH.

    Raises:
        BadInput: a step without a name, of an unknown base, or with a setting that means nothing.
    """
    table = read_toml(path)
    entries = table.get("step")
    if not isinstance(entries, list) or not entries:
        raise BadInput(f"{path}: has no [[step]]; copy {cli_options.BUILT_IN} and change it")
    steps: list[Step] = []
    for entry in entries:
        steps.append(_step(entry, steps, path))
    reference = table.get("reference", {})
    for name, value in reference.items():
        if not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise BadInput(f"{path}: the reference {name!r} must be an accuracy from 0 to 1")
    return Steps(steps, reference)


def _step(entry: Mapping[str, Any], before: Sequence[Step], path: Path) -> Step:
    name = entry.get("name")
    names = [step.name for step in before]
    if not isinstance(name, str) or not name or name in (*names, BEST):
        raise BadInput(f"{path}: each [[step]] needs a name of its own, not {name!r}")
    base = entry.get("from", names[-1] if names else "")
    if names and base not in (*names, BEST):
        raise BadInput(f"{path}: step {name!r} is from {base!r}, which no step before it is called")
    crop, seeds = entry.get("crop"), entry.get("seeds", 0)
    if crop not in (None, *CROPS):
        raise BadInput(f"{path}: step {name!r}: crop is one of {', '.join(CROPS)}, not {crop!r}")
    if not isinstance(seeds, int) or seeds < 0:
        raise BadInput(f"{path}: step {name!r}: seeds is a number of trainings, not {seeds!r}")
    settings = {
        NAMES.get(key, key): _value(key, value, f"{path}: step {name!r}")
        for key, value in entry.items()
        if key not in OWN
    }
    return Step(name, base if names else "", settings, crop, seeds)


def _value(key: str, value: Any, where: str) -> Any:
    """The setting KEY as TrainOptions has it."""
    known = {one.name: getattr(one.type, "__name__", str(one.type)) for one in fields(TrainOptions)}
    field = NAMES.get(key, key)
    if field in SHARED:
        raise BadInput(f"{where}: {key} is the same for all steps; give it to the command")
    if field not in known or key in NAMES.values():
        raise BadInput(f"{where}: no setting {key!r}; settings are options of train-model")
    if key == "augment" and value == USEFUL:
        return value
    try:
        return _PARSERS[key](value) if key in _PARSERS else _plain(value, known[field])
    except (BadInput, click.BadParameter, TypeError) as error:
        raise BadInput(f"{where}: {key} = {value!r}: {error}") from error


def _plain(value: Any, wanted: str) -> Any:
    """VALUE, if it is of the type that WANTED names: `int | None`, say."""
    name = wanted.partition(" ")[0]
    if name == "float" and type(value) in (int, float):
        return float(value)
    if type(value).__name__ != name:
        raise TypeError(f"must be of type {wanted}")
    return value


def _time(value: Any) -> float:
    return cli_options.Duration().convert(str(value), None, None)


def _blocks(value: Any) -> int | None:
    return cli_options.Blocks().convert(str(value), None, None)


_PARSERS: Mapping[str, Callable[[Any], Any]] = {
    "taps": cli_options.taps_of,
    "augment": cli_options.changes_of,
    "time_budget": _time,
    "fine_tune": _blocks,
}
