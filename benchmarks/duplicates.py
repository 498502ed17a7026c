"""Benchmark the search for near duplicates: recall on copies of real photos, and speed.

    pip install -r benchmarks/requirements.txt
    python benchmarks/duplicates.py copies --photos ../shared/data/clothing
    python benchmarks/duplicates.py search --hashes 1000000

`copies` creates each kind of copy of real photos; all other pairs count as different photos, except
the pairs of the same photo in the file `--same`. `search` runs imagededup, pybktree and this
project on the same hashes; the other libraries run a sample of the queries, and their time is
extrapolated.
"""

import io
import random
import resource
import sys
import time
import types
from collections.abc import Callable, Sequence
from multiprocessing import Pool
from pathlib import Path

import click
import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

from dataset.duplicates.alignment import DUPLICATE_SIMILARITY, POSSIBLE_SIMILARITY, similarity
from dataset.duplicates.hamming import MAX_DISTANCE_BITS, HashIndex, pairs_within
from dataset.duplicates.hashing import VIEW_COUNT, Fingerprint, fingerprint
from dataset.duplicates.matching import CandidatePairs, candidate_pairs, nearest_known
from dataset.images.io import find_photos, open_photo
from dataset.utils.cli_options import format_table

COPY_SHARE = 0.1
Change = Callable[[Image.Image, random.Random], Image.Image]


def encoded(quality: int) -> Change:
    """Return a change that encodes a photo as a JPEG of a given quality."""

    def change(photo: Image.Image, _draw: random.Random) -> Image.Image:
        out = io.BytesIO()
        photo.save(out, "JPEG", quality=quality)
        return open_photo(out.getvalue())

    return change


def scaled(factor: float) -> Change:
    """Return a change that resizes a photo by a factor."""
    return lambda photo, _: photo.resize((int(photo.width * factor), int(photo.height * factor)))


def cropped(part: float) -> Change:
    """Return a change that crops a random region, with both sides shortened by a fraction."""

    def change(photo: Image.Image, draw: random.Random) -> Image.Image:
        width, height = (round(side * (1 - part)) for side in photo.size)
        left = draw.randint(0, photo.width - width)
        top = draw.randint(0, photo.height - height)
        return photo.crop((left, top, left + width, top + height))

    return change


def shifted(photo: Image.Image, _draw: random.Random) -> Image.Image:
    """Make the photo warmer, brighter and of higher contrast."""
    warm = np.asarray(photo, np.float32) * [1.12, 1, 0.86] + 8
    warmer = Image.fromarray(warm.clip(0, 255).astype(np.uint8))
    return ImageEnhance.Brightness(ImageEnhance.Contrast(warmer).enhance(1.25)).enhance(1.1)


def watermarked(photo: Image.Image, _draw: random.Random) -> Image.Image:
    """Write a shop name across the middle and a word in a corner."""
    layer = Image.new("RGBA", photo.size, (0, 0, 0, 0))
    pen, font = ImageDraw.Draw(layer), ImageFont.load_default(photo.width // 9)
    places = [
        (0.1, 0.45, "@myshop.example", (255, 255, 255, 150)),
        (0.6, 0.92, "SALE", (255, 0, 0, 230)),
    ]
    for x, y, text, colour in places:
        pen.text((photo.width * x, photo.height * y), text, font=font, fill=colour)
    return Image.alpha_composite(photo.convert("RGBA"), layer).convert("RGB")


def noisy(photo: Image.Image, draw: random.Random) -> Image.Image:
    """Add sensor noise of 12 grey levels."""
    noise = np.random.default_rng(draw.randrange(1 << 30)).normal(
        0, 12, (photo.height, photo.width, 3)
    )
    return Image.fromarray((np.asarray(photo) + noise).clip(0, 255).astype(np.uint8))


def stickered(photo: Image.Image, _draw: random.Random) -> Image.Image:
    """Draw a yellow disk, a third of the width, over a corner."""
    copy = photo.copy()
    size = photo.width * 0.3
    corner = [photo.width * 0.65, photo.height * 0.05]
    ImageDraw.Draw(copy).ellipse([*corner, corner[0] + size, corner[1] + size], fill=(255, 220, 0))
    return copy


def mirrored_and_more(photo: Image.Image, draw: random.Random) -> Image.Image:
    """Mirror, crop by 5 % and re-encode."""
    return encoded(50)(cropped(0.05)(ImageOps.mirror(photo), draw), draw)


KINDS: dict[str, Change] = {
    **{f"JPEG quality {quality}": encoded(quality) for quality in (90, 70, 50, 30, 10)},
    "half the size": scaled(0.5),
    "a quarter of the size": scaled(0.25),
    "double the size": scaled(2),
    "colours shifted": shifted,
    "grey": lambda photo, _: photo.convert("L").convert("RGB"),
    "white border 5 %": lambda photo, _: ImageOps.expand(photo, photo.width // 20, "white"),
    "black border 10 %": lambda photo, _: ImageOps.expand(photo, photo.width // 10, "black"),
    "padded to a square": lambda photo, _: ImageOps.pad(photo, (600, 600), color="white"),
    "bars above and below": lambda photo, _: ImageOps.expand(
        photo, (0, photo.height // 7), "black"
    ),
    "watermark": watermarked,
    "cropped 5 %": cropped(0.05),
    "cropped 10 %": cropped(0.10),
    "cropped 20 %": cropped(0.20),
    "mirrored": lambda photo, _: ImageOps.mirror(photo),
    "mirrored, cropped 5 %, quality 50": mirrored_and_more,
    "blurred, 2 pixels": lambda photo, _: photo.filter(ImageFilter.GaussianBlur(2)),
    "noise": noisy,
    "height reduced by 15 %": lambda photo, _: photo.resize(
        (photo.width, round(photo.height * 0.85))
    ),
    "rotated by 2 degrees": lambda photo, _: photo.rotate(2, fillcolor="white"),
    "rotated by 5 degrees": lambda photo, _: photo.rotate(5, fillcolor="white"),
    "rotated by 90 degrees": lambda photo, _: photo.transpose(Image.Transpose.ROTATE_90),
    "rotated by 180 degrees, quality 50": lambda photo, draw: encoded(50)(photo.rotate(180), draw),
    "rotated by 90 degrees, mirrored": lambda photo, _: photo.transpose(Image.Transpose.TRANSPOSE),
    "sticker": stickered,
}


def _copies(path: Path) -> list[Fingerprint]:
    """Return the fingerprints of a photo and of its copies, in the order of `KINDS`."""
    photo, draw = open_photo(path), random.Random(path.name)
    return [fingerprint(photo), *(fingerprint(change(photo, draw)) for change in KINDS.values())]


def _fingerprint_of(path: Path) -> Fingerprint:
    return fingerprint(open_photo(path))


def _similarities(prints: Sequence[Fingerprint]) -> tuple[CandidatePairs, np.ndarray]:
    pairs = candidate_pairs(np.stack([item.views for item in prints]), np.ones(len(prints), bool))
    first, second = ([prints[index] for index in side] for side in (pairs.first, pairs.second))
    return pairs, similarity(first, second, pairs.orientation)


@click.group()
def main() -> None:
    """Measure the search for near duplicates."""


@main.command()
@click.option("--photos", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--copied", default=500, show_default=True, help="Number of photos to copy.")
@click.option(
    "--same", type=click.Path(exists=True, path_type=Path), help="File of pairs of the same photo."
)
def copies(photos: Path, copied: int, same: Path | None) -> None:
    """Measure the recall per kind of copy, and the precision on all other pairs."""
    paths = find_photos(photos.rglob("*")).paths
    known_pairs = (
        {frozenset(line.split()) for line in same.read_text().splitlines()} if same else set()
    )
    chosen = random.Random(0).sample(paths, min(copied, len(paths)))
    with Pool() as pool:
        copy_prints = pool.map(_copies, chosen, 8)
        prints = pool.map(_fingerprint_of, paths, 16)
    similarities = np.array([_copy_similarities(photo_prints) for photo_prints in copy_prints])
    rows = [
        (
            kind,
            *(
                f"{100 * (similarities[:, n] >= limit).mean():.1f}"
                for limit in (DUPLICATE_SIMILARITY, POSSIBLE_SIMILARITY)
            ),
        )
        for n, kind in enumerate(KINDS)
    ]
    click.echo(format_table(("copy", "in one cluster %", "in one split %"), rows))
    pairs, scores = _similarities(prints)
    wrong = [
        (score, paths[first].name, paths[second].name)
        for first, second, score in zip(pairs.first, pairs.second, scores, strict=True)
        if score >= POSSIBLE_SIMILARITY
        and frozenset((paths[first].name, paths[second].name)) not in known_pairs
    ]
    for score, first, second in sorted(wrong, reverse=True)[:10]:
        click.echo(f"different photos with similarity {score:.3f}: {first} {second}")
    for name, limit in (
        ("in one cluster", DUPLICATE_SIMILARITY),
        ("in one split", POSSIBLE_SIMILARITY),
    ):
        right, mistakes = (
            int((similarities >= limit).sum()),
            sum(score >= limit for score, *_ in wrong),
        )
        click.echo(
            f"{name}: {right} copies of {similarities.size}, and {mistakes} of"
            f" {len(paths) * (len(paths) - 1) // 2} pairs of different photos:"
            f" {100 * right / (right + mistakes):.3f} % right"
        )


def _copy_similarities(prints: Sequence[Fingerprint]) -> list[float]:
    """Return the similarity of the first fingerprint to each other one, or 0 without a pair."""
    scores = [0.0] * (len(prints) - 1)
    for index in range(1, len(prints)):
        pairs, similarities = _similarities([prints[0], prints[index]])
        if len(pairs.first):
            scores[index - 1] = float(similarities[0])
    return scores


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
