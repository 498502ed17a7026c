"""Audit a finished build for leaks between its splits.

The audit does not rely on the plan: it reads and hashes the written files and compares them. A
build passes only if no two images that are or may be near duplicates, and no two images of one
group, product or cluster, are in different splits, and if each file is the one in the manifest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from dataset.duplicates.alignment import POSSIBLE_SIMILARITY, similarity
from dataset.duplicates.hashing import Fingerprint
from dataset.duplicates.matching import CandidatePairs, candidate_pairs
from dataset.export.formats import DatasetFormat
from dataset.export.layout import MANIFEST
from dataset.export.rendering import written_fingerprint
from dataset.images.io import sha256_of
from dataset.utils.threads import map_in_threads

CLOSEST_PAIRS = 12
BATCH_PAIRS = 256
# Images with equal values in one of these columns must be in one split.
GROUP_COLUMNS = ("sha256", "cluster", "group", "post_url")


@dataclass(frozen=True)
class CrossSplitPair:
    """Two images of different splits.

    Attributes:
        first: Path of one image.
        second: Path of the other image.
        similarity: Similarity of the aligned images, at most 1.
    """

    first: str
    second: str
    similarity: float


@dataclass(frozen=True)
class AuditResult:
    """What an audit found.

    Attributes:
        photos: Number of images that were read.
        compared: Number of candidate pairs across splits that were compared.
        leaks: A sentence for each leak or wrong file.
        closest: The most similar pairs across splits.
    """

    photos: int
    compared: int
    leaks: Sequence[str]
    closest: Sequence[CrossSplitPair]


class CrossSplitComparison:
    """Compare images across splits, each candidate pair at most once.

    Args:
        fingerprints: Fingerprints of the images.
    """

    def __init__(self, fingerprints: Sequence[Fingerprint]) -> None:
        # The search compares a limited number of equally near images: sorted, always the same.
        order = np.array(sorted(range(len(fingerprints)), key=lambda i: fingerprints[i].packed))
        views = np.stack([fingerprints[i].views for i in order])
        matches = candidate_pairs(views, np.ones(len(fingerprints), bool))
        self.fingerprints = fingerprints
        self.pairs = CandidatePairs(
            order[matches.first], order[matches.second], matches.orientation, matches.distance
        )
        self.scores = np.full(len(self.pairs.first), np.nan, np.float32)

    def across(self, splits: Sequence[str]) -> np.ndarray:
        """Return the indices of the pairs across splits, whose scores are computed if needed.

        Args:
            splits: Split of each image.
        """
        split_ids = np.unique(np.asarray(splits), return_inverse=True)[1]
        is_across = split_ids[self.pairs.first] != split_ids[self.pairs.second]
        self._score(np.flatnonzero(is_across & np.isnan(self.scores)))
        return np.flatnonzero(is_across)

    def _score(self, pairs: np.ndarray) -> None:
        def score(start: int) -> np.ndarray:
            batch = pairs[start : start + BATCH_PAIRS]
            first = [self.fingerprints[i] for i in self.pairs.first[batch]]
            second = [self.fingerprints[i] for i in self.pairs.second[batch]]
            return similarity(first, second, self.pairs.orientation[batch])

        starts = list(range(0, len(pairs), BATCH_PAIRS))
        for start, scores in zip(starts, map_in_threads(score, starts), strict=True):
            self.scores[pairs[start : start + BATCH_PAIRS]] = scores

    def leaks(self, splits: Sequence[str]) -> list[tuple[int, int]]:
        """Return index pairs of possible near duplicates in different splits."""
        across = self.across(splits)
        leaking = across[self.scores[across] >= POSSIBLE_SIMILARITY]
        return [(int(self.pairs.first[i]), int(self.pairs.second[i])) for i in leaking]


def audit_build(folder: Path, build_format: DatasetFormat) -> AuditResult:
    """Read, hash and compare all images of a build.

    Args:
        folder: Folder of the build.
        build_format: Its output format.
    """
    rows = {row["path"]: row for row in pq.read_table(folder / MANIFEST).to_pylist()}

    def read(image: tuple[str, bytes]) -> tuple[str, str, Fingerprint]:
        path, jpeg = image
        return path, sha256_of(jpeg), written_fingerprint(jpeg)

    images = list(map_in_threads(read, build_format.read(folder)))
    splits = [path.partition("/")[0] for path, _, _ in images]
    comparison = CrossSplitComparison([fingerprint for _, _, fingerprint in images])
    across = comparison.across(splits)
    order = across[np.argsort(-comparison.scores[across], kind="stable")]
    pairs = [
        CrossSplitPair(
            images[comparison.pairs.first[i]][0],
            images[comparison.pairs.second[i]][0],
            float(comparison.scores[i]),
        )
        for i in order
        if comparison.scores[i] > 0
    ]
    leaks = [
        f"{pair.first} and {pair.second} have a similarity of {pair.similarity:.3f}"
        for pair in pairs
        if pair.similarity >= POSSIBLE_SIMILARITY
    ]
    leaks += _manifest_mismatches(images, rows) + _shared_across_splits(rows)
    return AuditResult(len(images), len(across), leaks, pairs[:CLOSEST_PAIRS])


def _manifest_mismatches(
    images: Sequence[tuple[str, str, Fingerprint]], rows: Mapping[str, Mapping[str, object]]
) -> list[str]:
    """Return a sentence for each file that is missing or not the one in the manifest."""
    paths = {path for path, _, _ in images}
    wrong = [
        f"{path} differs from the manifest"
        for path, digest, _ in images
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
