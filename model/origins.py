"""Where photos come from, as a build's manifest knows it: group, site, what was kept of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from dataset.export import MANIFEST
from model.data import Example

COLUMNS = {"groups": "group", "sites": "site", "crops": "crop"}


@dataclass(frozen=True)
class Origins:
    """A value a photo, in their order; None where nobody knows: plain folders, older builds.

    `groups`: equal for photos that are tied; `crops`: zone, person or whole.
    """

    groups: Sequence[str] | None = None
    sites: Sequence[str] | None = None
    crops: Sequence[str] | None = None


def origins(folder: Path, examples: Sequence[Example]) -> Origins:
    """The origins of EXAMPLES of the data FOLDER."""
    path = folder / MANIFEST
    if not path.exists():
        return Origins()
    there = {name: column for name, column in COLUMNS.items() if column in _names(path)}
    rows = pq.read_table(path, columns=["path", *there.values()]).to_pydict()
    places = {name: place for place, name in enumerate(rows["path"])}
    mine = [places[example.path] for example in examples]
    found = {name: [rows[column][i] for i in mine] for name, column in there.items()}
    # A column of nulls says nothing: nobody looked for people, say.
    said = {name: values for name, values in found.items() if any(v is not None for v in values)}
    return Origins(**{name: _filled(name, values, examples) for name, values in said.items()})


def _names(path: Path) -> list[str]:
    return list(pq.read_schema(path).names)


def _filled(name: str, values: Sequence[str | None], examples: Sequence[Example]) -> list[str]:
    """VALUES with a word for what nobody knows; a photo of no group is one of its own."""
    instead = [e.path for e in examples] if name == "groups" else ["unknown"] * len(values)
    return [other if value is None else value for value, other in zip(values, instead, strict=True)]
