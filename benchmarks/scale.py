"""Measure what millions of photos and several nodes cost.

    python benchmarks/scale.py hashes --photos 1000000
    python benchmarks/scale.py features --photos 1000000
    python benchmarks/scale.py ray
    python benchmarks/scale.py driver --photos 1000000

`hashes` and `features` search candidates of near duplicates among random fingerprints, among which
copies are planted. `ray` extracts local features of drawn photos here and in clusters of this
machine, in turns. `driver` measures the memory of a command while it crops and renders planned
photos.
"""

import logging
import resource
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import psutil
import sqlalchemy as sa

from dataset.catalogue.models import ImageRow
from dataset.catalogue.queries import in_batches
from dataset.catalogue.session import open_catalogue
from dataset.duplicates.features import BITS, SEARCH_KEYS, LocalFeatures
from dataset.duplicates.hamming import MAX_BANDED_BITS
from dataset.duplicates.hashing import VIEW_COUNT
from dataset.duplicates.matching import candidate_pairs
from dataset.duplicates.pipeline import StoredImageTask, _local_features
from dataset.duplicates.search import PhotoSignature, SignatureFile
from dataset.duplicates.voting import sorted_candidates
from dataset.export.rendering import RenderResult, render_images
from dataset.images.io import sha256_of
from dataset.images.store import ImageStore
from dataset.pose.heatmaps import Estimate, PersonMask
from dataset.selection.candidates import Candidate
from dataset.selection.crops import PeopleTask, PoseOptions, find_crops
from dataset.selection.labeling import LabeledImage
from dataset.utils.cli_options import format_table
from dataset.utils.engines import LOCAL_ENGINE, Engine, RayEngine
from scraper.sample_shop.drawing.product import draw_product

COPY_SHARE = 0.1
# Different photos of `ray`.
DRAWN = 64


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
# and 1 of 12 of their keys is equal (see `features.SEARCH_KEYS`).
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
            shape = len(photos), SEARCH_KEYS.keypoints
            own, mirrored = rng.integers(0, 1 << SEARCH_KEYS.bits, (2, *shape), dtype=np.uint64)
            copies = np.flatnonzero(is_copy[photos])
            is_equal = rng.random((len(copies), SEARCH_KEYS.keypoints)) < EQUAL_KEYS
            own[copies] = np.where(is_equal, own[copies - 1], own[copies])
            owners = np.repeat(photos.astype(np.uint64), SEARCH_KEYS.keypoints)
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


# Clusters of `ray`: cores of each node.
CLUSTERS = {"one node of two cores": (2,), "one node of one core": (1,), "two nodes": (1, 1)}


@main.command("ray")
@click.option("--photos", "count", default=600, show_default=True, help="Photos of each run.")
@click.option("--rounds", default=3, show_default=True)
def measure_ray(count: int, rounds: int) -> None:
    """Compare Ray with threads of this process, and two nodes with one."""
    with tempfile.TemporaryDirectory() as folder:
        store = ImageStore(Path(folder))
        keys = [f"{number:02}.jpg" for number in range(DRAWN)]
        for number, key in enumerate(keys):
            draw_product(("dress", "jeans")[number % 2], number).photo.save(store.root / key)
        jobs = [(number, keys[number % DRAWN]) for number in range(count)]
        task = StoredImageTask(store, (_local_features,))
        measured: dict[str, list[tuple[float, float]]] = {}
        for _ in range(rounds):
            results = {"threads": _measure(LOCAL_ENGINE, task, jobs)}
            results |= {name: _measure_on(cores, task, jobs) for name, cores in CLUSTERS.items()}
            for name, values in results.items():
                measured.setdefault(name, []).append(values)
    arrays = {name: np.array(values) for name, values in measured.items()}
    rows = [
        (name, *(f"{value:.1f}" for value in (count / np.median(array, 0))))
        for name, array in arrays.items()
    ]
    click.echo(format_table(("runs on", "photos/s", "photos per second of CPU"), rows))
    threads, one_node, one_core, two_nodes = arrays.values()
    more, more_cpu = np.median(one_node / threads, 0) - 1
    click.echo(
        f"Ray's overhead on two cores is {more:.0%} of the time and {more_cpu:.0%} of the CPU time"
        f" of threads; two nodes are {np.median(one_core / two_nodes, 0)[0]:.2f} times as fast as"
        f" one (medians of {rounds} rounds)"
    )


def _measure(
    engine: Engine, task: StoredImageTask, jobs: list[tuple[int, str]]
) -> tuple[float, float]:
    """Return seconds, and seconds of CPU, that jobs take once the workers have started."""
    list(engine.map(task, jobs[:DRAWN]))
    start, cpu = time.perf_counter(), _cpu_seconds()
    assert None not in list(engine.map(task, jobs))
    return time.perf_counter() - start, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    """Return the seconds of CPU of this process and of those it has started."""
    own = psutil.Process()
    times = [process.cpu_times() for process in (own, *own.children(recursive=True))]
    return float(sum(one.user + one.system for one in times))


def _measure_on(
    cores: Sequence[int], task: StoredImageTask, jobs: list[tuple[int, str]]
) -> tuple[float, float]:
    import ray
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cores[0]})
    for own in cores[1:]:
        cluster.add_node(num_cpus=own)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        return _measure(RayEngine(), task, jobs)
    finally:
        ray.shutdown()
        cluster.shutdown()


class InstantEngine:
    """An engine whose results are equal for all photos."""

    def map(self, task: Any, jobs: Iterable[Any]) -> Iterator[Any]:
        """Yield a pose for each image to crop, and a small file for each image to render."""
        rng = np.random.default_rng(0)
        if isinstance(task, PeopleTask):
            points = rng.random((len(task.model.joints.names), 7), np.float32) * 300
            mask = np.pad(np.full((50, 20), 255, np.uint8), ((7, 7), (14, 14)))
            for _ in jobs:
                yield Estimate(points.copy(), PersonMask(mask.copy(), (0, 0, 300, 400)))
            return
        codes = rng.integers(0, 256, (60, BITS // 8), np.uint8)
        image = draw_product("dress", 0).photo
        image.thumbnail((32, 32))
        fingerprint = PhotoSignature.of(image).fingerprint
        for _ in jobs:
            features = LocalFeatures((320, 320), np.zeros((60, 2), np.float32), codes.copy())
            yield RenderResult(b"no image", PhotoSignature(replace(fingerprint), features))

    def close(self) -> None:
        """Do nothing."""


@main.command()
@click.option("--photos", "count", default=1_000_000, show_default=True)
def driver(count: int) -> None:
    """Measure the memory of a build's process for its crops, jobs and rendered photos."""
    engine = InstantEngine()
    with tempfile.TemporaryDirectory() as name:
        folder, values = Path(name), {"state": "stored", "bytes": 1, "width": 300, "height": 400}
        sessions = open_catalogue(str(folder / "catalogue.sqlite"))
        digests = [sha256_of(str(number).encode()) for number in range(count)]
        with sessions.begin() as session:
            for batch in in_batches(range(count)):
                rows = [{**values, "id": n + 1, "sha256": digests[n]} for n in batch]
                session.execute(sa.insert(ImageRow), rows)
        images = [
            LabeledImage(
                Candidate(number, sha256, f"{sha256}.jpg", number, 300, 400, 1, copies=(number,)),
                ("dress",),
            )
            for number, sha256 in enumerate(digests, 1)
        ]
        store, before = ImageStore(folder / "images"), peak_memory()
        photos = [image.photo for image in images]
        crops = find_crops(photos, sessions, store, PoseOptions(), engine)
        cropped, signatures, rendered = peak_memory(), SignatureFile(), []
        for result in render_images(
            images, crops, store, folder / "pool", 300, "letterbox", engine=engine
        ):
            assert not isinstance(result, str)
            rendered.append(result[0])
            signatures.add(result[0].file_sha256 + result[0].render_key, result[1])
        click.echo(
            f"{count} photos: {before:.2f} GB with the plan, at most {cropped:.2f} GB with the"
            f" crops and {peak_memory():.2f} GB with {len(rendered)} rendered photos"
        )


if __name__ == "__main__":
    main()
