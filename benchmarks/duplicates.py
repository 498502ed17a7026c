"""Benchmark the search for photos that show the same: recall and precision, cost and memory.

    pip install -r benchmarks/requirements.txt
    python benchmarks/duplicates.py copies --photos ../shared/data/clothing --weights WEIGHTS.h5
    python benchmarks/duplicates.py search --hashes 1000000
    python benchmarks/duplicates.py features --photos 1000000

`copies` plants copies of all kinds of benchmarks/copies.py among real photos and searches them
together, with imagededup's hashes and CNN and with a threshold on embeddings on the same files.
Pairs of different originals count as different photos, except those in the file `--same`. `search`
runs imagededup, pybktree and this project on the same hashes; the other libraries run a sample of
the queries, and their time is extrapolated. `features` searches candidates among random features.
"""

import random
import resource
import sys
import tempfile
import time
import types
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import click
import numpy as np

from benchmarks.copies import KINDS, SHOWING_OTHERS, Draw
from dataset.duplicates import matching, voting
from dataset.duplicates.clusters import connected
from dataset.duplicates.features import BITS, LocalFeatures
from dataset.duplicates.hamming import MAX_DISTANCE_BITS, HashIndex, pairs_within
from dataset.duplicates.hashing import VIEW_COUNT
from dataset.duplicates.matching import nearest_known
from dataset.duplicates.search import LoadedPhotos, PhotoSignature, compare_candidates
from dataset.duplicates.verification import Relation
from dataset.duplicates.voting import feature_pairs
from dataset.images.io import find_photos, open_photo, sha256_of
from dataset.utils.cli_options import format_table
from dataset.utils.threads import map_in_threads

COPY_SHARE = 0.1
# Photos that only collages and insets show.
OTHER_PHOTOS = 60
ORIGINAL = "original"
# Precision at which the threshold of each other method is set.
PEER_PRECISION = 0.995


@dataclass(frozen=True)
class PlantedPhoto:
    """An original, or a copy of it.

    Attributes:
        path: The file.
        original: Number of the original.
        kind: Kind of copy.
    """

    path: Path
    original: int
    kind: str = ORIGINAL


def plant_copies(
    paths: Sequence[Path], others: Sequence[Path], per_photo: int, folder: Path
) -> list[PlantedPhoto]:
    """Write copies of photos into a folder, the kinds in turn; returns originals and copies."""
    names = list(KINDS)
    jobs = [
        (path, number, [names[(number * per_photo + k) % len(names)] for k in range(per_photo)])
        for number, path in enumerate(paths)
    ]
    with Pool(initializer=_load_others, initargs=(others, folder)) as pool:
        planted = pool.map(_plant, jobs, 4)
    originals = [PlantedPhoto(path, number) for number, path in enumerate(paths)]
    return [*originals, *(copy for photo_copies in planted for copy in photo_copies)]


_OTHERS: list = []


def _load_others(others: Sequence[Path], folder: Path) -> None:
    _OTHERS[:] = [folder, [open_photo(path) for path in others]]


def _plant(job: tuple[Path, int, Sequence[str]]) -> list[PlantedPhoto]:
    path, number, kinds = job
    folder, others = _OTHERS
    photo = open_photo(path)
    planted: list[PlantedPhoto] = []
    for kind in kinds:
        copy = KINDS[kind](photo, Draw(random.Random(f"{path.name} {kind}"), others))
        file = folder / f"{number}-{len(planted)}.jpg"
        copy.convert("RGB").save(file, "JPEG", quality=85)
        planted.append(PlantedPhoto(file, number, kind))
    return planted


@click.group()
def main() -> None:
    """Measure the search for near duplicates."""


@main.command()
@click.option("--photos", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--copied", default=300, show_default=True, help="Number of photos to copy.")
@click.option("--per-photo", default=5, show_default=True, help="Copies of each.")
@click.option(
    "--same", type=click.Path(exists=True, path_type=Path), help="File of pairs of the same photo."
)
@click.option(
    "--weights",
    type=click.Path(exists=True, path_type=Path),
    help="Weights of Inception-v3, to compare with its embeddings.",
)
@click.option(
    "--partitioned", is_flag=True, help="Search as among more photos than fit into memory."
)
def copies(
    photos: Path,
    copied: int,
    per_photo: int,
    same: Path | None,
    weights: Path | None,
    partitioned: bool,
) -> None:
    """Measure the recall per kind of copy, and the precision on all other pairs."""
    if partitioned:
        matching.MAX_EXACT_PHOTOS = voting.MAX_INDEXED_PHOTOS = 0
    paths = find_photos(photos.rglob("*")).paths
    random.Random(0).shuffle(paths)
    others, paths = paths[:OTHER_PHOTOS], paths[OTHER_PHOTOS : OTHER_PHOTOS + copied]
    known_pairs = (
        {frozenset(line.split()) for line in same.read_text().splitlines()} if same else set()
    )
    with tempfile.TemporaryDirectory() as folder:
        planted = plant_copies(paths, others, per_photo, Path(folder))
        planted.sort(key=lambda photo: sha256_of(photo.path.read_bytes()))
        edges = _search(planted)
        _report(planted, edges, known_pairs)
        for name, pairs in _peers(planted, weights):
            _report_peer(name, planted, pairs, known_pairs)


Edges = Mapping[Relation, Sequence[tuple[int, int]]]


def _search(planted: Sequence[PlantedPhoto]) -> Edges:
    """Search the photos, and print how long each step takes."""
    start = time.perf_counter()
    prints = list(map_in_threads(lambda photo: PhotoSignature.read(photo.path), planted))
    hashed = time.perf_counter() - start
    photos = LoadedPhotos(prints, lambda number: planted[number].path.read_bytes())
    edges: dict[Relation, list[tuple[int, int]]] = {relation: [] for relation in Relation}
    for batch in compare_candidates(photos):
        for pair in batch:
            edges[pair.comparison.relation].append((pair.first, pair.second))
    seconds = time.perf_counter() - start
    compared = sum(map(len, edges.values()))
    click.echo(
        f"{len(planted)} photos: fingerprints and features {hashed:.1f} s, search"
        f" {seconds - hashed:.1f} s with {compared} pairs compared by their pixels;"
        f" {len(planted) / seconds:.1f} photos a second in all"
    )
    return edges


def _components(count: int, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    first, second = np.array(pairs, np.int64).reshape(-1, 2).T
    return connected(count, first, second)


def _report(planted: Sequence[PlantedPhoto], edges: Edges, known: set[frozenset[str]]) -> None:
    count = len(planted)
    clusters = _components(count, edges[Relation.NEAR_DUPLICATE])
    groups = _components(count, [*edges[Relation.NEAR_DUPLICATE], *edges[Relation.POSSIBLE]])
    original = {p.original: n for n, p in enumerate(planted) if p.kind == ORIGINAL}
    found: dict[str, Counter[str]] = {}
    for number, photo in enumerate(planted):
        if photo.kind == ORIGINAL:
            continue
        its = original[photo.original]
        outcome = (
            "cluster"
            if clusters[number] == clusters[its]
            else "split"
            if groups[number] == groups[its]
            else "missed"
        )
        found.setdefault(photo.kind, Counter())[outcome] += 1
    found["all"] = sum(found.values(), Counter())
    rows = [
        (kind, *(f"{100 * found[kind][name] / found[kind].total():.1f}" for name in OUTCOMES))
        for kind in (*KINDS, "all")
        if kind in found
    ]
    click.echo(format_table(("copy", "one cluster %", "one split only %", "missed %"), rows))
    for relation in (Relation.NEAR_DUPLICATE, Relation.POSSIBLE):
        _report_wrong(f"pairs {relation}", planted, edges[relation], known)


OUTCOMES = ("cluster", "split", "missed")


def _report_wrong(
    name: str,
    planted: Sequence[PlantedPhoto],
    pairs: Sequence[tuple[int, int]],
    known: set[frozenset[str]],
) -> None:
    by_number = {p.original: p.path.name for p in planted if p.kind == ORIGINAL}
    wrong = [
        (planted[first], planted[second])
        for first, second in pairs
        if planted[first].original != planted[second].original
        # Two collages may show the same other photo.
        and not {planted[first].kind, planted[second].kind} <= SHOWING_OTHERS
        and frozenset(by_number[planted[i].original] for i in (first, second)) not in known
    ]
    right = len(pairs) - len(wrong)
    percent = 100 * right / max(1, len(pairs))
    click.echo(f"{name}: {len(pairs)}, {percent:.3f} % right")
    for first, second in wrong[:10]:
        names = [f"{by_number[photo.original]} ({photo.kind})" for photo in (first, second)]
        click.echo(f"  different photos: {' and '.join(names)}")


def _report_peer(
    name: str,
    planted: Sequence[PlantedPhoto],
    pairs: Sequence[tuple[int, int, float]],
    known: set[frozenset[str]],
) -> None:
    """Print the recall of a method at the threshold where PEER_PRECISION of its pairs are right."""
    by_number = {p.original: p.path.name for p in planted if p.kind == ORIGINAL}
    ordered = sorted(pairs, key=lambda pair: -pair[2])
    is_right = np.array(
        [
            planted[a].original == planted[b].original
            or frozenset(by_number[planted[i].original] for i in (a, b)) in known
            for a, b, _ in ordered
        ],
        bool,
    )
    precision = np.cumsum(is_right) / np.arange(1, len(is_right) + 1)
    last = np.flatnonzero(precision >= PEER_PRECISION)
    kept = ordered[: int(last[-1]) + 1] if len(last) else []
    groups = _components(len(planted), [(a, b) for a, b, _ in kept])
    original = {p.original: n for n, p in enumerate(planted) if p.kind == ORIGINAL}
    copies_found = [
        groups[n] == groups[original[p.original]]
        for n, p in enumerate(planted)
        if p.kind != ORIGINAL
    ]
    threshold = f"{kept[-1][2]:.3f}" if kept else "none"
    click.echo(
        f"{name}: {100 * np.mean(copies_found):.1f} % of the copies linked at the similarity"
        f" {threshold}, where {PEER_PRECISION:.1%} of its pairs are right"
    )


def _peers(
    planted: Sequence[PlantedPhoto], weights: Path | None
) -> list[tuple[str, list[tuple[int, int, float]]]]:
    """Return similar pairs by other methods, with their similarities."""
    peers = [("pHash (imagehash)", _hash_pairs(planted))]
    try:
        from imagededup.methods import CNN

        encodings = CNN(verbose=False)
        vectors = np.stack([encodings.encode_image(str(p.path))[0] for p in planted])
        peers.append(("imagededup CNN", _cosine_pairs(vectors)))
    except (ImportError, OSError, RuntimeError) as error:
        click.echo(f"imagededup's CNN is not here: {str(error).splitlines()[0]}")
    if weights is not None:
        peers.append(("embeddings of Inception-v3", _cosine_pairs(_embeddings(planted, weights))))
    return peers


def _hash_pairs(planted: Sequence[PlantedPhoto]) -> list[tuple[int, int, float]]:
    import imagehash

    hashes = np.array(
        [int(str(imagehash.phash(open_photo(p.path))), 16) for p in planted], np.uint64
    )
    return [
        (int(first), int(second), 1 - float(distance) / 64)
        for pairs in pairs_within(hashes, 12)
        for first, second, distance in zip(pairs.first, pairs.second, pairs.distance, strict=True)
    ]


def _embeddings(planted: Sequence[PlantedPhoto], weights: Path) -> np.ndarray:
    import keras

    network = keras.applications.InceptionV3(weights=str(weights), include_top=False, pooling="avg")
    vectors = []
    for start in range(0, len(planted), 32):
        photos = [open_photo(p.path).resize((299, 299)) for p in planted[start : start + 32]]
        batch = np.stack([np.asarray(photo, np.float32) for photo in photos]) / 127.5 - 1
        vectors.append(network.predict(batch, verbose=0))
    return np.concatenate(vectors)


def _cosine_pairs(vectors: np.ndarray) -> list[tuple[int, int, float]]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    products = np.triu(unit @ unit.T, 1)
    first, second = np.nonzero(products > 0.7)
    values = products[first, second].tolist()
    return list(zip(first.tolist(), second.tolist(), values, strict=True))


@main.command()
@click.option("--photos", "count", default=1_000_000, show_default=True)
def features(count: int) -> None:
    """Search candidates among random local features, a tenth of the photos with a copy."""
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    is_copy = rng.random(count) < COPY_SHARE

    def features_of(photos: Sequence[int]) -> Iterator[LocalFeatures]:
        return (_random_features(photo, bool(is_copy[photo])) for photo in photos)

    pairs = feature_pairs(np.ones(count, bool), features_of)
    seconds = time.perf_counter() - start
    copied = np.flatnonzero(is_copy[1:]) + 1
    found = {(int(first), int(second)) for first, second, _ in pairs}
    recall = np.mean([(photo - 1, photo) in found for photo in copied.tolist()])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    click.echo(
        f"{count} photos: {len(pairs)} candidate pairs in {seconds:.0f} s"
        f" ({1000 * seconds / count:.2f} ms a photo), {memory:.2f} GB at most; {recall:.1%} of"
        f" {len(copied)} copies are candidates"
    )


def _random_features(photo: int, is_copy: bool) -> LocalFeatures:
    """Return random features; those of a copy are half those of the photo before it.

    One of 20 bits of the common half differs, as between key points of the same place.
    """
    rng = np.random.default_rng(photo)
    codes = rng.integers(0, 256, (400, BITS // 8), dtype=np.uint8)
    if is_copy:
        earlier = _random_features(photo - 1, False).codes[::2]
        flips = np.packbits(rng.random((len(earlier), BITS)) < 0.05, axis=1)
        codes[::2] = earlier ^ flips
    return LocalFeatures((320, 320), np.zeros((400, 2), np.float32), codes)


def random_hashes(count: int) -> np.ndarray:
    """Return random hashes, a tenth of them within MAX_DISTANCE_BITS bits of another one."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 64, count, dtype=np.uint64)
    copies_of = rng.choice(count, (2, int(count * COPY_SHARE)), replace=False)
    flips = np.zeros(copies_of.shape[1], np.uint64)
    for _ in range(MAX_DISTANCE_BITS):
        flips |= np.uint64(1) << rng.integers(0, 64, len(flips), dtype=np.uint64)
    hashes[copies_of[0]] = hashes[copies_of[1]] ^ flips
    return rng.permutation(hashes)


@main.command()
@click.option("--hashes", "count", default=1_000_000, show_default=True)
@click.option(
    "--asked",
    "query_count",
    default=200,
    show_default=True,
    help="Number of queries for the other libraries.",
)
def search(count: int, query_count: int) -> None:
    """Find all pairs within the threshold, and the neighbors of one new photo."""
    hashes = random_hashes(count)
    start = time.perf_counter()
    results = [np.stack([pairs.first, pairs.second]) for pairs in pairs_within(hashes)]
    ours = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    pairs = np.concatenate(results, axis=1)
    click.echo(f"ours: {pairs.shape[1]} pairs in {ours:.1f} s, {memory:.2f} GB at most")
    queries = np.random.default_rng(1).choice(pairs[0], query_count)
    _check(hashes, queries, pairs)
    times = [("ours", ours)]
    for name, measure in (("imagededup", _imagededup), ("pybktree", _pybktree)):
        times.append((name, measure(hashes, queries)))
    click.echo(
        format_table(
            ("search", "seconds", "speed-up of ours"),
            [(n, f"{t:.0f}", f"{t / ours:.1f}x") for n, t in times],
        )
    )
    _measure_lookup(hashes)


def _check(hashes: np.ndarray, queries: np.ndarray, pairs: np.ndarray) -> None:
    """Check that each query has exactly the neighbors of a brute-force comparison."""
    for query in queries:
        expected = set(
            np.flatnonzero(np.bitwise_count(hashes ^ hashes[query]) <= MAX_DISTANCE_BITS).tolist()
        )
        actual = set(pairs[1][pairs[0] == query].tolist()) | set(
            pairs[0][pairs[1] == query].tolist()
        )
        assert expected - {int(query)} == actual, query
    click.echo(f"exact: {len(queries)} hashes have all their neighbours and no other")


def _distance(first: str, second: str) -> int:
    """Return the distance of two hashes; imagededup's compiled search counts the bits itself."""
    return (int(first, 16) ^ int(second, 16)).bit_count()


def _imagededup(hashes: np.ndarray, queries: np.ndarray) -> float:
    """Return the time of imagededup's fastest search on all cores, extrapolated from a sample."""
    # imagededup imports torchvision for networks that its search of hashes does not use, and a
    # torchvision works with one build of torch only.
    sys.modules["imagededup.utils.models"] = types.ModuleType("models")
    sys.modules["imagededup.utils.models"].CustomModel = None  # type: ignore[attr-defined]
    from imagededup.handlers.search.retrieval import HashEval

    all_hashes = {str(index): f"{value:016x}" for index, value in enumerate(hashes.tolist())}
    seconds = []
    for sample in (queries[: len(queries) // 2], queries):
        start = time.perf_counter()
        query_hashes = {str(index): all_hashes[str(index)] for index in sample.tolist()}
        HashEval(
            all_hashes,
            query_hashes,
            _distance,
            False,
            MAX_DISTANCE_BITS,
            "brute_force_cython",
        )
        seconds.append(time.perf_counter() - start)
    return _extrapolate(seconds, len(queries), len(hashes))


def _pybktree(hashes: np.ndarray, queries: np.ndarray) -> float:
    """Return the time of pybktree: building the whole tree, and a sample of the queries."""
    import pybktree

    start = time.perf_counter()
    tree = pybktree.BKTree(pybktree.hamming_distance, hashes.tolist())
    built = time.perf_counter() - start
    start = time.perf_counter()
    for query in queries[:20].tolist():
        tree.find(int(hashes[query]), MAX_DISTANCE_BITS)
    return built + (time.perf_counter() - start) / 20 * len(hashes)


def _extrapolate(seconds: Sequence[float], sample_size: int, count: int) -> float:
    """Extrapolate the time for all queries from the times for half of the sample and all of it."""
    per_query = max(0.0, seconds[1] - seconds[0]) / (sample_size - sample_size // 2)
    return seconds[1] - per_query * sample_size + per_query * count


def _measure_lookup(hashes: np.ndarray) -> None:
    """Measure the lookup of one new photo and its mirror image during a crawl."""
    views, index, times = np.repeat(hashes[:1], VIEW_COUNT)[None], HashIndex(hashes), []
    nearest_known(views, index)
    for _ in range(50):
        start = time.perf_counter()
        nearest_known(views, index)
        times.append(time.perf_counter() - start)
    click.echo(f"lookup of one photo among {len(hashes)}: {1000 * float(np.median(times)):.1f} ms")


if __name__ == "__main__":
    main()
