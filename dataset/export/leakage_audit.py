"""Audit a finished build for leaks between its splits.

The audit does not rely on the plan: it reads the written files and searches for near duplicates
across splits with more candidates than the build (see `compare_candidates`). Photos that match are
put into one split, and the build is audited again. A build passes only if the audit finds no such
photos, and no two images of one group, product or cluster, in different splits, and if each file is
the one in the manifest. It finds most copies, but not all: see RECALL_SENTENCE.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from dataset.duplicates.search import (
    ComparedPair,
    LoadedPhotos,
    PhotoSignature,
    SignatureFile,
    compare_candidates,
)
from dataset.export.formats import DatasetFormat
from dataset.export.layout import MANIFEST, AuditResult, CrossSplitPair
from dataset.export.rendering import written_signature
from dataset.images.io import sha256_of
from dataset.utils.threads import map_in_threads

CLOSEST_PAIRS = 12
# Results of benchmarks/duplicates.py.
RECALL_SENTENCE = (
    "The search finds most copies, not all: of 1,000 planted copies of 70 kinds it linked 98.7 % to"
    " their originals, least often a photo in the corner of another one (71 %) and one of nine in a"
    " collage (79 %)."
)
# Images with equal values in one of these columns must be in one split.
GROUP_COLUMNS = ("sha256", "cluster", "group", "post_url")


def audit_build(
    folder: Path, build_format: DatasetFormat, known: SignatureFile | None = None
) -> AuditResult:
    """Read, hash and compare all images of a build.

    Args:
        folder: Folder of the build.
        build_format: Its output format.
        known: Known signatures by the SHA-256 of the file, because they take long to compute;
            others are added.
    """
    rows = {row["path"]: row for row in pq.read_table(folder / MANIFEST).to_pylist()}
    signatures = SignatureFile() if known is None else known

    def read(image: tuple[str, bytes]) -> tuple[str, str, PhotoSignature | None, bytes]:
        path, jpeg = image
        digest = sha256_of(jpeg)
        is_known = signatures.number_of(digest) is not None
        return path, digest, None if is_known else written_signature(jpeg), jpeg

    images, extents, numbers = [], [], []
    # The files of a sharded format can't be read by their names, so they are copied into one file.
    with tempfile.TemporaryFile() as copies:
        for path, digest, signature, jpeg in map_in_threads(read, build_format.read(folder)):
            if signature is not None:
                signatures.add(digest, signature)
            images.append((path, digest))
            numbers.append(signatures.number_of(digest) or 0)
            extents.append((len(jpeg), copies.tell()))
            copies.write(jpeg)
        copies.flush()
        order = sorted(range(len(images)), key=lambda index: images[index][1])
        photos = LoadedPhotos(
            signatures.select([numbers[index] for index in order]),
            lambda number: os.pread(copies.fileno(), *extents[order[number]]),
        )
        splits = [images[index][0].partition("/")[0] for index in order]
        groups = np.unique(splits, return_inverse=True)[1]
        compared = [
            pair
            for batch in compare_candidates(photos, groups=groups, thorough=True)
            for pair in batch
        ]
    compared.sort(key=_closeness, reverse=True)
    pairs = [
        CrossSplitPair(
            images[order[pair.first]][0],
            images[order[pair.second]][0],
            pair.comparison.similarity,
        )
        for pair in compared
    ]
    matches = [
        pair for pair, found in zip(pairs, compared, strict=True) if found.comparison.is_related
    ]
    leaks = [
        f"{pair.first} and {pair.second} are near duplicates or possible ones" for pair in matches
    ]
    leaks += _manifest_mismatches(images, rows)
    leaks += _shared_across_splits(rows)
    return AuditResult(len(images), len(compared), leaks, pairs[:CLOSEST_PAIRS], matches)


def describe_audit(audit: AuditResult) -> str:
    """Return what the audit compared and found, as a sentence."""
    found = len(audit.leaks)
    return (
        f"All {audit.photos} written photos were read again. {audit.compared} pairs across splits"
        " with near perceptual hashes, common local features or similar thumbnails were"
        f" compared by their pixels: {found or 'none'} of them are near duplicates or"
        " possible ones."
    )


def _closeness(pair: ComparedPair) -> tuple[bool, float, float]:
    comparison = pair.comparison
    return (
        comparison.is_related,
        comparison.agreement * comparison.region,
        comparison.similarity,
    )


def _manifest_mismatches(
    images: Sequence[tuple[str, str]], rows: Mapping[str, Mapping[str, object]]
) -> list[str]:
    """Return a sentence for each file that is missing or not the one in the manifest."""
    paths = {path for path, _ in images}
    wrong = [
        f"{path} differs from the manifest"
        for path, digest in images
        if path not in rows or rows[path]["file_sha256"] != digest
    ]
    return wrong + [f"{path} is missing" for path in rows if path not in paths]


def _shared_across_splits(rows: Mapping[str, Mapping[str, object]]) -> list[str]:
    """Return a sentence for each value of a group column that is in two splits."""
    first_path: dict[tuple[str, object], str] = {}
    shared = []
    for path, row in rows.items():
        for column in GROUP_COLUMNS:
            if row[column] is None:
                continue
            first = first_path.setdefault((column, row[column]), path)
            if rows[first]["split"] != row["split"]:
                shared.append(f"{first} and {path} have the same {column}")
    return shared
