"""Count the copies of photos that a crawl and a build leave on both sides of a split.

    python -m benchmarks.leaks --photos ../shared/data/clothing/train

Plants copies of all kinds of benchmarks/copies.py, half of them under another hashtag, in a sample
shop, crawls it and builds. A copy is a leak if it was written to another split than its original or
than another copy of it. `--per-photo 0` plants no copies and measures the speed of
`catalogue dedup` alone.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path
from urllib.parse import urlsplit

import click
import pyarrow.parquet as pq
import sqlalchemy as sa

from benchmarks.copies import KINDS, Draw
from benchmarks.duplicates import ORIGINAL, OTHER_PHOTOS
from dataset.catalogue.models import ImageRow, Sighting
from dataset.catalogue.session import open_catalogue
from dataset.images.io import open_photo
from scraper.sample_shop.server import SampleShop, ShopOptions, serve

PROGRAM = Path(__file__).resolve().parents[1] / "fashion_tagger.py"
# Class folder -> tag.
TAGS = {name: name for name in ("dress", "shorts", "skirt", "t-shirt", "shirt")}
TAGS["pants"] = "trousers"


@click.command()
@click.option("--photos", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--per-class", default=50, show_default=True, help="Photos that are copied.")
@click.option("--per-photo", default=5, show_default=True, help="Copies of each.")
@click.option("--seed", default=0, show_default=True, help="Random seed.")
def main(photos: Path, per_class: int, per_photo: int, seed: int) -> None:
    """Print the speed of `catalogue dedup`, and how many copies are leaks, by kind."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        planted = plant(photos, folder / "shop", per_class, per_photo, random.Random(seed))
        with serve(ShopOptions(folder / "shop", duplicates=0, double_tagged=0)) as shop:
            address = ("--site-url", shop.url, "--image-url", shop.url)
            run(folder, "crawl", "lamoda", "--tags", ",".join(TAGS.values()), *address)
            start = time.perf_counter()
            run(folder, "catalogue", "dedup")
            seconds = time.perf_counter() - start
            click.echo(
                f"catalogue dedup: {len(planted)} photos, {len(planted) / seconds:.1f} per second"
            )
            if not per_photo:
                return
            run(folder, "build-dataset", "--min-per-class", "5")
            splits = written_splits(folder, shop, planted)
    leaks = Counter(kind for copies in splits.values() for kind in leaked(copies))
    copies = sum(kind != ORIGINAL for _, kind in planted.values())
    written = sum(map(len, splits.values()))
    click.echo(
        f"{copies} copies of {len(splits)} photos: {written} originals and copies were written,"
        f" {leaks.total()} of them leaks ({leaks.total() / copies:.2%} of the copies):"
        f" {', '.join(f'{count} x {kind}' for kind, count in leaks.most_common())}"
    )


def plant(
    photos: Path, shop: Path, per_class: int, per_photo: int, rng: random.Random
) -> dict[Path, tuple[str, str]]:
    """Write photos and copies into class folders.

    Returns:
        File -> its original and the kind of copy.
    """
    paths = {name: sorted((photos / name).glob("*.jpg")) for name in TAGS}
    for class_paths in paths.values():
        rng.shuffle(class_paths)
    rest = [path for class_paths in paths.values() for path in class_paths[per_class:]]
    others = [open_photo(path) for path in rng.sample(rest, OTHER_PHOTOS)]
    kinds = list(KINDS)
    rng.shuffle(kinds)
    planted: dict[Path, tuple[str, str]] = {}
    for name, tag in TAGS.items():
        for path in paths[name][:per_class]:
            photo = open_photo(path)
            for number in range(per_photo + 1):
                kind = kinds[len(planted) % len(kinds)] if number else ORIGINAL
                is_moved = number % 2 == 0 and number > 0
                label = rng.choice([t for t in TAGS.values() if t != tag]) if is_moved else tag
                file = shop / label / f"{path.stem}-{number}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                if kind == ORIGINAL:
                    file.write_bytes(path.read_bytes())
                else:
                    draw = Draw(random.Random(f"{path.name} {kind}"), others)
                    copy = KINDS[kind](photo, draw)
                    copy.convert("RGB").save(file, "JPEG", quality=rng.choice((75, 85, 92)))
                planted[file] = path.name, kind
    return planted


def run(folder: Path, *command: str) -> None:
    """Run a command in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(PROGRAM.parent)}
    subprocess.run([sys.executable, PROGRAM, *command], cwd=folder, env=environment, check=True)


def written_splits(
    folder: Path, shop: SampleShop, planted: dict[Path, tuple[str, str]]
) -> dict[str, list[tuple[str, str]]]:
    """Return original -> split and kind of each written photo that shows it."""
    rows = pq.read_table(folder / "splits/manifest.parquet", columns=["sha256", "split"])
    split_of = dict(zip(*rows.to_pydict().values(), strict=True))
    query = sa.select(Sighting.url, ImageRow.sha256).join(
        ImageRow, ImageRow.id == Sighting.image_id
    )
    sources = {path.rpartition("/")[2]: photo for path, photo in shop.stock.by_path.items()}
    splits: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
    with open_catalogue(str(folder / "catalogue.sqlite"))() as session:
        for url, sha256 in session.execute(query):
            origin = sources[urlsplit(url).path.rpartition("/")[2]].origin
            assert isinstance(origin, Path)
            original, kind = planted[origin]
            if sha256 in split_of:
                splits[original][sha256] = split_of[sha256], kind
    return {original: list(written.values()) for original, written in splits.items()}


def leaked(written: list[tuple[str, str]]) -> list[str]:
    """Return the kinds of the photos that are in another split than the original or most copies."""
    counts = Counter(split for split, _ in written)
    own = next((split for split, kind in written if kind == ORIGINAL), counts.most_common(1)[0][0])
    return [kind for split, kind in written if split != own]


if __name__ == "__main__":
    main()
