"""Read what a build's manifest has about photos, and hash a data set."""

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

# Attribute of PhotoMetadata -> column of the manifest.
MANIFEST_COLUMNS = {"groups": "group", "sites": "site", "crops": "crop"}


@dataclass(frozen=True)
class PhotoMetadata:
    """Metadata of photos, one value per photo; None if the data folder has none.

    Attributes:
        groups: Names of groups whose photos must stay in one split.
        sites: Names of sites.
        crops: Kinds of crops: zone, person or whole.
    """

    groups: Sequence[str] | None = None
    sites: Sequence[str] | None = None
    crops: Sequence[str] | None = None


def load_metadata(folder: Path, examples: Sequence[Example]) -> PhotoMetadata:
    """Load the metadata of examples from the manifest of their data folder, if there is one."""
    path = folder / MANIFEST
    if not path.exists():
        return PhotoMetadata()
    present = pq.read_schema(path).names
    columns = {name: column for name, column in MANIFEST_COLUMNS.items() if column in present}
    rows = pq.read_table(path, columns=["path", *columns.values()]).to_pydict()
    row_by_path = {name: row for row, name in enumerate(rows["path"])}
    indices = [row_by_path[example.path] for example in examples]
    values = {name: [rows[column][i] for i in indices] for name, column in columns.items()}
    return PhotoMetadata(
        **{
            name: _fill_missing(name, column, examples)
            for name, column in values.items()
            # A column of nulls has no information: no pose network was used, for example.
            if any(value is not None for value in column)
        }
    )


def _fill_missing(
    name: str, values: Sequence[str | None], examples: Sequence[Example]
) -> list[str]:
    """Replace nulls: a photo without a group is a group of its own."""
    is_group = name == "groups"
    defaults = [e.path for e in examples] if is_group else ["unknown"] * len(values)
    return [
        default if value is None else value for value, default in zip(values, defaults, strict=True)
    ]


HASHED_COLUMNS = ("path", "label", "split", "file_sha256")
# `file_digest` takes the algorithm and the length of a digest from an example.
SHA256_FORMAT = "sha256:" + 64 * "-"


@dataclass(frozen=True)
class DatasetHash:
    """Hash of a data set.

    Attributes:
        sha256: SHA-256 in hexadecimal digits.
        hashed: What is hashed, in words.
        photos: Number of photos.
    """

    sha256: str
    hashed: str
    photos: int


def hash_dataset(folder: Path, examples: Sequence[Example]) -> DatasetHash:
    """Hash a data set.

    For a build, the manifest's path, label, split and file_sha256 of every photo are hashed,
    without reading the photos; for plain folders, the path and the SHA-256 of every file.

    Args:
        folder: The data folder.
        examples: Its photos.
    """
    manifest = folder / MANIFEST
    present = set(pq.read_schema(manifest).names) if manifest.exists() else set()
    # A multi-label build has lists of labels.
    hashed = [f"{name}s" if name == "label" not in present else name for name in HASHED_COLUMNS]
    if set(hashed) <= present:
        columns = pq.read_table(manifest, columns=hashed).to_pydict()
        rows = zip(*(columns[name] for name in hashed), strict=True)
        return _hash_rows(rows, f"{', '.join(hashed)} of manifest.parquet")
    paths = [example.path for example in examples]
    hashes = map_in_threads(_sha256, (folder / path for path in paths))
    return _hash_rows(zip(paths, hashes, strict=True), "path and sha256 of every file")


def _hash_rows(rows: Iterable[Sequence[str]], hashed: str) -> DatasetHash:
    """Hash rows, sorted and as lines of JSON."""
    lines = sorted(json.dumps(row) for row in rows)
    return DatasetHash(sha256_of("\n".join(lines).encode()), hashed, len(lines))


def _sha256(path: Path) -> str:
    try:
        return file_digest(path, SHA256_FORMAT).removeprefix("sha256:")
    except OSError:
        # The training excluded it and continued.
        return "unreadable"
