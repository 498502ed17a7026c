"""What data a run saw, so that two runs on the same photos can be told from two on others."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from dataset.downloads import digest_of
from dataset.duplicates.nearest import in_threads
from dataset.export import MANIFEST
from dataset.images import sha256_of
from model.data import Example

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
    hashes = in_threads(_sha256, (folder / path for path in paths))
    return _of(zip(paths, hashes, strict=True), "path and sha256 of every file")


def _of(lines: Iterable[Sequence[str]], what: str) -> Fingerprint:
    texts = sorted(json.dumps(line) for line in lines)
    return Fingerprint(sha256_of("\n".join(texts).encode()), what, len(texts))


def _sha256(path: Path) -> str:
    try:
        return digest_of(path, ANY).removeprefix("sha256:")
    except OSError:
        # The training named it and went on without it.
        return "unreadable"
