"""An independent look at a finished build: its files are read and hashed anew, and compared.

Whatever the plan believed, a build passes only if no two photos that are or may be one, no two of
one group, product or cluster, stand in two splits, and each file is the one that the manifest says.
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
GROUP_COLUMNS = ("sha256", "cluster", "group", "post_url")


@dataclass(frozen=True)
class CrossSplitPair:
    """Two photos of different splits, by path, and how alike they are."""

    one: str
    other: str
    similarity: float


@dataclass(frozen=True)
class AuditResult:
    """`leaks`: what is wrong, a sentence each. `closest`: the likest pairs across splits."""

    photos: int
    compared: int
    leaks: Sequence[str]
    closest: Sequence[CrossSplitPair]


class CrossSplitComparison:
    """Photos compared where they stand in two splits; no pair is compared twice."""

    def __init__(self, prints: Sequence[Fingerprint]) -> None:
        # Of many that are equally near some are compared: the same ones in whichever order.
        order = np.array(sorted(range(len(prints)), key=lambda place: prints[place].packed))
        views = np.stack([prints[place].views for place in order])
        found = candidate_pairs(views, np.ones(len(prints), bool))
        self.prints = prints
        self.pairs = CandidatePairs(
            order[found.first], order[found.second], found.orientation, found.distance
        )
        self.scores = np.full(len(self.pairs.first), np.nan, np.float32)

    def across(self, splits: Sequence[str]) -> np.ndarray:
        """Numbers of the pairs whose photos stand in different SPLITS; their scores are known."""
        names = np.unique(np.asarray(splits), return_inverse=True)[1]
        apart = names[self.pairs.first] != names[self.pairs.second]
        self._judge(np.flatnonzero(apart & np.isnan(self.scores)))
        return np.flatnonzero(apart)

    def _judge(self, wanted: np.ndarray) -> None:
        def judge(start: int) -> np.ndarray:
            some = wanted[start : start + BATCH_PAIRS]
            ones = [self.prints[place] for place in self.pairs.first[some]]
            others = [self.prints[place] for place in self.pairs.second[some]]
            return similarity(ones, others, self.pairs.orientation[some])

        starts = list(range(0, len(wanted), BATCH_PAIRS))
        for start, scores in zip(starts, map_in_threads(judge, starts), strict=True):
            self.scores[wanted[start : start + BATCH_PAIRS]] = scores

    def leaks(self, splits: Sequence[str]) -> list[tuple[int, int]]:
        """Places of the pairs that are or may be one photo and stand in different SPLITS."""
        across = self.across(splits)
        found = across[self.scores[across] >= POSSIBLE_SIMILARITY]
        return [(int(self.pairs.first[n]), int(self.pairs.second[n])) for n in found]


def audit_build(folder: Path, layout: DatasetFormat) -> AuditResult:
    """What a look at the build in FOLDER, laid out as LAYOUT, finds."""
    rows = {row["path"]: row for row in pq.read_table(folder / MANIFEST).to_pylist()}

    def examine(photo: tuple[str, bytes]) -> tuple[str, str, Fingerprint]:
        path, jpeg = photo
        return path, sha256_of(jpeg), written_fingerprint(jpeg)

    found = list(map_in_threads(examine, layout.read(folder)))
    splits = [path.partition("/")[0] for path, _, _ in found]
    comparison = CrossSplitComparison([fingerprint for _, _, fingerprint in found])
    across = comparison.across(splits)
    order = across[np.argsort(-comparison.scores[across], kind="stable")]
    pairs = [
        CrossSplitPair(
            found[comparison.pairs.first[n]][0],
            found[comparison.pairs.second[n]][0],
            float(comparison.scores[n]),
        )
        for n in order
        if comparison.scores[n] > 0
    ]
    leaks = [
        f"{pair.one} and {pair.other} are {pair.similarity:.3f} alike"
        for pair in pairs
        if pair.similarity >= POSSIBLE_SIMILARITY
    ]
    leaks += _manifest_mismatches(found, rows) + _shared_across_splits(rows)
    return AuditResult(len(found), len(across), leaks, pairs[:CLOSEST_PAIRS])


def _manifest_mismatches(
    found: Sequence[tuple[str, str, Fingerprint]], rows: Mapping[str, Mapping[str, object]]
) -> list[str]:
    """Files that are not those of the manifest."""
    paths = {path for path, _, _ in found}
    wrong = [
        f"{path} is not the file of the manifest"
        for path, digest, _ in found
        if path not in rows or rows[path]["file_sha256"] != digest
    ]
    return wrong + [f"{path} is missing" for path in rows if path not in paths]


def _shared_across_splits(rows: Mapping[str, Mapping[str, object]]) -> list[str]:
    """What photos of two splits have in common, by the manifest."""
    first: dict[tuple[str, object], str] = {}
    wrong = []
    for path, row in rows.items():
        for name in GROUP_COLUMNS:
            known = first.setdefault((name, row[name]), path) if row[name] is not None else path
            if rows[known]["split"] != row["split"]:
                wrong.append(f"{known} and {path} have one {name}")
    return wrong
