"""Test that no crawl and no build adds taken down images again."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dataset.images.store import ImageStore
from scraper.sample_shop.server import SampleShop, ShopOptions, serve
from tests.support.catalogues import catalogue_of, rows
from tests.support.crawls import class_folder, crawl, run

LABELS = ("polo", "dress")
SIGHTINGS = (
    "SELECT sha256, s.url, p.author, i.store_key FROM images i"
    " JOIN sightings s ON s.image_id = i.id JOIN posts p ON p.id = s.post_id ORDER BY i.id"
)


def crawl_all(shop: SampleShop, folder: Path) -> str:
    options = ("--tags", ",".join(LABELS), "--set", "search=web", "--full")
    status, output = crawl(shop, folder, *options, site="pinterest")
    assert status == 0, output
    return output


def build(folder: Path) -> dict[str, str]:
    """Build a dataset; return the SHA-256 in the catalogue of each image by its path."""
    options = ("--min-per-class", "5", "--size", "64", "--crop", "none", "--splits", "60,20,20")
    done = run(folder, "build-dataset", *options, "--catalogue", catalogue_of(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = pq.read_table(folder / "splits" / "manifest.parquet").to_pylist()
    return {row["path"]: row["sha256"] for row in manifest}


@pytest.mark.slow
@pytest.mark.usefixtures("backend")
def test_crawls_and_builds_skip_taken_down_images(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for number, label in enumerate(LABELS):
        class_folder(photos, label, 20, 500 * number, (150, 200))
    options = ShopOptions(
        photos=photos, site="pinterest", duplicates=0.2, double_tagged=0, generation="web"
    )
    with serve(options) as shop:
        crawl_all(shop, tmp_path)
        before = build(tmp_path)
        sightings = rows(tmp_path, SIGHTINGS)
        (first, url, *_), (digest, *_), (_, _, author, _) = (
            sightings[0],
            sightings[5],
            sightings[12],
        )
        by_author = {sha256 for sha256, _, name, _ in sightings if name == author}
        assert 0 < len(by_author) < len({sha256 for sha256, *_ in sightings}) - 10
        for target in (url, digest[:12], author):
            done = run(
                tmp_path, "catalogue", "forget", target, "--catalogue", catalogue_of(tmp_path)
            )
            assert done.returncode == 0, done.stdout + done.stderr
        taken_down = {first, digest} | by_author
        assert not taken_down & {sha256 for sha256, *_ in rows(tmp_path, SIGHTINGS)}
        output = crawl_all(shop, tmp_path)
    assert "taken down" in output
    after = build(tmp_path)
    stored = {sha256 for sha256, *_ in rows(tmp_path, SIGHTINGS)}
    assert stored and not taken_down & stored
    assert set(before.values()) & taken_down and not set(after.values()) & taken_down
    assert set(ImageStore(tmp_path / "images").keys()) == {k for *_, k in rows(tmp_path, SIGHTINGS)}
    splits = {
        sha
        for (sha,) in rows(
            tmp_path, "SELECT sha256 FROM kept_splits JOIN images ON image_id = images.id"
        )
    }
    assert splits >= set(after.values()) and not splits & taken_down
    written = {
        str(p.relative_to(tmp_path / "splits"))
        for p in (tmp_path / "splits").glob("*/*/*.jpg")
        if p.parts[-3] != "contact"
    }
    assert written == set(after)
