"""Where photos come from, as a build's manifest knows it: group, site, what was kept of each."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from dataset.export.layout import MANIFEST
from dataset.images.io import sha256_of
from dataset.utils.downloads import file_digest
from dataset.utils.threads import map_in_threads
from model.data.loading import Example

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


BUILD = ("path", "label", "split", "file_sha256")
ANY = "sha256:" + 64 * "-"


@dataclass(frozen=True)
class Fingerprint:
    """SHA-256 of a dataset, 64 hex digits; `of` what, in words; how many photos it has."""

    sha256: str
    of: str
    photos: int


def fingerprint(folder: Path, examples: Sequence[Example]) -> Fingerprint:
    """The fingerprint of the data FOLDER, whose photos are EXAMPLES.

    Of a build: its manifest's path, label, split and file_sha256 of every photo, so that no photo
    is read. Of plain folders: path and SHA-256 of every file. Lines of JSON, sorted.
    """
    manifest = folder / MANIFEST
    if manifest.exists() and set(BUILD) <= set(pq.read_schema(manifest).names):
        columns = pq.read_table(manifest, columns=list(BUILD)).to_pydict()
        lines = zip(*(columns[name] for name in BUILD), strict=True)
        return _of(lines, f"{', '.join(BUILD)} of manifest.parquet")
    paths = [example.path for example in examples]
    hashes = map_in_threads(_sha256, (folder / path for path in paths))
    return _of(zip(paths, hashes, strict=True), "path and sha256 of every file")


def _of(lines: Iterable[Sequence[str]], what: str) -> Fingerprint:
    texts = sorted(json.dumps(line) for line in lines)
    return Fingerprint(sha256_of("\n".join(texts).encode()), what, len(texts))


def _sha256(path: Path) -> str:
    try:
        return file_digest(path, ANY).removeprefix("sha256:")
    except OSError:
        # The training named it and went on without it.
        return "unreadable"
