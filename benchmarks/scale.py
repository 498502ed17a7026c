"""Measure what millions of photos and several nodes cost.

    python benchmarks/scale.py hashes --photos 1000000
    python benchmarks/scale.py features --photos 1000000

`hashes` and `features` search candidates of near duplicates among random fingerprints, among which
copies are planted.
"""

import resource
import time
from collections.abc import Iterator

import click
import numpy as np

from dataset.duplicates.features import INDEXED_KEYPOINTS, KEY_BITS
from dataset.duplicates.hamming import MAX_BANDED_BITS
from dataset.duplicates.hashing import VIEW_COUNT
from dataset.duplicates.matching import candidate_pairs
from dataset.duplicates.voting import sorted_candidates

COPY_SHARE = 0.1


@click.group()
def main() -> None:
    """Measure scale."""


def peak_memory() -> float:
    """Return the largest memory of this process so far in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


@main.command()
@click.option("--photos", "count", default=1_000_000, show_default=True)
def hashes(count: int) -> None:
    """Search candidates by hashes; a tenth of the photos have a copy with one near view."""
    rng = np.random.default_rng(0)
    views = rng.integers(0, 1 << 64, (count, VIEW_COUNT), dtype=np.uint64)
    originals, copies = rng.permutation(count)[: 2 * int(count * COPY_SHARE)].reshape(2, -1)
    flips = np.zeros(len(copies), np.uint64)
    wanted = rng.integers(0, MAX_BANDED_BITS + 1, len(copies))
    while (is_short := np.bitwise_count(flips) < wanted).any():
        bits = np.uint64(1) << rng.integers(0, 64, len(flips), dtype=np.uint64)
        flips[is_short] |= bits[is_short]
    views[copies, 0] = views[originals, 0] ^ flips
    generated, start = peak_memory(), time.perf_counter()
    pairs = candidate_pairs(views, np.ones(count, bool))
    seconds = time.perf_counter() - start
    codes = pairs.first * count + pairs.second
    planted = np.minimum(originals, copies) * count + np.maximum(originals, copies)
    is_found = np.isin(planted, codes)
    recall = ", ".join(
        f"{bits} bits {is_found[wanted == bits].mean():.1%}" for bits in range(MAX_BANDED_BITS + 1)
    )
    click.echo(
        f"{count} photos: {len(codes)} candidate pairs in {seconds:.0f} s, {peak_memory():.2f} GB"
        f" at most ({generated:.2f} GB before); recall {is_found.mean():.1%} of {len(planted)}"
        f" copies ({recall})"
    )


# Photos whose keys are drawn at once. Of the key points of a copy, half are those of the original,
# and 1 of 12 of their keys is equal (see `features.KEY_COUNT`).
DRAWN_PHOTOS, EQUAL_KEYS = 4096, 0.5 / 12


@main.command()
@click.option("--photos", "count", default=1_000_000, show_default=True)
def features(count: int) -> None:
    """Search candidates by keys of local features that are sorted on disk."""
    is_copy = np.random.default_rng(0).random(count) < COPY_SHARE
    is_copy[::DRAWN_PHOTOS] = False

    def keys(table: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for start in range(0, count, DRAWN_PHOTOS):
            rng = np.random.default_rng((table, start))
            photos = np.arange(start, min(start + DRAWN_PHOTOS, count))
            shape = len(photos), INDEXED_KEYPOINTS
            own, mirrored = rng.integers(0, 1 << KEY_BITS, (2, *shape), dtype=np.uint64)
            copies = np.flatnonzero(is_copy[photos])
            is_equal = rng.random((len(copies), INDEXED_KEYPOINTS)) < EQUAL_KEYS
            own[copies] = np.where(is_equal, own[copies - 1], own[copies])
            owners = np.repeat(photos.astype(np.uint64), INDEXED_KEYPOINTS)
            yield owners, own.reshape(-1), mirrored.reshape(-1)

    start = time.perf_counter()
    rows = sorted_candidates(keys, count)
    seconds = time.perf_counter() - start
    copies = np.flatnonzero(is_copy)
    recall = np.isin((copies - 1) * count + copies, rows[:, 0] * count + rows[:, 1]).mean()
    click.echo(
        f"{count} photos: {len(rows)} candidate pairs in {seconds:.0f} s, {peak_memory():.2f} GB at"
        f" most; recall {recall:.1%} of {len(copies)} copies"
    )


if __name__ == "__main__":
    main()
